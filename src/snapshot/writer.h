/*
 * The writers. All make files that one loader reads; all write PATH.partial, bring it to disk and
 * rename it over PATH, so that PATH is the old file, the new one, or not there, and never a piece.
 * The length of the file is set first, its metadata is written last.
 *
 *     plain      from a copy of RAM that the caller made
 *     streaming  straight out of guest RAM; the guest stays paused until it is written
 *     compact    while paused, the non-zero pages are copied; they are written while the guest runs
 * on diff       the base file is cloned (FICLONE) and the pages of a compact copy that differ from
 * it are put over it
 *
 * plain and streaming write whole 64 KiB chunks, compact and diff write pages; chunks that are all
 * zero are holes with all of them. The work is split into slabs of RAM that several threads do;
 * what is in the file does not depend on how many.
 *
 * What a page is worth looking at comes from page_map.h. With RAM that is mapped from a snapshot
 * file (the VM was restored), a compact copy can be a delta: only the pages that changed since,
 * good for a diff against that very file.
 */
#ifndef SM_SNAPSHOT_WRITER_H
#define SM_SNAPSHOT_WRITER_H

#include "snapshot/io.h"
#include "snapshot/page_map.h"
#include "snapshot/snapshot.h"

struct sm_snapshot_write_options {
    unsigned
        threads;   /* 0: $SUPERMACHINE_SNAPSHOT_WRITE_THREADS, or else 4; 1: serial; at most 64 */
    bool ram_sums; /* CRC32C of every chunk into the metadata, for `snapshot verify` */
    bool no_sync;  /* do not wait for the disk */
    const struct sm_snapshot_io *io; /* NULL: the real system calls */
    /* An empty file that the caller has opened to read and write: it is written instead of
     * PATH.partial and gets no name, `path` is for messages; NULL: none. For a process that cannot
     * open files; whole when the writer returns. */
    const int *fd;
};

enum sm_snapshot_method {
    SM_SNAPSHOT_WRITTEN, /* all data written */
    SM_SNAPSHOT_CLONED,  /* diff over a reflink of the base */
    SM_SNAPSHOT_COPIED,  /* diff over a copy of the base: the filesystem cannot clone */
};

struct sm_snapshot_write_stats {
    uint64_t ram_bytes;
    uint64_t ram_data_bytes; /* RAM that is data in the file; a diff's includes what it shares */
    uint64_t ram_zero_bytes; /* the rest: holes */
    uint64_t written_bytes;  /* RAM that this writer wrote */
    uint64_t punched_bytes;  /* diff: became holes (or zeros, where holes cannot be punched) */
    enum sm_snapshot_method method;
};

/* In all of these `snapshot` tells everything but ram_offset and ram_sums, which the writer makes;
 * options NULL means the defaults, stats may be NULL. */

int sm_snapshot_save_plain(const char *path, const struct sm_snapshot *snapshot, const void *ram,
    const struct sm_snapshot_write_options *options, struct sm_snapshot_write_stats *stats,
    sm_error *err);

/* `pages` NULL: the kernel is asked. */
int sm_snapshot_save_streaming(const char *path, const struct sm_snapshot *snapshot,
    const struct sm_ram *ram, const struct sm_page_set *pages,
    const struct sm_snapshot_write_options *options, struct sm_snapshot_write_stats *stats,
    sm_error *err);

/* ---- compact --------------------------------------------------------------------------------- */

/* The non-zero pages of a RAM, sorted. Made by one thread at a time; read by any number. */
struct sm_compact;

int sm_compact_new(uint64_t ram_bytes, struct sm_compact **compact, sm_error *err);
void sm_compact_free(struct sm_compact *compact);
SM_DEFINE_CLEANUP(struct sm_compact *, sm_compact_free)

/* Optional, while the guest still runs: takes the memory that the copy will likely need, so that
 * the pause does not pay for it. `delta` as in capture. */
int sm_compact_prepare(
    struct sm_compact *compact, const struct sm_ram *ram, bool delta, sm_error *err);

/* Guest paused: copies. delta: only pages that changed against the file that RAM is mapped from;
 * RAM of another backing is -SM_EINVAL then. */
int sm_compact_capture(struct sm_compact *compact, const struct sm_ram *ram, bool delta,
    const struct sm_snapshot_write_options *options, sm_error *err);

/* The compact form of a file on disk. */
int sm_compact_load(
    int fd, const struct sm_snapshot *snapshot, struct sm_compact **compact, sm_error *err);

uint64_t sm_compact_pages(const struct sm_compact *compact); /* copied */
/* Pages that the capture had to look at. */
uint64_t sm_compact_looked_at(const struct sm_compact *compact);
/* The copy of page `page`, or NULL: it is zero (or, in a delta, may be unchanged). */
const void *sm_compact_page(const struct sm_compact *compact, uint64_t page);

/* A delta cannot be saved without its base: -SM_EINVAL. */
int sm_compact_save(const char *path, const struct sm_snapshot *snapshot,
    const struct sm_compact *compact, const struct sm_snapshot_write_options *options,
    struct sm_snapshot_write_stats *stats, sm_error *err);

/* ---- diff ------------------------------------------------------------------------------------ */

/* Makes PATH out of the file base_fd and a compact copy, full or delta (a delta must be one against
 * this very file). Refused: another RAM size (SM_EINVAL), metadata that does not fit before the
 * base's RAM (SM_EUNSUPPORTED; save it compactly instead). Where the filesystem cannot clone, a
 * full copy is saved compactly, and for a delta the base is copied. base_fd is only read. */
int sm_snapshot_save_diff(const char *path, const struct sm_snapshot *snapshot,
    const struct sm_compact *compact, int base_fd, const struct sm_snapshot_write_options *options,
    struct sm_snapshot_write_stats *stats, sm_error *err);

#endif
