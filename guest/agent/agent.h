/*
 * The agent's core: one thread, one epoll loop, no heap.
 *
 * Objects. A `conn` is a stream to the host, with at most one request under way. An `exec` is a
 * command that was started and has not been reported; it belongs to a conn, or to none (detached).
 * Both live in fixed tables: a slot's generation is in its epoll tag, so an event that is older
 * than the slot's present user is noticed.
 *
 * Cost. Where the guest kernel is emulated a system call takes 0.33 ms, a page fault 1.7 ms. So:
 * sockets are used with MSG_DONTWAIT and need no fcntl, a new connection is read at once, answers
 * of one turn of the loop are sent with one call, buffers come from a stack of hot pages, and
 * nothing is formatted, allocated or looked up that is not needed.
 *
 * Seams. What touches the whole machine (clock, entropy, host name, power) is in system.h, which
 * the tests replace; where streams come from is the caller's business (agent_listen,
 * agent_add_conn).
 */
#ifndef SM_AGENT_AGENT_H
#define SM_AGENT_AGENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "wire/wire.h"

#define AGENT_MAX_CONNS 512
#define AGENT_MAX_EXECS 512
#define AGENT_MAX_LINKS 4096

/* Room of an ordinary buffer: the largest data frame, and on top of it small frames that must fit.
 */
#define AGENT_BUFFER_ROOM (SM_WIRE_HEADER + SM_WIRE_MAX_DATA + 8192u)

struct buffer {
    struct buffer *next; /* in the stack of free ones */
    uint32_t cap, start, len;
    uint8_t data[];
};

enum conn_state {
    CONN_FREE = 0,
    CONN_REQUEST,     /* between requests */
    CONN_EXEC,        /* belongs to an exec */
    CONN_WRITE_FILE,  /* DATA frames are coming */
    CONN_READ_FILE,   /* DATA frames are going */
    CONN_WAIT_LISTEN, /* looked at by the timer */
    CONN_WAIT_IDLE,
    CONN_WAIT_FROZEN,
    CONN_WATCH,
    CONN_CLOSING, /* only output is left */
};

struct conn {
    enum conn_state state;
    int fd;
    uint32_t generation;
    uint32_t interest; /* epoll events asked for; 0: not registered */
    bool dirty;        /* in agent.dirty: output waits for the end of the turn */
    bool blocked;      /* the socket takes no more at present */
    bool power_off;    /* when the output is out, so is the light */
    struct conn *next_dirty;
    struct buffer *in, *out; /* NULL while empty */

    struct exec *exec;

    /* WRITE_FILE, READ_FILE */
    int file;
    uint64_t left; /* bytes still to come, or still allowed */
    struct buffer *path;

    /* WAIT_LISTEN, WAIT_IDLE, FREEZE */
    uint32_t port, quiet_ms, poll_ms;
    uint64_t next_ns, deadline_ns;
    uint64_t sample_ns, sample_busy_ns;

    uint64_t seen; /* WATCH: digest of what the host was told; 0: nothing yet */
};

struct out_stream {
    int fd;         /* -1: closed or never there */
    bool on;        /* registered with epoll */
    uint32_t drain; /* after the command's end: bytes that are still to be sent */
};

struct exec {
    pid_t pid; /* 0: free slot */
    uint32_t generation;
    uint32_t flags;
    struct conn *conn; /* NULL: detached, or lost by a restore */

    int in_fd;
    bool in_on, in_eof;
    struct buffer *in;      /* stdin that the command has not taken */
    uint32_t window, grant; /* stdin: bytes the host may send; taken and not yet granted again */

    struct out_stream out[2]; /* stdout (or the terminal), stderr */

    bool outlives; /* its connection: it was there at a FREEZE that no THAW has followed */
    bool ended, timed_out;
    int status;
    uint64_t peak_rss_bytes;
    uint64_t start_ns, end_ns;
    uint64_t deadline_ns; /* next step of the timeout; 0: none */
    uint32_t grace_ms;
};

