/*
 * Snapshot files, read side. A file is opened, its metadata loaded and checked, and its RAM either
 * mapped copy-on-write (restore) or read.
 *
 * About SIGBUS: a page of a mapped file that is cut away under the mapping kills who touches it.
 * Lengths are checked when the file is loaded and again when it is mapped; no writer of ours ever
 * shortens a file under its real name (new contents are a new inode, renamed over the old one, and
 * removal leaves the inode of running VMs alone). What remains is somebody else truncating the file
 * in place, with the owner's rights: snapshots belong into a directory that only their owner can
 * write to, with mode 0600.
 */
#ifndef SM_SNAPSHOT_READER_H
#define SM_SNAPSHOT_READER_H

#include "snapshot/snapshot.h"

/* Opens a regular file for reading. */
int sm_snapshot_open(const char *path, int *fd, sm_error *err);

/* A file under a running VM must not change, so one that somebody else may write (another user's
 * but root's, or by its mode) is replaced by a copy without a name in the directory `dir`: a
 * reflink where there are such, else of its data. Not more than its first `bytes` are copied. What
 * was read of it before is to be read again from a copy (*copied). */
int sm_snapshot_own(int *fd, const char *dir, uint64_t bytes, bool *copied, sm_error *err);

/* Everything but RAM. `name` is for messages. */
int sm_snapshot_load_meta(int fd, const char *name, struct sm_snapshot **snapshot, sm_error *err);

/* Maps the RAM of the file copy-on-write: private, readable and writable, nothing read ahead. `at`
 * NULL lets the kernel choose; otherwise it is a reserved, page-aligned range of memory_bytes that
 * is mapped over. *ram is to be munmap'ed by the caller. The mapping outlives the descriptor. */
int sm_snapshot_map_ram(
    int fd, const struct sm_snapshot *snapshot, void *at, void **ram, sm_error *err);

/* Metadata and RAM; *ram is an anonymous mapping of memory_bytes, the caller's to munmap. */
int sm_snapshot_load(
    int fd, const char *name, struct sm_snapshot **snapshot, void **ram, sm_error *err);

/* Compares the RAM with the checksums in the metadata. SM_EUNSUPPORTED: the file has none. */
int sm_snapshot_verify_ram(
    int fd, const char *name, const struct sm_snapshot *snapshot, sm_error *err);

/* CRC32C of chunk i of the RAM as the file has it. `buf` is SM_SNAPSHOT_CHUNK bytes of scratch. */
int sm_snapshot_chunk_sum(int fd, uint64_t ram_offset, uint64_t memory_bytes, uint64_t i, void *buf,
    uint32_t *sum, sm_error *err);

/* Next range of data at or after *at and before `end`, absolute file offsets, page-aligned outwards
 * relative to `origin`. False: none. A filesystem that does not know holes gives one range. */
bool sm_snapshot_next_data(int fd, uint64_t origin, uint64_t end, uint64_t *at, uint64_t *data_end);

/* pread that goes on after short reads; a file that ends is -SM_ECORRUPT. */
int sm_snapshot_read_at(int fd, void *buf, size_t len, uint64_t offset, sm_error *err);

#endif
