/* The two parsers of supermachine-image, and what is asked of them: see parser.h. */
#ifndef SM_BUILDER_PARSERS_H
#define SM_BUILDER_PARSERS_H

#include "builder/inflate.h"
#include "builder/parser.h"
#include "builder/tar_index.h"
#include "rootfs/rootfs.h"

struct sm_parsers {
    struct sm_parser reader, writer;
    uint64_t file_limit;
    bool program_is_confined;         /* confine.h */
    struct sm_parser_message message; /* the last one that came */
};

/* Starts both; before anything is known that they should not know. `max_bytes`: of an image, 0 for
 * the default. */
int sm_parsers_open(uint64_t max_bytes, struct sm_parsers **parsers, sm_error *err);
void sm_parsers_close(struct sm_parsers *parsers);

/* What sm_inflate does, by the reader. `tick` is called every tenth of a second at least while
 * nothing comes; NULL: never. */
typedef void sm_parsers_tick_fn(void *arg);
int sm_parsers_inflate(struct sm_parsers *parsers, struct sm_blob *blob,
    const struct sm_descriptor *d, const struct sm_inflate_ops *ops, sm_parsers_tick_fn *tick,
    void *arg, sm_error *err);

/* The members of a tar, by the reader. Packed by a compressor that sm_compression_of knows, it is
 * unpacked into `tmp` first (else -1). Names are clean; whether they are whole in the file is for
 * the caller to see. */
int sm_parsers_index(
    struct sm_parsers *parsers, int fd, int tmp, struct sm_tar_members *members, sm_error *err);

/* The writer: a root filesystem into fd. Then layers, each begun, given and ended; the end says
 * what became of it. When it is finished, or has failed, the writer is gone, and its descriptor of
 * the file with it. */
int sm_parsers_begin(
    struct sm_parsers *parsers, int fd, const struct sm_rootfs_limits *limits, sm_error *err);
int sm_parsers_layer(struct sm_parsers *parsers, sm_error *err);
int sm_parsers_give(struct sm_parsers *parsers, const void *data, size_t size, sm_error *err);
int sm_parsers_layer_end(
    struct sm_parsers *parsers, sm_parsers_tick_fn *tick, void *arg, sm_error *err);
int sm_parsers_finish(struct sm_parsers *parsers, const unsigned char id[32], sm_error *err);

#endif
