/*
 * The messages between the host and the agent (PID 1 of the guest). Compiled into both sides, so it
 * allocates nothing and needs nothing of a libc but memcpy, memchr and strlen.
 *
 * Transport. AF_VSOCK streams. The agent listens on port SM_WIRE_PORT of the guest; the host opens
 * as many connections as it likes. When the guest has booted, the agent itself connects once to
 * port SM_WIRE_PORT of the host (CID 2) and sends HELLO: that is the host's "agent ready". From
 * then on that connection is like those the host opened. After a snapshot restore all connections
 * are gone, the listening port is not.
 *
 * Frames. Little-endian: u32 payload length, u16 type, u16 flags (0), then the payload. How long a
 * payload may be depends on the type (sm_wire_max_payload): a header that promises more breaks the
 * protocol. So does a payload with bytes missing or left over. Whoever sees the protocol broken
 * closes the connection (the agent first sends ERROR, kind PROTOCOL).
 *
 * Requests. A connection carries any number of them, one after the other, each answered before the
 * next is looked at; the host may send several without waiting for the answers (RESTORE and EXEC in
 * one write). After a request that failed the agent closes the connection: what was pipelined
 * behind it is not done. EXEC and ATTACH take the connection over until the command's end, WATCH
 * until the host closes it.
 *
 *     PING                      -> PONG
 *     EXEC, ATTACH              -> STARTED, then the streams, then EXIT (see below)
 *     WRITE_FILE, DATA...       -> OK          exactly `size` bytes in DATA frames of any lengths
 *     READ_FILE                 -> FILE, DATA..., OK
 *     SET_CLOCK, ADD_ENTROPY, SET_IDENTITY, RESTORE -> OK
 *     SET_NETWORK               -> OK          before RESTORE, where the card is to be set up anew
 *     POWER_OFF                 -> OK, then the guest goes down
 *     LISTENERS, WAIT_LISTEN    -> SOCKETS
 *     WATCH                     -> SOCKETS at once, and again whenever they have changed
 *     WAIT_IDLE                 -> OK
 *     FREEZE, THAW              -> OK          user processes stop, and go on; RESTORE thaws too
 *     any of them               -> ERROR       instead of the answer (or of the rest of it)
 *
 * Exec. After STARTED the host may send STDIN, STDIN_EOF, SIGNAL and RESIZE, the agent sends
 * STDOUT, STDERR and WINDOW, and at last EXIT; then it closes the connection. STDIN has credit of
 * its own, so that a command which does not read its stdin cannot hold up SIGNAL: the host may send
 * SM_WIRE_STDIN_WINDOW bytes at first (even behind EXEC in the same write), and as many more as
 * WINDOW frames grant. STDIN beyond the credit breaks the protocol. SIGNAL and RESIZE that come too
 * late are ignored. EXIT is sent when the command itself has ended and what its output pipes held
 * at that time was sent; what descendants write later is lost. If the connection ends before the
 * command, its process group is killed, unless EXEC had SM_WIRE_EXEC_DETACH: then the command runs
 * on, blocks when its output pipes are full, and a later ATTACH with its pid takes up the streams
 * (stdin credit starts afresh) and gets the EXIT, even if the command ended in between. A command
 * without it that was there at a FREEZE lives on in the copies of the guest, too, and what it
 * writes is thrown away; the one that RESTORE names becomes like those with the flag.
 *
 * Ports. Connections to port SM_WIRE_PROXY_PORT of the guest carry no frames. They begin with
 * SM_WIRE_PROXY_FIRST bytes: u16 port, u16 protocol (6 or 17). TCP: the agent connects to that port
 * of the guest's loopback (127.0.0.1, then ::1), or where nobody listens there, at the card's
 * addresses, and passes bytes on in both directions, each of which ends by itself; where nobody
 * listens at all the host's stream is closed after a shutdown of receiving. UDP: each datagram is
 * preceded by its length (u16); one connection is one sender. With SM_WIRE_PROXY_SAY_OK added to
 * the protocol of TCP the agent sends "OK PORT\n" once it is connected, before all else: the
 * answer that clients of a front door wait for. With SM_WIRE_PROXY_OUTSIDE added (TCP, UDP)
 * somebody else than the VM's owner comes: the agent connects to the port at the card's address,
 * from there: services that are bound to the loopback are not reached, and none takes it for its
 * own machine's.
 *
 * Values: u16, u32, u64, i32 as they are. Strings: u32 length, the bytes, a NUL (not counted); no
 * NUL inside. Bytes: u32 length, the bytes. String lists: u32 count, u32 total length, then that
 * many bytes of NUL-terminated strings. The fields of a payload follow each other in the order of
 * the structures below, without padding. Decoded strings, bytes and lists point into the frame's
 * payload.
 */
