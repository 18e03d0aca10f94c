/*
 * The snapshots of a store: DIR/KEY.snap, one file each, found by key. What a key says is the
 * caller's business (image digest, kernel, agent, VMM build, memory, vCPUs, CPU features): equal
 * keys must mean interchangeable snapshots.
 *
 * Several processes share a directory. Who wants to make a snapshot takes the key's lock, looks
 * again, and makes it if it still is not there; a second one waits meanwhile and then finds it.
 * Locks are flock(2) on DIR/KEY.lock and die with their owner. Files appear by rename and vanish by
 * unlink: a VM that maps one keeps it whatever happens here.
 *
 *     rc = sm_snapshot_cache_find(cache, key, &path, err);
 *     if (rc == -SM_ENOTFOUND && !(rc = sm_snapshot_cache_lock(cache, key, timeout, &lock, err))) {
 *         rc = sm_snapshot_cache_find(cache, key, &path, err);
 *         if (rc == -SM_ENOTFOUND)
 *             rc = bake to sm_snapshot_cache_path(cache, key);
 *         sm_snapshot_cache_unlock(lock);
 *     }
 */
#ifndef SM_SNAPSHOT_CACHE_H
#define SM_SNAPSHOT_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#include <supermachine.h>

#include "util/cleanup.h"

struct sm_snapshot_cache;
struct sm_snapshot_lock;

/* Opens the directory and makes it (mode 0700) if it is not there. */
int sm_snapshot_cache_open(const char *dir, struct sm_snapshot_cache **cache, sm_error *err);
void sm_snapshot_cache_close(struct sm_snapshot_cache *cache);

/* Keys: 1 to 128 of [A-Za-z0-9._-], not starting with a dot; SM_EINVAL otherwise. */

/* The path of a snapshot that exists; marks it as used now. SM_ENOTFOUND. free() it. */
int sm_snapshot_cache_find(
    struct sm_snapshot_cache *cache, const char *key, char **path, sm_error *err);

/* Where the snapshot of this key belongs, there or not: what a writer is given. free() it. */
int sm_snapshot_cache_path(
    struct sm_snapshot_cache *cache, const char *key, char **path, sm_error *err);

/* Waits until nobody else works on the key: timeout_ms at most, SM_EBUSY when that is over;
 * negative: as long as who works on it lives. */
int sm_snapshot_cache_lock(struct sm_snapshot_cache *cache, const char *key, int timeout_ms,
    struct sm_snapshot_lock **lock, sm_error *err);
void sm_snapshot_cache_unlock(struct sm_snapshot_lock *lock);

struct sm_snapshot_entry {
    char *key;
    uint64_t bytes;      /* length of the file */
    uint64_t disk_bytes; /* what it takes on disk (clones share, so the sum may be too high) */
    struct timespec made, used;
};

/* All snapshots, most recently used first. */
int sm_snapshot_cache_list(
    struct sm_snapshot_cache *cache, struct sm_snapshot_entry **entries, size_t *n, sm_error *err);
void sm_snapshot_entries_free(struct sm_snapshot_entry *entries, size_t n);

/* SM_ENOTFOUND if there is none. Running VMs go on. */
int sm_snapshot_cache_remove(struct sm_snapshot_cache *cache, const char *key, sm_error *err);

/* Removes what was not used for max_age_s seconds, then the least recently used until at most
 * max_bytes are left on disk, and what crashed writers left behind. UINT64_MAX means no such bound.
 * Keys that somebody works on are left alone. *removed and *freed_bytes may be NULL; they are told
 * as well when something could not be removed. */
int sm_snapshot_cache_prune(struct sm_snapshot_cache *cache, uint64_t max_bytes, uint64_t max_age_s,
    size_t *removed, uint64_t *freed_bytes, sm_error *err);

SM_DEFINE_CLEANUP(struct sm_snapshot_cache *, sm_snapshot_cache_close)
SM_DEFINE_CLEANUP(struct sm_snapshot_lock *, sm_snapshot_cache_unlock)

#endif