struct agent {
    int epoll, listener, proxy_listener, signals;
    bool stop;
    bool frozen; /* FREEZE was done, THAW not yet */
    uint64_t boot_nonce, ticks;
    const char *passwd, *group; /* paths of the user database */
    const char *uptime;         /* path of /proc/uptime */
    struct conn *dirty;
    struct buffer *free_buffers;
    unsigned n_free_buffers;
    unsigned n_timed;          /* conns and execs with a deadline */
    unsigned n_watches;        /* conns in CONN_WATCH */
    unsigned n_conns, n_execs; /* slots that were ever used */
    char hostname[SM_WIRE_MAX_HOSTNAME + 1];
    struct conn conns[AGENT_MAX_CONNS];
    struct exec execs[AGENT_MAX_EXECS];
};

/* ---- agent.c: the loop -------------------------------------------------------------------- */

enum tag_kind {
    TAG_LISTENER = 1,
    TAG_SIGNALS,
    TAG_CONN,
    TAG_STDIN,
    TAG_STDOUT,
    TAG_STDERR,
    TAG_PROXY_LISTENER,
    TAG_LINK,
};

/* Blocks SIGCHLD and SIGPIPE. -1 and errno on failure. */
int agent_init(struct agent *a);
/* Accepts connections on it from now on. */
int agent_listen(struct agent *a, int listener);
/* The same for connections to ports of the guest (proxy.c). */
int agent_listen_proxy(struct agent *a, int listener);
/* Takes a connected stream socket over. NULL: no slot is free; the socket is closed. */
struct conn *agent_add_conn(struct agent *a, int fd);
/* accept(2) of the host alone: who connects is root here, and with a kernel that has vsock's loopback any process of
 * the guest could. (The tests' listeners are unix sockets.) */
int agent_accept(int listener);
struct sockaddr_vm;
bool agent_trusts(const struct sockaddr_vm *peer);
/* Serves until a POWER_OFF was answered (agent.stop). */
int agent_run(struct agent *a);

uint64_t agent_now_ns(void);
int agent_watch(struct agent *a, int op, int fd, uint32_t events, enum tag_kind kind,
    unsigned index, uint32_t generation);

struct buffer *buffer_get(struct agent *a, uint32_t room); /* at least; NULL: no memory */
void buffer_put(struct agent *a, struct buffer *b);        /* NULL is fine */
static inline uint32_t buffer_tail(const struct buffer *b)
{
    return b->cap - b->start - b->len;
}

/* ---- conn.c: frames in and out, requests -------------------------------------------------- */

void conn_event(struct agent *a, struct conn *c, uint32_t events);
void conn_flush(struct agent *a, struct conn *c);
/* When the timer looks at it (agent.c); 0: never. */
void conn_set_timer(struct agent *a, struct conn *c, uint64_t when);
/* The exec of this conn is through: what was sent is flushed, then the conn is closed. */
void conn_close_after_flush(struct agent *a, struct conn *c);
void conn_close(struct agent *a, struct conn *c);

/* Room for a frame in the output, or NULL; conn_commit counts what was written there. */
struct buffer *conn_room(struct agent *a, struct conn *c, uint32_t bytes);
void conn_commit(struct agent *a, struct conn *c, uint32_t bytes);
void conn_put(struct agent *a, struct conn *c, enum sm_wire_type type, const void *message);
/* Sends ERROR (message: the strings up to NULL, joined) and closes after that. */
void conn_error(struct agent *a, struct conn *c, enum sm_wire_error_kind kind, int errnum, ...)
    __attribute__((sentinel));

/* ---- exec.c ------------------------------------------------------------------------------- */

void exec_start(struct agent *a, struct conn *c, const struct sm_wire_exec *m);
void exec_attach(struct agent *a, struct conn *c, const struct sm_wire_attach *m);
/* A frame that came behind EXEC. False: it breaks the protocol. */
bool exec_frame(struct agent *a, struct exec *e, const struct sm_wire_frame *f);
void exec_event(struct agent *a, struct exec *e, enum tag_kind kind, uint32_t events);
/* The output of the conn is empty again. */
void exec_resume(struct agent *a, struct exec *e);
void exec_conn_lost(struct agent *a, struct exec *e);
/* Whether the commands that there are shall outlive the loss of their connections: in a snapshot of a running
 * VM all are lost, and nobody has given the commands up. */