#ifndef SM_WIRE_WIRE_H
#define SM_WIRE_WIRE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_WIRE_VERSION    5u
#define SM_WIRE_PORT       1024u
#define SM_WIRE_PROXY_PORT 1025u
#define SM_WIRE_HEADER     8u     /* bytes of a frame header */
#define SM_WIRE_MAX_DATA   65536u /* payload of STDIN, STDOUT, STDERR, DATA */
/* Of anything; only EXEC may come near it: a kernel takes 6 MiB. */
#define SM_WIRE_MAX_PAYLOAD  (8u << 20)
#define SM_WIRE_STDIN_WINDOW 65536u

#define SM_WIRE_PROXY_FIRST   4u
#define SM_WIRE_PROXY_TCP     6u
#define SM_WIRE_PROXY_UDP     17u
#define SM_WIRE_PROXY_SAY_OK  0x100u
#define SM_WIRE_PROXY_OUTSIDE 0x200u

#define SM_WIRE_MAX_PATH       4095u
#define SM_WIRE_MAX_HOSTNAME   64u
#define SM_WIRE_MAX_MACHINE_ID 32u
#define SM_WIRE_MAX_ENTROPY    512u
#define SM_WIRE_MAX_MESSAGE    511u
#define SM_WIRE_MAX_RESOLV     767u
#define SM_WIRE_MAX_STRINGS    (1u << 18) /* in one list; it is the kernel that refuses sooner */
#define SM_WIRE_MAX_FILE       (1ull << 30)
#define SM_WIRE_MAX_SOCKETS    2048u
#define SM_WIRE_MAX_WATCHED    256u /* sockets in an answer to WATCH */

enum sm_wire_type {
    /* The agent's greeting, once per boot. */
    SM_WIRE_HELLO = 0x01, /* struct sm_wire_hello */

    /* Requests, host to agent. */
    SM_WIRE_PING = 0x10,         /* struct sm_wire_ping */
    SM_WIRE_EXEC = 0x11,         /* struct sm_wire_exec */
    SM_WIRE_ATTACH = 0x12,       /* struct sm_wire_attach */
    SM_WIRE_WRITE_FILE = 0x13,   /* struct sm_wire_write_file */
    SM_WIRE_READ_FILE = 0x14,    /* struct sm_wire_read_file */
    SM_WIRE_SET_CLOCK = 0x15,    /* struct sm_wire_set_clock */
    SM_WIRE_ADD_ENTROPY = 0x16,  /* struct sm_wire_add_entropy */
    SM_WIRE_SET_IDENTITY = 0x17, /* struct sm_wire_set_identity */
    SM_WIRE_RESTORE = 0x18,      /* struct sm_wire_restore */
    SM_WIRE_POWER_OFF = 0x19,    /* nothing */
    SM_WIRE_LISTENERS = 0x1a,    /* nothing */
    SM_WIRE_WAIT_LISTEN = 0x1b,  /* struct sm_wire_wait_listen */
    SM_WIRE_WAIT_IDLE = 0x1c,    /* struct sm_wire_wait_idle */
    SM_WIRE_FREEZE = 0x1d,       /* struct sm_wire_freeze */
    SM_WIRE_THAW = 0x1e,         /* nothing */
    SM_WIRE_WATCH = 0x1f,        /* nothing */
    SM_WIRE_SET_NETWORK = 0x20,  /* struct sm_wire_set_network */

    /* Answers, agent to host. */
    SM_WIRE_OK = 0x40,      /* nothing */
    SM_WIRE_ERROR = 0x41,   /* struct sm_wire_error */
    SM_WIRE_PONG = 0x42,    /* struct sm_wire_pong */
    SM_WIRE_STARTED = 0x43, /* struct sm_wire_started */
    SM_WIRE_EXIT = 0x44,    /* struct sm_wire_exit */
    SM_WIRE_FILE = 0x45,    /* struct sm_wire_file */
    SM_WIRE_SOCKETS = 0x46, /* struct sm_wire_sockets */

