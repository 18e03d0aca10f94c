/*
 * What the machine's process of a VM is asked, and what it says: records (record.h) over four
 * sockets that it is given when it is started.
 *
 *     SM_MACHINE_LIFE    one call at a time and its reply: what may take as long as the guest's
 *                        memory is large. The first one is START.
 *     SM_MACHINE_QUICK   one call at a time and its reply: what takes no time, and is answered
 *                        while a call of the other kind is under way.
 *     SM_MACHINE_STREAMS sockets that are to be connected to the guest, and what the guest wants to
 *                        be connected to: struct sm_machine_stream both ways, no replies. Any
 *                        thread sends. It is not read while the machine stands still.
 *     SM_MACHINE_END     one record, how the machine has ended. It is there to be looked at by any
 *                        number of readers, and is the last word of the process.
 *
 * Both sides are of one build, so records are structures. The process believes what it is asked,
 * but for lengths. Nobody believes it: a guest may have taken it over. A reply has the one size
 * that it may have, no descriptor comes with it, numbers are checked and texts are made text by who
 * uses them. Descriptors go down only: who wants a stream makes the socket pair and hands one end
 * down, who wants a file written opens it.
 *
 * Who has to know that the guest has accepted a stream asks for a word of the machine's at its
 * beginning (struct sm_vsock_target); when the stream ends without it, the guest refused.
 */
#ifndef SM_CONTROL_MACHINE_CALL_H
#define SM_CONTROL_MACHINE_CALL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

#include "control/record.h"
#include "devices/vsock/target.h"

/* Descriptors that the process begins with (util/spawn.h). */
enum {
    SM_MACHINE_LIFE = 3,
    SM_MACHINE_QUICK,
    SM_MACHINE_END,
    SM_MACHINE_STREAMS,
    SM_MACHINE_CLIENT, /* a pidfd: the machine ends when that process does */
    SM_MACHINE_USER,   /* what keeps the number of its user taken; or closed */
};

enum sm_machine_call {
    /* on SM_MACHINE_LIFE */
    SM_CALL_START = 1,      /* boot or restore: struct sm_machine_shape */
    SM_CALL_PAUSE,          /* the user's pause */
    SM_CALL_RESUME,         /* its end */
    SM_CALL_WRITTEN,        /* fd 0, a file: gets a bit for each page that a restored guest wrote */
    SM_CALL_QUIET,          /* ms: until the guest has dealt with the end of all streams */
    SM_CALL_CAPTURE,        /* delta; a label in the body: reply.capture.id */
    SM_CALL_CAPTURE_RESUME, /* id */
    SM_CALL_CAPTURE_WRITE,  /* id; fd 0 the file, 1 a socket for the reply at its end, 2 the base */
    SM_CALL_CAPTURE_FREE,   /* id */
    /* on SM_MACHINE_QUICK */
    SM_CALL_END_STREAMS,
    SM_CALL_HALTED,     /* reply.yes */
    SM_CALL_IS_PAUSED,  /* reply.yes */
    SM_CALL_KILL,       /* the end has been told when the reply comes */
    SM_CALL_CONSOLE,    /* fd 0, a file: gets its last `size` bytes, a NUL included */
    SM_CALL_LAST_LINES, /* size: in reply.text */
    SM_CALL_COUNTERS,
    SM_CALL_TIMING,
    SM_CALL_QUIT /* the process ends in order */
};

#define SM_MACHINE_CAPTURES 8 /* at the same time */

struct sm_machine_run {
    uint32_t page, n_pages;
};

/* Descriptors of a start, in this order; those that are not in `has` are left out. */
enum {
    SM_START_KVM,
    SM_START_ROOTFS,
    SM_START_SNAPSHOT, /* a restore, else: */
    SM_START_KERNEL,
    SM_START_INITRAMFS,
    SM_START_AGENT, /* where the agent's first connection leads */
    SM_START_CARD,  /* the frames of the network card; without it nothing is plugged in */
    SM_START_N_FDS
};

