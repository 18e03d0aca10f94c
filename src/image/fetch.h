/*
 * How images are got: what a user may say about platforms, registries and credentials.
 *
 * One structure for all who pass it on, held by value: from the library's callers over the client
 * of the builder to the session with a registry. Between the library and supermachine-image it
 * travels as one line of JSON,
 *
 *     {"tls-ca":"/etc/ssl/ours.pem","insecure-registry":true}
 *
 * which leaves out what is not set; who runs the program by hand says the same by options (--tls-ca
 * FILE --insecure-registry). Both are written and read by the one table below, so a new field is a
 * row of it and no more. It is read strictly (builder/fetch_read.h): a name that is not known comes
 * from a library of another version.
 */
#ifndef SM_IMAGE_FETCH_H
#define SM_IMAGE_FETCH_H

#include <supermachine.h>

struct sm_fetch {
    const char *platform; /* "os/arch[/variant]"; NULL: the host's */
    const char *tls_ca;   /* PEM file with further roots for registries; NULL: the system's only */
    const char *authfile; /* credentials; NULL: where container tools look */
    bool insecure;        /* plain HTTP and unverified TLS will do */
    uint64_t stall_s;     /* how long a transfer may stand still; 0: the default */
    uint64_t max_bytes;   /* that an image's layers may unpack to; 0: the default */
};

enum sm_fetch_kind {
    SM_FETCH_TEXT,   /* const char *, UTF-8 */
    SM_FETCH_FLAG,   /* bool */
    SM_FETCH_NUMBER, /* uint64_t */
};

struct sm_fetch_field {
    const char *name; /* key of the JSON, and the program's option */
    enum sm_fetch_kind kind;
    size_t offset;
    uint64_t most; /* of a number */
};

#define SM_FETCH_FIELDS 6
extern const struct sm_fetch_field sm_fetch_fields[SM_FETCH_FIELDS];

/* The line, without its newline; malloc'ed. SM_EINVAL: a text is not UTF-8. */
int sm_fetch_write(const struct sm_fetch *fetch, char **line, sm_error *err);

#endif