    /* Streams. */
    SM_WIRE_STDIN = 0x60,     /* host to agent: bytes */
    SM_WIRE_STDIN_EOF = 0x61, /* host to agent: nothing */
    SM_WIRE_SIGNAL = 0x62,    /* host to agent: struct sm_wire_signal */
    SM_WIRE_RESIZE = 0x63,    /* host to agent: struct sm_wire_resize */
    SM_WIRE_STDOUT = 0x64,    /* agent to host: bytes */
    SM_WIRE_STDERR = 0x65,    /* agent to host: bytes */
    SM_WIRE_WINDOW = 0x66,    /* agent to host: struct sm_wire_window */
    SM_WIRE_DATA = 0x67,      /* file contents, both ways: bytes */
};

/* What an ERROR is about. errnum and the message say more. */
enum sm_wire_error_kind {
    SM_WIRE_E_INTERNAL = 1,    /* the agent or the guest kernel failed at something */
    SM_WIRE_E_PROTOCOL = 2,    /* the other side sent what it must not */
    SM_WIRE_E_NOT_FOUND = 3,   /* EXEC: no such command (127 of a shell); files: no such path */
    SM_WIRE_E_CANNOT_EXEC = 4, /* EXEC: it is there but cannot be executed (126 of a shell) */
    SM_WIRE_E_NO_USER = 5,     /* EXEC: user or group unknown in the image */
    SM_WIRE_E_BAD_CWD = 6,     /* EXEC: working directory neither there nor to be made */
    SM_WIRE_E_TOO_BIG = 7,     /* READ_FILE: larger than `max` */
    SM_WIRE_E_TIMEOUT = 8,     /* WAIT_*: not in time */
    SM_WIRE_E_BAD_VALUE = 9,   /* a field's value makes no sense */
    SM_WIRE_E_NO_PROCESS = 10, /* ATTACH: no such detached command, or attached already */
};

struct sm_wire_bytes {
    const void *data;
    uint32_t len;
};

/* A decoded list has data, bytes and count; walk it with sm_wire_list_next. To encode, set strv (a
 * NULL-terminated vector) and leave the rest 0, or the other way round. All zero is an empty list.
 */
struct sm_wire_list {
    const char *const *strv;
    const char *data;
    uint32_t bytes;
    uint32_t count;
};

struct sm_wire_hello {
    uint32_t version;      /* SM_WIRE_VERSION of the agent */
    uint64_t boot_nonce;   /* random; made at boot, lives in guest RAM only */
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC of the guest at sending */
    const char *build;     /* version of the agent, for messages; at most 64 bytes */
};

struct sm_wire_ping {
    uint64_t cookie; /* comes back in PONG */
};

struct sm_wire_pong {
    uint64_t cookie;
    uint64_t boot_nonce;   /* that of HELLO: the same after a restore, another after a reboot */
    uint64_t monotonic_ns; /* CLOCK_MONOTONIC of the guest */
    uint64_t realtime_ns;  /* CLOCK_REALTIME of the guest */
    uint64_t ticks;        /* requests the agent has looked at since boot, this one included */
};

/* A new terminal is stdin, stdout and stderr; STDERR is not used. */
#define SM_WIRE_EXEC_TTY 0x01u
/* Survives its connection; ended only by its own will or timeout. */
#define SM_WIRE_EXEC_DETACH 0x02u
#define SM_WIRE_EXEC_STDIN  0x04u /* STDIN will come; without it stdin is /dev/null */
#define SM_WIRE_EXEC_STDOUT 0x08u /* STDOUT is wanted; without it stdout is /dev/null */
#define SM_WIRE_EXEC_STDERR 0x10u /* STDERR is wanted; without it stderr is /dev/null */
/* It is process 1 of the container, if nobody is yet; when that ends all others there are killed.
 * Without it, or if somebody is, it joins process 1. If nobody is that is the agent's, and does a
 * small init's work until the next who has this flag comes. */
#define SM_WIRE_EXEC_FIRST 0x20u
/* With FIRST: the small init is process 1 and passes signals on, the command is its child. */
#define SM_WIRE_EXEC_INIT 0x40u
/* With FIRST: what systemd finds in a container: /run, /run/lock, /tmp and /var/log/journal are
 * empty and in memory. */
#define SM_WIRE_EXEC_SYSTEMD 0x100u
/* With FIRST: nothing of the image's runs, but the agent's program, which ends at once: what a
 * start does to the guest. */
#define SM_WIRE_EXEC_TRIAL 0x80u