void exec_outlive(struct agent *a, bool outlive);
/* The command's output and its end wait for an ATTACH from now on. */
void exec_keep(struct agent *a, uint32_t pid);
void exec_reap(struct agent *a);
void exec_timer(struct agent *a, struct exec *e, uint64_t now);

/* ---- spawn.c ------------------------------------------------------------------------------ */

struct user {
    uid_t uid;
    gid_t gid;
    const char *home; /* in storage, or a constant */
    size_t n_groups;
    gid_t groups[128];
    char storage[256];
};

struct spawn {
    char *const *argv;
    char *const *envp;
    const char *path; /* value of PATH in envp */
    const char *cwd;
    const struct user *user;
    int fds[3]; /* become 0, 1, 2; -1: /dev/null */
    bool tty;   /* fds[0] is one, and becomes the controlling terminal */
    /* What went wrong; kind 0: nothing. */
    enum sm_wire_error_kind kind;
    int errnum;
    const char *what;
};

/* The agent may open as many files as there can be; what it starts gets the limit that was before. */
void spawn_raise_files(void);

/* Starts it; returns the pid, or -1 and s->kind, errnum, what. */
pid_t spawn(struct spawn *s);

/* ---- user.c ------------------------------------------------------------------------------- */

/* Looks "name|uid[:group|gid]" up. 0, or an error kind with *what (and errno). */
int user_find(const struct agent *a, const char *spec, struct user *u, const char **what);

/* ---- file.c ------------------------------------------------------------------------------- */

void file_write_start(struct agent *a, struct conn *c, const struct sm_wire_write_file *m);
void file_write_data(struct agent *a, struct conn *c, const struct sm_wire_frame *f);
void file_read_start(struct agent *a, struct conn *c, const struct sm_wire_read_file *m);
void file_read_more(struct agent *a, struct conn *c);
/* The conn ended in the middle. */
void file_abandon(struct agent *a, struct conn *c);

/* ---- proxy.c: ports of the guest ---------------------------------------------------------- */

void proxy_accept(struct agent *a, int listener);
void proxy_event(struct agent *a, unsigned index, uint32_t generation, uint32_t events);

/* ---- probe.c: what listens, is it idle, is all frozen -------------------------------------- */

void probe_listeners(struct agent *a, struct conn *c);
void probe_wait_listen(struct agent *a, struct conn *c, const struct sm_wire_wait_listen *m);
void probe_wait_idle(struct agent *a, struct conn *c, const struct sm_wire_wait_idle *m);
void probe_freeze(struct agent *a, struct conn *c, const struct sm_wire_freeze *m);
void probe_timer(struct agent *a, struct conn *c, uint64_t now);
/* The conn ended in the middle: nobody waits for what is frozen, nor will let it go on. */
void probe_abandon(struct agent *a, struct conn *c);

/* A SOCKETS frame, made in place behind the output of a conn. */
struct probe {
    struct buffer *buffer;
    uint8_t *frame;
    uint32_t count, max;
    uint16_t want;       /* a TCP port to look for */
    bool any_tcp, found; /* there is one; it is there */
};

/* Looks at the kernel's sockets. False: it cannot be done, and ERROR was sent. Otherwise the frame is
 * then sent or dropped. */
bool probe_look(struct agent *a, struct conn *c, struct probe *p, bool tcp_only);
void probe_send(struct agent *a, struct conn *c, const struct probe *p);
void probe_drop(struct agent *a, struct conn *c, const struct probe *p);

/* ---- watch.c: telling the host what listens ------------------------------------------------ */

void watch_start(struct agent *a, struct conn *c);
void watch_timer(struct agent *a, struct conn *c, uint64_t now);
/* Something was started that may soon listen. */
void watch_soon(struct agent *a);

#endif
