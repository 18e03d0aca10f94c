/* sm_snapshot: the public face of snapshots, of a store and as files. */
#include <stdlib.h>
#include <string.h>

#include "api/internal.h"
#include "snapshot/cache.h"
#include "snapshot/describe.h"
#include "snapshot/reader.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "vm/note.h"
#include "vm/snapshots.h"

/* What the file itself says; one that cannot be read is listed as "damaged". */
static void report(struct sm_snapshot_cache *cache, const struct sm_snapshot_entry *e,
    sm_store_snapshot_fn *fn, void *arg)
{
    auto_free char *path = NULL;
    auto_fd fd = -1;
    auto_snapshot s = NULL;
    if (sm_snapshot_cache_path(cache, e->key, &path, NULL))
        return;
    bool readable =
        sm_snapshot_open(path, &fd, NULL) == 0 && sm_snapshot_load_meta(fd, path, &s, NULL) == 0;
    struct sm_note note;
    sm_note_read(&note, readable ? s->note : NULL);
    fn(arg, &(sm_store_snapshot){
                .key = e->key,
                .path = path,
                .digest = note.digest ? note.digest : "",
                .source = note.source ? note.source : "",
                .state = !readable    ? "damaged"
                         : note.state ? note.state
                                      : "",
                .memory_bytes = readable ? s->memory_bytes : 0,
                .vcpus = readable ? s->n_vcpus : 0,
                .disk_bytes = e->disk_bytes,
                .created = e->made.tv_sec,
                .used = e->used.tv_sec,
            });
    sm_note_clear(&note);
}

int sm_store_snapshots(sm_store *store, sm_store_snapshot_fn *fn, void *arg, sm_error *err)
{
    SM_CLEANUP(sm_snapshot_cache_close_cleanup) struct sm_snapshot_cache *cache = NULL;
    struct sm_snapshot_entry *entries;
    size_t n;
    int rc = sm_snapshots_open(store->images, &cache, err);
    if (!rc)
        rc = sm_snapshot_cache_list(cache, &entries, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++)
        report(cache, &entries[i], fn, arg);
    sm_snapshot_entries_free(entries, n);
    return 0;
}

/* The one key that begins with `prefix`. An exact match wins. */
static int complete_key(
    struct sm_snapshot_cache *cache, const char *prefix, char **key, sm_error *err)
{
    struct sm_snapshot_entry *entries;
    size_t n, matches = 0, found = 0;
    int rc = sm_snapshot_cache_list(cache, &entries, &n, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < n; i++) {
        if (strcmp(entries[i].key, prefix) == 0) {
            found = i;
            matches = 1;
            break;
        }
        if (*prefix && strncmp(entries[i].key, prefix, strlen(prefix)) == 0) {
            found = i;
            matches++;
        }
    }
    if (matches == 0)
        rc = sm_error_set(err, SM_ENOTFOUND, "the store has no snapshot '%.100s'", prefix);
    else if (matches > 1)
        rc = sm_error_set(err, SM_EINVAL, "%zu snapshots begin with '%.100s'", matches, prefix);
    else if (!(*key = strdup(entries[found].key)))
        rc = sm_error_set(err, SM_ENOMEM, "no memory for a key");
    sm_snapshot_entries_free(entries, n);
    return rc;
}

int sm_store_snapshot_remove(sm_store *store, const char *key, sm_error *err)
{
    SM_CLEANUP(sm_snapshot_cache_close_cleanup) struct sm_snapshot_cache *cache = NULL;
    auto_free char *full = NULL;
    int rc = sm_snapshots_open(store->images, &cache, err);
    if (!rc)
        rc = complete_key(cache, key, &full, err);
    return rc ? rc : sm_snapshot_cache_remove(cache, full, err);
}

int sm_store_prune(sm_store *store, uint64_t max_bytes, uint64_t max_age_s, size_t *removed,
    uint64_t *freed_bytes, sm_error *err)
{
    SM_CLEANUP(sm_snapshot_cache_close_cleanup) struct sm_snapshot_cache *cache = NULL;
    size_t count = 0;
    uint64_t freed = 0;
    int rc = sm_snapshots_open(store->images, &cache, err);
    if (!rc)
        rc = sm_snapshot_cache_prune(cache, max_bytes, max_age_s, &count, &freed, err);
    if (removed)
        *removed = count;
    if (freed_bytes)
        *freed_bytes = freed;
    return rc;
}

/* ---- snapshot files ------------------------------------------------------------------------ */

/* Opens and loads; on success *fd is the caller's. */
static int load(const char *path, int *fd, struct sm_snapshot **snapshot, sm_error *err)
{
    auto_fd file = -1;
    int rc = sm_snapshot_open(path, &file, err);
    if (!rc)
        rc = sm_snapshot_load_meta(file, path, snapshot, err);
    if (!rc)
        *fd = sm_steal_fd(&file);
    return rc;
}

int sm_snapshot_inspect(const char *path, char **json, sm_error *err)
{
    auto_fd fd = -1;
    auto_snapshot s = NULL;
    int rc = load(path, &fd, &s, err);
    return rc ? rc : sm_snapshot_describe(fd, path, s, json, err);
}

int sm_snapshot_verify(const char *path, sm_error *err)
{
    auto_fd fd = -1;
    auto_snapshot s = NULL;
    int rc = load(path, &fd, &s, err);
    return rc ? rc : sm_snapshot_verify_ram(fd, path, s, err);
}