/* What of struct sm_wire_process is said. */
#define SM_WIRE_PROCESS_CAPABILITIES 0x001u
#define SM_WIRE_PROCESS_UMASK        0x002u
#define SM_WIRE_PROCESS_OOM_SCORE    0x004u
#define SM_WIRE_PROCESS_LIMITS       0x008u
#define SM_WIRE_PROCESS_GROUPS       0x010u
#define SM_WIRE_PROCESS_SYSCTLS      0x020u
#define SM_WIRE_PROCESS_TMPFS        0x040u
#define SM_WIRE_PROCESS_HOSTS        0x400u
/* These say all by themselves. */
#define SM_WIRE_PROCESS_NO_NEW_PRIVS 0x080u
#define SM_WIRE_PROCESS_READ_ONLY    0x100u /* its / */
/* What of /proc and /sys is hidden from others is there for it. */
#define SM_WIRE_PROCESS_PRIVILEGED 0x200u

/* The attributes of a command's process that are not as a container engine gives them where nothing
 * is said. All zero: none, and nothing but the flags is in the frame. */
struct sm_wire_process {
    uint32_t flags;
    uint64_t bounding; /* bit N: capability N is in the bounding set; root has those */
    uint64_t ambient;  /* another user than root has these, and so has what it starts */
    uint32_t umask;
    int32_t oom_score_adj;
    struct sm_wire_bytes limits; /* records, see sm_wire_limit_get */
    struct sm_wire_list groups;  /* names or gids, beside those that the user has */
    struct sm_wire_list sysctls; /* "a.b.c=value", for the whole guest */
    struct sm_wire_list tmpfs;   /* "FLAGS:DIR:DATA", see SM_WIRE_TMPFS_COPY */
    /* Lines that /etc/hosts gets in front of what it has; SM_WIRE_HOST_GATEWAY is an address. */
    struct sm_wire_list hosts;
};

/* Beside those of mount(2): what is in DIR, which is made if it is not there, is copied up. */
#define SM_WIRE_TMPFS_COPY (1u << 30)

#define SM_WIRE_LIMIT_SIZE 20u
#define SM_WIRE_MAX_LIMITS 16u /* Linux has as many */
struct sm_wire_limit {
    uint32_t resource;   /* RLIMIT_* of Linux */
    uint64_t soft, hard; /* UINT64_MAX: none */
};

struct sm_wire_exec {
    uint32_t flags;
    uint32_t timeout_ms; /* wall clock from start; 0: none. Then the process group gets SIGTERM */
    uint32_t grace_ms;   /* and this long after it SIGKILL; 0: SIGKILL at once */
    uint16_t rows;       /* of the terminal; 0: 24 */
    uint16_t columns;    /* 0: 80 */
    const char *user;    /* name or uid[:group or gid]; "": root */
    const char *cwd;     /* absolute; made if it is missing; "": "/" */
    struct sm_wire_list argv; /* at least one; argv[0] is looked up in the PATH of env */
    struct sm_wire_list
        env; /* PATH, HOME, HOSTNAME (and TERM with a terminal) are added if missing */
    struct sm_wire_process process;
};

struct sm_wire_attach {
    uint32_t pid; /* that of STARTED */
};

struct sm_wire_started {
    uint32_t pid;
};

struct sm_wire_exit {
    int32_t code;            /* 0..255; -1 when a signal ended it */
    uint32_t signal;         /* number of that signal, or 0 */
    uint32_t timed_out;      /* 1: killed because timeout_ms was over */
    uint32_t out_of_memory;  /* 1: it, or a process of it, was killed for want of memory */
    uint64_t peak_rss_bytes; /* of the command and its waited-for children, the largest one */
    uint64_t wall_us;        /* from start to end of the command */
};

/* Written to a new file in the same directory, then renamed over the path. */
struct sm_wire_write_file {
    const char *path; /* absolute */
    uint32_t mode;    /* permission bits, umask is not applied */
    uint32_t uid;
    uint32_t gid;
    uint64_t size; /* at most SM_WIRE_MAX_FILE */
};

struct sm_wire_read_file {
    const char *path; /* absolute; a regular file */
    uint64_t max;     /* more than this: ERROR TOO_BIG */
};

struct sm_wire_file {
    uint64_t size; /* as stat says; files of /proc say 0 and still have contents */
    uint32_t mode; /* permission bits */
    uint32_t uid;
    uint32_t gid;
};

struct sm_wire_set_clock {
    uint64_t realtime_ns;
};

