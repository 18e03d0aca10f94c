/*
 * Processes that parse for supermachine-image, confined before they see a byte of what they parse.
 *
 * What an image is made of was written by strangers: archives, compressed layers, the tars in them.
 * The reader gets descriptors of those to read, and gives out bytes; the writer gets bytes, and a
 * descriptor of the root filesystem that it makes of them. Neither has a path, a socket to
 * anywhere, another image's file, or what the program knows of registries: they are forked before
 * that is read. Between them stands the program itself, which knows the sums that layers must have
 * and looks at no byte but to sum it. So a layer that takes over the reader can make up contents,
 * but none that has the sum; and one that takes over the writer spoils the image that it belongs
 * to, no other.
 *
 * Each is one end of a socket. A message is a head (its type, its size) and its bytes, in the
 * program's own layout, since both are one program. What a parser says is a stranger's word: who
 * receives it bounds it here, and checks what it means where it uses it.
 *
 * One thread at a time. A parser dies with the program. One that failed is ended and another is
 * made where it is needed again (an archive of many images).
 */
#ifndef SM_BUILDER_PARSER_H
#define SM_BUILDER_PARSER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <supermachine.h>

#define SM_PARSER_MOST 262144u /* bytes of a message */
#define SM_PARSER_FDS  2       /* descriptors that come with one */

/* How long the program waits for the rest of a message that has begun, for room for what it sends,
 * and for the last word of a parser that takes nothing more. An honest one takes milliseconds, on a
 * host that does nothing else; this is for what is taken over, or hangs. */
#define SM_PARSER_PATIENCE_MS (5 * 60 * 1000)

enum sm_parser_type {
    SM_PARSER_INFLATE = 1, /* to the reader: struct sm_parser_inflate, the blob's descriptor */
    SM_PARSER_AVAILABLE,   /* struct sm_parser_available */
    SM_PARSER_INDEX,       /* the archive's descriptor; if it is packed, one to unpack into */
    SM_PARSER_READ,        /* from the reader: uint64_t, bytes of the blob that were read */
    SM_PARSER_WAIT,        /* uint64_t, bytes that it has: it waits for more */
    SM_PARSER_MEMBER,      /* struct sm_parser_member and its two texts */
    SM_PARSER_BEGIN,       /* to the writer: struct sm_rootfs_limits, the image's descriptor */
    SM_PARSER_LAYER,       /* a layer begins */
    SM_PARSER_LAYER_END,
    SM_PARSER_FINISH, /* 32 bytes, the id */
    SM_PARSER_DATA,   /* both: bytes of a tar */
    SM_PARSER_END,    /* from both: struct sm_parser_end */
};

struct sm_parser_end {
    int32_t rc;
    sm_error err;
};

struct sm_parser_available {
    uint64_t bytes;
    struct sm_parser_end end;
};

struct sm_parser_member {
    uint64_t offset, size;
    uint32_t name, link; /* lengths; link 0: none */
};

struct sm_parser_message {
    uint32_t type, size;
    int fds[SM_PARSER_FDS]; /* the receiver's; -1: none */
    /* Aligned, with a byte of zero behind it. */
    uint64_t data[SM_PARSER_MOST / 8 + 1];
};

/* Sends all of it. -1, with errno: the other side is gone, or (ETIMEDOUT) takes nothing. */
int sm_parser_send(
    int socket, uint32_t type, const void *data, size_t size, const int *fds, unsigned n_fds);
/* Waits for the next one. 0: the other side is gone; -1, with errno: it cannot be read, breaks the
 * rules (EPROTO), or is not whole at the deadline (ETIMEDOUT; SM_NO_DEADLINE: waits for it). */
int sm_parser_receive(int socket, int64_t deadline, struct sm_parser_message *message);
/* Its rc and error. */
int sm_parser_send_end(int socket, int rc, const sm_error *err);
/* Another process's, to be believed as far as that goes: a code there is, text that ends. */
int sm_parser_take_end(const struct sm_parser_end *end, sm_error *err);

/* What a parser does with its end of the socket, until that is closed. */
typedef void sm_parser_main(int socket);

struct sm_parser {
    const char *who; /* in sentences: "the process that reads archives" */
    sm_parser_main *main;
    int patience_ms; /* 0: SM_PARSER_PATIENCE_MS */
    pid_t pid;       /* 0: none */
    int socket;
    int told; /* where a refused system call is told */
};

/* Starts it if it is not there. `file_limit`: bytes of a file that it may write. */
int sm_parser_start(struct sm_parser *parser, uint64_t file_limit, sm_error *err);
/* Ends it; when this returns it is gone. Harmless when there is none. */
void sm_parser_stop(struct sm_parser *parser);
/* Sends it a message; a failure says what became of a parser that does not take it: what it said at
 * last (which goes to `message`), or how it was ended. It is stopped then. */
int sm_parser_tell(struct sm_parser *parser, uint32_t type, const void *data, size_t size,
    const int *fds, unsigned n_fds, struct sm_parser_message *message, sm_error *err);
/* The next message, waiting for timeout_ms (negative: for ever) until one begins: 1, 0 when none
 * came, or a failure, which says why the parser is gone; it is stopped then. */
int sm_parser_next(
    struct sm_parser *parser, int timeout_ms, struct sm_parser_message *message, sm_error *err);

#endif
