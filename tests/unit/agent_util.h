/*
 * An agent in a process of its own, without a VM: the core of guest/agent on unix sockets, with a
 * system that only remembers what it was told. Talk to it with the calls below; each fails the test
 * when the agent does what it must not, or nothing (patience.h).
 */
#ifndef SM_TESTS_AGENT_UTIL_H
#define SM_TESTS_AGENT_UTIL_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdbool.h>
#include <sys/types.h>

#include "wire/wire.h"

/* Shared with the agent's process. */
struct fake_system {
    uint64_t realtime_ns;
    uint32_t seed_len;
    char hostname[65], machine_id[33];
    uint32_t mtu;
    uint64_t kills; /* for want of memory */
    unsigned hosts; /* how often they were written */
    char resolver[SM_WIRE_MAX_RESOLV + 1];
    unsigned calls;
    unsigned freezes, thaws;
    bool nobody;                     /* there is no process to freeze */
    int frozen;                      /* what system_frozen says */
    unsigned looks, looks_to_freeze; /* of system_frozen; with so many all is frozen (0: never) */
    unsigned stall_ms;               /* so long the second of them takes */
    int allocs;                      /* so many succeed; negative: all */
    unsigned most_sent;              /* calls of send in one turn of the loop */
    int fail_clock, fail_entropy, fail_identity, fail_freeze, fail_network; /* errno to return */
};

struct agent_test {
    pid_t pid;
    char dir[64]; /* temporary; passwd and group are in it */
    char socket[80], proxy[80];
    struct fake_system *system;
};

struct peer {
    int fd;
    uint8_t buf[1 << 17];
    size_t have, used;
};

int agent_setup(void **state);
int agent_teardown(void **state);

/* The other way: the agent is in the test's own process and does what there is to do when it is
 * told to (peer_next does not). Nothing may be left of it when the test ends. *state is the fake
 * system. */
int agent_here(void **state);
int agent_here_ends(void **state);
void agent_turns(void);
struct peer *peer_here(void);
/* One that the agent has not looked at yet: that comes with conn_serve(*accepted). */
struct peer *peer_before(int *accepted);

/* A connection to the port proxy; receiving on it fails when nothing comes. */
int proxy_open(struct agent_test *t);

struct peer *peer_open(struct agent_test *t);
void peer_close(struct peer *p);
void peer_send(struct peer *p, const void *data, size_t len);
/* The next frame; false: the agent has closed the connection. */
bool peer_next(struct peer *p, struct sm_wire_frame *f);
/* The next frame must be of this type; decoded if m is not NULL. */
void peer_expect(struct peer *p, enum sm_wire_type type, void *m);
/* ERROR of this kind, and then the end. */
void peer_expect_error(struct peer *p, enum sm_wire_error_kind kind);
void peer_expect_end(struct peer *p);
void peer_put(struct peer *p, enum sm_wire_type type, const void *m);

struct run {
    struct sm_wire_exec exec; /* in; flags 0 become stdin, stdout and stderr */
    const void *input;        /* in: all of stdin */
    size_t input_len;
    const char *sent_all; /* in: a file that is made when all of stdin was sent; NULL: none */
    char *out, *err;      /* NUL-terminated; the caller frees them with run_free */
    size_t out_len, err_len;
    struct sm_wire_exit exit;
};

/* EXEC on a new connection, all of its streams, until EXIT. */
void run(struct agent_test *t, struct run *r);
/* The same from STARTED on (which is expected here). */
void run_streams(struct peer *p, struct run *r);
void run_free(struct run *r);

#define ARGV(...)                                                                                  \
    {                                                                                              \
        .strv = (const char *const[])                                                              \
        {                                                                                          \
            __VA_ARGS__, NULL                                                                      \
        }                                                                                          \
    }
#define SHELL(script) ARGV("sh", "-c", script)
#define EXEC_STREAMS  (SM_WIRE_EXEC_STDIN | SM_WIRE_EXEC_STDOUT | SM_WIRE_EXEC_STDERR)

#endif