/* Added to the kernel's pool and credited; then the generator is reseeded. */
struct sm_wire_add_entropy {
    struct sm_wire_bytes seed; /* 1..SM_WIRE_MAX_ENTROPY bytes */
};

struct sm_wire_set_identity {
    const char *hostname;   /* "": keep */
    const char *machine_id; /* 32 lower-case hexadecimal digits; "": keep */
};

/* SET_CLOCK, ADD_ENTROPY and SET_IDENTITY at once, then THAW if there was a FREEZE. OK means: all
 * of it was done. */
struct sm_wire_restore {
    uint64_t realtime_ns;
    struct sm_wire_bytes seed;
    const char *hostname;
    const char *machine_id;
    uint32_t attach_pid; /* of the command that an ATTACH will follow for; 0: none */
};

/* What the first network card is to be. What it was at boot, or by the last SET_NETWORK, goes; what
 * others have added stays. Addresses are in network order, of 4 and 16 bytes; empty: none. */
struct sm_wire_set_network {
    struct sm_wire_bytes mac; /* 6 bytes; empty: the card stays, and resolv_conf alone counts */
    uint32_t mtu;
    struct sm_wire_bytes address4, gateway4;
    struct sm_wire_bytes address6, gateway6;
    uint16_t prefix4, prefix6;
    const char *resolv_conf; /* text of /etc/resolv.conf, unless somebody has changed that */
};

/* The resolv.conf of a boot. The name server is that of the user-mode network; with EDNS nearly all
 * answers fit into one datagram. */
#define SM_WIRE_RESOLV_CONF "nameserver 10.0.2.3\noptions edns0\n"

/* In a line that a command adds to /etc/hosts: the gateway, whose own line has this name first. */
#define SM_WIRE_HOST_GATEWAY "host-gateway"
#define SM_WIRE_GATEWAY_NAME "host.containers.internal"

struct sm_wire_wait_listen {
    uint32_t port; /* 0: any TCP listener */
    uint32_t timeout_ms;
};

/* Idle: during quiet_ms (at least 200, more after each look that found the guest busy) the CPUs had
 * together less than a tenth of that to do. */
struct sm_wire_wait_idle {
    uint32_t quiet_ms;
    uint32_t timeout_ms;
};

/* Stops every process of the container (cgroup freezer), so that none of them runs between a
 * restore of what is captured now and RESTORE. If none is there, one is parked for process 1. */
struct sm_wire_freeze {
    uint32_t timeout_ms; /* then ERROR TIMEOUT, and they go on */
};

struct sm_wire_error {
    uint32_t kind;       /* enum sm_wire_error_kind */
    int32_t errnum;      /* errno of the guest, or 0 */
    const char *message; /* what failed, on what */
};

/* TCP sockets that listen and UDP sockets that are bound and not connected. */
struct sm_wire_sockets {
    struct sm_wire_bytes records; /* SM_WIRE_SOCKET_SIZE bytes each, see sm_wire_sockets_get */
};

#define SM_WIRE_SOCKET_SIZE 24u
struct sm_wire_socket {
    uint16_t family;   /* 4 or 6 */
    uint16_t protocol; /* 6 (TCP) or 17 (UDP) */
    uint16_t port;
    uint8_t address[16]; /* as bound, network order; IPv4 in the first four bytes */
};

struct sm_wire_signal {
    uint32_t signal;
    /* 0: to the command alone. 1: to its process group, and with a terminal to the foreground group
     * of that: what a terminal that is gone does, or a pipe that nobody reads. */
    uint32_t group;
};

struct sm_wire_resize {
    uint16_t rows;
    uint16_t columns;
};

struct sm_wire_window {
    uint32_t bytes; /* more STDIN may be sent */
};

/* ---- frames in ---------------------------------------------------------------------------- */

struct sm_wire_frame {
    uint32_t len; /* of the payload */
    uint16_t type;
    const uint8_t *payload;
};

/* Looks at the `have` bytes at buf, which begin with a frame. Returns 1 and fills *frame (whose
 * whole length is SM_WIRE_HEADER + frame->len) if all of it is there, 0 if more bytes are needed
 * (frame->len and frame->type are filled as soon as the header is there, frame->payload is NULL),
 * or -1 if it is no frame of this protocol. */
int sm_wire_parse(const void *buf, size_t have, struct sm_wire_frame *frame);

/* The longest payload of this type; -1: there is no such type. */
long sm_wire_max_payload(uint16_t type);

