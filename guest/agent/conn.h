/*
 * A conn is a stream to the host: frames come in, frames go out.
 *
 * Users. Somebody always has the conn: he who takes requests, or one to whom a request has handed
 * it (a command, a file, a wait). A user is a table of four functions here, and a few bytes of his
 * own in the conn; conn.c asks nothing else of him and knows none by name.
 *
 * Input is parsed where it was received and a user's `frame` looks into it, so nobody closes a
 * conn: conn_end leaves it to the end of the turn. Frames wait in the buffer while the user takes
 * none, requests also while too much output waits. Conns live in a table; a free slot has no user.
 */
#ifndef SM_AGENT_CONN_H
#define SM_AGENT_CONN_H

#include "loop.h"

#define CONN_MAX       512
#define CONN_OWN_BYTES 32u

struct conn;

/* What is NULL does not concern this user. */
struct conn_user {
    /* False: it breaks the protocol. NULL: frames wait for the next user. */
    bool (*frame)(struct conn *c, const struct sm_wire_frame *f);
    /* The output is empty (again). */
    void (*writable)(struct conn *c);
    void (*timer)(struct conn *c, uint64_t now, uint64_t late_ns);
    /* Nothing can be sent any more, or shall be: an end to all that the user has in hand. */
    void (*lost)(struct conn *c);
};

struct conn {
    const struct conn_user *user; /* NULL: a free slot */
    struct source source;
    uint32_t generation;
    bool blocked; /* the socket takes no more at present */
    struct job flush;
    struct timer timer;
    struct buffer *in, *out; /* NULL while empty */
    _Alignas(8) unsigned char own[CONN_OWN_BYTES];
};

/* The user's own structure; he gets it as the last one left it. */
static inline void *conn_own(struct conn *c)
{
    return c->own;
}

/* Who takes requests. */
void conn_init(const struct conn_user *requests);
/* Accepts connections on it from now on. */
int conn_listen(int listener);
/* Takes a connected stream socket over. NULL: no slot is free; the socket is closed. */
struct conn *conn_add(int fd);
/* The same; the host mostly sends its request right behind the connection: it is read at once. */
void conn_serve(int fd);

/* Another user has it from now on; conn_leave: he who takes requests, unless the conn is ending.
 * `lost` is not called for who had it. */
void conn_take(struct conn *c, const struct conn_user *user);
void conn_leave(struct conn *c);
/* Calls the user's `lost`, whose own is gone then. What was written goes out and the conn is
 * closed; `then` is called before that, if all of it could be sent. */
void conn_end(struct conn *c);
void conn_end_then(struct conn *c, void (*then)(int fd));

/* The user's `timer` is called then; 0: never. */
void conn_set_timer(struct conn *c, uint64_t when);

/* Room for a frame in the output, or NULL; conn_commit counts what was written there. */
struct buffer *conn_room(struct conn *c, uint32_t bytes);
void conn_commit(struct conn *c, uint32_t bytes);
/* Ends the conn if there is no room for it. */
void conn_put(struct conn *c, enum sm_wire_type type, const void *message);
/* Sends ERROR (message: the strings up to NULL, joined) and ends the conn. */
void conn_error(struct conn *c, enum sm_wire_error_kind kind, int errnum, ...)
    __attribute__((sentinel));
/* OK; or, if errnum is not 0, ERROR that says what failed. */
void conn_answer(struct conn *c, int errnum, const char *what);

/* For the tests. */
unsigned conn_count(void);

#endif