struct sm_machine_shape {
    uint64_t memory_bytes;
    uint32_t vcpus, has; /* bits of the descriptors above */
    uint32_t uid;        /* of a user that the process becomes; 0: it stays who it is */
    uint32_t n_written;  /* runs of pages in the body, before the texts: see sm_engine_config */
    uint8_t mac[6];
    bool speaks_first; /* as sm_socket_backend_create has it */
    bool count_instructions;
    /* texts: command line, kernel, initramfs, root file system, snapshot: names for messages */
};
#define SM_START_TEXTS 5

struct sm_machine_request {
    uint32_t call;
    uint32_t n_texts; /* at the end of the body, each with its NUL */
    union {
        struct sm_machine_shape start;
        uint32_t ms, size;
        struct {
            uint32_t id;
            uint32_t n_listeners; /* in the body, before the note; behind the three digests */
            bool delta;
        } capture;
    };
};

struct sm_machine_timing_reply {
    uint64_t created_ns, loaded_ns, entered_ns;
    uint64_t ram_map_us, vcpu_restore_us, irqchip_restore_us, clock_us, device_restore_us;
};

struct sm_machine_reply {
    int32_t rc; /* 0, or a negative enum sm_code: */
    int32_t sys_errno;
    char text[sizeof(((sm_error *)0)->message)]; /* its sentence; LAST_LINES: those */
    union {
        bool yes;
        uint64_t pages;   /* WRITTEN: bits in the file; 0: not known */
        uint64_t console; /* CONSOLE: bytes of the whole log */
        struct {
            uint32_t id;
            sm_snapshot_stats stats;
        } capture;
        sm_vm_counters counters;
        struct sm_machine_timing_reply timing;
    };
};

/* How it ended. */
struct sm_machine_end_record {
    uint32_t how; /* enum sm_vm_end */
    char message[sizeof(((sm_error *)0)->message)];
};

enum sm_machine_stream_kind {
    /* to the machine */
    SM_STREAM_BRIDGE = 1, /* fd 0: connect it to target */
    SM_STREAM_LEADS,      /* port 1: ASK where the guest's connections lead; 0: nowhere */
    SM_STREAM_LEAD,       /* the answer to ticket: fd 0, or no descriptor: it is reset */
    SM_STREAM_REPLUG,     /* fd 0: the card's new socket */
    /* from the machine */
    SM_STREAM_ASK, /* ticket, and the port of the host that the guest wants */
};

struct sm_machine_stream {
    uint32_t kind, ticket, port;
    struct sm_vsock_target target;
};

/* ---- the body of a request ------------------------------------------------------------------- */

struct sm_machine_message {
    struct sm_machine_request request;
    uint8_t body[SM_RECORD_MAX - sizeof(struct sm_machine_request)];
    size_t body_bytes;
    int fds[SM_RECORD_MAX_FDS]; /* who took the message owns them */
    unsigned n_fds;
};

/* Puts something behind what is there. SM_ELIMIT: it does not fit. */
int sm_machine_add(struct sm_machine_message *m, const void *data, size_t bytes, sm_error *err);
/* A text (NULL as ""). */
int sm_machine_add_text(struct sm_machine_message *m, const char *text, sm_error *err);

int sm_machine_send(int socket, const struct sm_machine_message *m, sm_error *err);
/* Waits for one. 0: it is there; 1: the other end is closed. What is no message is SM_EPROTOCOL. */
int sm_machine_take(int socket, struct sm_machine_message *m, sm_error *err);
/* Closes the descriptors that nobody has stolen. */
void sm_machine_message_close(struct sm_machine_message *m);

/* Reads a body from its beginning: `bytes` of it, or NULL; the texts behind that, exactly n of
 * them. */
const void *sm_machine_body(const struct sm_machine_message *m, size_t at, size_t bytes);
bool sm_machine_texts(
    const struct sm_machine_message *m, size_t at, const char **texts, unsigned n);

/* A reply, as the machine says it: `rc` and *err are put into it. */
void sm_machine_reply_failed(struct sm_machine_reply *reply, int rc, const sm_error *err);
int sm_machine_reply_send(int socket, const struct sm_machine_reply *reply);
/* And as the client reads it: what it says, as an error of ours. */
int sm_machine_reply_take(int socket, struct sm_machine_reply *reply, sm_error *err);

#endif