/* Name of a type, for messages ("EXEC"); "unknown" if there is no such type. */
const char *sm_wire_type_name(uint16_t type);

/* Copies the next string's address to *s and advances *cursor (0 at first); false at the end. */
bool sm_wire_list_next(const struct sm_wire_list *list, uint32_t *cursor, const char **s);

/* Socket number i, false when there are no more. */
bool sm_wire_sockets_get(const struct sm_wire_sockets *m, uint32_t i, struct sm_wire_socket *out);

/* Limit number i, false when there are no more. */
bool sm_wire_limit_get(const struct sm_wire_process *m, uint32_t i, struct sm_wire_limit *out);

/* ---- frames out --------------------------------------------------------------------------- */

/* Whole frames are appended to buf; the first one that does not fit or cannot be encoded (a string
 * too long, a list too large) sets `failed`, and nothing more is written. With buf NULL nothing is
 * written and len counts. */
struct sm_wire_writer {
    uint8_t *buf;
    size_t cap;
    size_t len;
    bool failed;
};

/* A message without fields: OK, POWER_OFF, LISTENERS, THAW, WATCH, STDIN_EOF. */
void sm_wire_put_empty(struct sm_wire_writer *w, enum sm_wire_type type);

/* A frame of bytes: STDIN, STDOUT, STDERR, DATA. */
void sm_wire_put_data(
    struct sm_wire_writer *w, enum sm_wire_type type, const void *data, size_t len);

/* Only the header of one, for writev. */
void sm_wire_data_header(uint8_t header[SM_WIRE_HEADER], enum sm_wire_type type, uint32_t len);

/* One record of struct sm_wire_sockets. */
void sm_wire_socket_store(uint8_t record[SM_WIRE_SOCKET_SIZE], const struct sm_wire_socket *s);

/* One record of struct sm_wire_process. */
void sm_wire_limit_store(uint8_t record[SM_WIRE_LIMIT_SIZE], const struct sm_wire_limit *limit);

/* For each message with fields, in its type:
 *   void sm_wire_put_NAME(struct sm_wire_writer *, const struct sm_wire_NAME *);
 *   bool sm_wire_get_NAME(const struct sm_wire_frame *, struct sm_wire_NAME *);
 * get is false, and *m undefined, if the frame is not of that type or not well-formed. */
#define SM_WIRE_MESSAGES(X)                                                                        \
    X(HELLO, hello)                                                                                \
    X(PING, ping)                                                                                  \
    X(EXEC, exec)                                                                                  \
    X(ATTACH, attach)                                                                              \
    X(WRITE_FILE, write_file)                                                                      \
    X(READ_FILE, read_file)                                                                        \
    X(SET_CLOCK, set_clock)                                                                        \
    X(ADD_ENTROPY, add_entropy)                                                                    \
    X(SET_IDENTITY, set_identity)                                                                  \
    X(RESTORE, restore)                                                                            \
    X(WAIT_LISTEN, wait_listen)                                                                    \
    X(WAIT_IDLE, wait_idle)                                                                        \
    X(FREEZE, freeze)                                                                              \
    X(SET_NETWORK, set_network)                                                                    \
    X(ERROR, error)                                                                                \
    X(PONG, pong)                                                                                  \
    X(STARTED, started)                                                                            \
    X(EXIT, exit)                                                                                  \
    X(FILE, file)                                                                                  \
    X(SOCKETS, sockets)                                                                            \
    X(SIGNAL, signal)                                                                              \
    X(RESIZE, resize)                                                                              \
    X(WINDOW, window)

void sm_wire_put(struct sm_wire_writer *w, enum sm_wire_type type, const void *message);
bool sm_wire_get(const struct sm_wire_frame *frame, enum sm_wire_type type, void *message);

#define SM_WIRE_DECLARE(TYPE, name)                                                                \
    static inline void sm_wire_put_##name(                                                         \
        struct sm_wire_writer *w, const struct sm_wire_##name *m)                                  \
    {                                                                                              \
        sm_wire_put(w, SM_WIRE_##TYPE, m);                                                         \
    }                                                                                              \
    static inline bool sm_wire_get_##name(                                                         \
        const struct sm_wire_frame *frame, struct sm_wire_##name *m)                               \
    {                                                                                              \
        return sm_wire_get(frame, SM_WIRE_##TYPE, m);                                              \
    }
SM_WIRE_MESSAGES(SM_WIRE_DECLARE)
#undef SM_WIRE_DECLARE

#endif
