/* What the writers share among themselves. */
#ifndef SM_SNAPSHOT_WRITER_INTERNAL_H
#define SM_SNAPSHOT_WRITER_INTERNAL_H

#include <stdatomic.h>

#include "snapshot/writer.h"

/* The copied pages of one slab: page index[i] is at data + i * SM_SNAPSHOT_PAGE. */
struct sm_compact_slab {
    uint64_t first, end; /* pages */
    uint32_t *index;
    uint8_t *data;
    uint64_t n;
};

#define SM_COMPACT_MAX_SLABS 64

struct sm_compact {
    uint64_t ram_bytes;
    uint32_t *index; /* one entry of room per page, never touched where there is none */
    uint8_t *data;   /* likewise: address space as large as RAM */
    struct sm_compact_slab slabs[SM_COMPACT_MAX_SLABS];
    unsigned n_slabs;
    uint64_t *changed; /* delta: the pages that were looked at; NULL: all */
    uint64_t looked_at;
};

/* Defaults filled in. */
int sm_snapshot_write_options_get(const struct sm_snapshot_write_options *options,
    struct sm_snapshot_write_options *full, sm_error *err);

/* As many threads as that many pages are worth. */
unsigned sm_snapshot_threads_for(unsigned threads, uint64_t pages);

/* A file under way. */
struct sm_snapshot_out {
    struct sm_partial file; /* where options.fd is given: that one, and its name for messages */
    struct sm_snapshot_write_options options;
    const struct sm_snapshot *snapshot;
    uint64_t ram_offset;
    atomic_ullong written, punched;
};

/* Opens PATH.partial. ram_offset 0: the smallest. */
int sm_snapshot_out_open(struct sm_snapshot_out *out, const char *path,
    const struct sm_snapshot *snapshot, uint64_t ram_offset,
    const struct sm_snapshot_write_options *options, sm_error *err);
/* Sets the file's length. */
int sm_snapshot_out_size(struct sm_snapshot_out *out, sm_error *err);
/* RAM at [at, at + len) is this. Threads: any, on ranges of their own. */
int sm_snapshot_out_ram(
    struct sm_snapshot_out *out, uint64_t at, const void *data, size_t len, sm_error *err);
/* Checksums where asked for, metadata, disk, rename. */
int sm_snapshot_out_commit(struct sm_snapshot_out *out, sm_error *err);
void sm_snapshot_out_close(struct sm_snapshot_out *out);

/* The 4 KiB at p are all zero. */
bool sm_snapshot_page_is_zero(const void *p);

#endif
