/* The snapshots of a store. See cache.h. */
#include "snapshot/cache.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/error.h"
#include "util/file.h"
#include "util/lock.h"

#define SUFFIX         ".snap"
#define LOCK_SUFFIX    ".lock"
#define PARTIAL_SUFFIX ".snap.partial"
#define HINT_SUFFIX    ".snap.hot" /* vm/hot.h; it goes with its snapshot */
#define HINT_PARTIAL   ".snap.hot.partial"
#define MAX_KEY        128
#define LOCK_POLL_MS   20

struct sm_snapshot_cache {
    char *dir;
    int fd;
};

/* KEY and suffix; the buffer has room for any valid key. */
struct name {
    char text[MAX_KEY + sizeof(HINT_PARTIAL)];
};

struct sm_snapshot_lock {
    struct sm_snapshot_cache *cache;
    struct name name;
    int fd;
};

int sm_snapshot_cache_open(const char *dir, struct sm_snapshot_cache **out, sm_error *err)
{
    SM_CLEANUP(sm_snapshot_cache_close_cleanup)
    struct sm_snapshot_cache *cache = calloc(1, sizeof(*cache));
    if (!cache)
        return sm_error_set(err, SM_ENOMEM, "no memory to open the snapshot directory");
    cache->fd = -1;
    cache->dir = strdup(dir);
    if (!cache->dir)
        return sm_error_set(err, SM_ENOMEM, "no memory to open the snapshot directory");
    int rc = sm_open_private_dir(dir, "snapshot directory", &cache->fd, err);
    if (rc)
        return rc;
    *out = sm_steal_ptr(&cache);
    return 0;
}

void sm_snapshot_cache_close(struct sm_snapshot_cache *cache)
{
    if (!cache)
        return;
    sm_close(cache->fd);
    free(cache->dir);
    free(cache);
}

static bool key_is_valid(const char *key, size_t len)
{
    static const char good[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    return len >= 1 && len <= MAX_KEY && key[0] != '.' && strspn(key, good) >= len;
}

static int make_name(const char *key, const char *suffix, struct name *name, sm_error *err)
{
    if (!key_is_valid(key, strlen(key)))
        return sm_error_set(err, SM_EINVAL, "\"%.140s\" is no snapshot key", key);
    snprintf(name->text, sizeof(name->text), "%s%s", key, suffix);
    return 0;
}

int sm_snapshot_cache_path(
    struct sm_snapshot_cache *cache, const char *key, char **path, sm_error *err)
{
    struct name name;
    int rc = make_name(key, SUFFIX, &name, err);
    if (rc)
        return rc;
    char *p;
    if (asprintf(&p, "%s/%s", cache->dir, name.text) < 0)
        return sm_error_set(err, SM_ENOMEM, "no memory for a path");
    *path = p;
    return 0;
}

int sm_snapshot_cache_find(
    struct sm_snapshot_cache *cache, const char *key, char **path, sm_error *err)
{
    struct name name;
    int rc = make_name(key, SUFFIX, &name, err);
    if (rc)
        return rc;
    /* "Used" is the access time, set by hand: mounts with relatime or noatime do not. */
    const struct timespec now[2] = {{.tv_nsec = UTIME_NOW}, {.tv_nsec = UTIME_OMIT}};
    if (utimensat(cache->fd, name.text, now, AT_SYMLINK_NOFOLLOW) && errno != EROFS &&
        errno != EPERM && errno != EACCES) {
        if (errno == ENOENT)
            return sm_error_set(err, SM_ENOTFOUND, "there is no snapshot %s", key);
        return sm_error_errno(err, errno, "cannot find the snapshot %s", key);
    }
    if (faccessat(cache->fd, name.text, R_OK, 0))
        return sm_error_errno(err, errno, "cannot read the snapshot %s", key);
    return sm_snapshot_cache_path(cache, key, path, err);
}

/* ---- locks --------------------------------------------------------------------------------- */

/* As sm_lock_try. The lock file is only removed by who holds it: who has waited
 * checks that the file it locked is still the one of that name. */
static int try_lock(
    struct sm_snapshot_cache *cache, const struct name *name, int *fd, sm_error *err)
{
    auto_fd f = openat(cache->fd, name->text, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (f < 0)
        return sm_error_errno(err, errno, "cannot make %s/%s", cache->dir, name->text);
    int rc = sm_lock_try(f, LOCK_EX);
    if (rc < 0)
        return sm_error_errno(err, errno, "cannot lock %s/%s", cache->dir, name->text);
    if (rc)
        return rc;
    struct stat mine, there;
    if (fstat(f, &mine) || fstatat(cache->fd, name->text, &there, AT_SYMLINK_NOFOLLOW) ||
        mine.st_ino != there.st_ino)
        return SM_LOCK_TAKEN; /* pruned meanwhile: again */
    *fd = sm_steal_fd(&f);
    return 0;
}

int sm_snapshot_cache_lock(struct sm_snapshot_cache *cache, const char *key, int timeout_ms,
    struct sm_snapshot_lock **out, sm_error *err)
{
    auto_free struct sm_snapshot_lock *lock = calloc(1, sizeof(*lock));
    if (!lock)
        return sm_error_set(err, SM_ENOMEM, "no memory for a lock");
    lock->cache = cache;
    int rc = make_name(key, LOCK_SUFFIX, &lock->name, err);
    if (rc)
        return rc;
    int64_t deadline = sm_deadline(timeout_ms);
    while ((rc = try_lock(cache, &lock->name, &lock->fd, err)) == SM_LOCK_TAKEN) {
        if (!sm_lock_again(deadline, LOCK_POLL_MS))
            return sm_error_set(
                err, SM_EBUSY, "somebody else has been making the snapshot %s for too long", key);
    }
    if (rc)
        return rc;
    *out = sm_steal_ptr(&lock);
    return 0;
}

void sm_snapshot_cache_unlock(struct sm_snapshot_lock *lock)
{
    if (!lock)
        return;
    unlinkat(lock->cache->fd, lock->name.text, 0);
    sm_close(lock->fd);
    free(lock);
}

/* ---- list and remove ----------------------------------------------------------------------- */

static bool ends_with(const char *text, const char *end, size_t *stem)
{
    size_t n = strlen(text), m = strlen(end);
    *stem = n - m;
    return n > m && strcmp(text + n - m, end) == 0;
}

/* A second descriptor: reading a directory moves the position of the first. */
static int read_dir(struct sm_snapshot_cache *cache, DIR **d, sm_error *err)
{
    *d = sm_open_dir(cache->fd, ".", 0);
    return *d ? 0 : sm_error_errno(err, errno, "cannot list the snapshots in %s", cache->dir);
}

static int by_use(const void *a, const void *b)
{
    const struct sm_snapshot_entry *x = a, *y = b;
    if (x->used.tv_sec != y->used.tv_sec)
        return x->used.tv_sec < y->used.tv_sec ? 1 : -1;
    if (x->used.tv_nsec != y->used.tv_nsec)
        return x->used.tv_nsec < y->used.tv_nsec ? 1 : -1;
    return strcmp(x->key, y->key);
}

int sm_snapshot_cache_list(struct sm_snapshot_cache *cache, struct sm_snapshot_entry **entries,
    size_t *n_out, sm_error *err)
{
    auto_dir d = NULL;
    int rc = read_dir(cache, &d, err);
    if (rc)
        return rc;
    struct sm_snapshot_entry *list = NULL;
    size_t n = 0, room = 0;
    for (struct dirent *e; (e = readdir(d));) {
        size_t stem;
        struct stat st;
        if (!ends_with(e->d_name, SUFFIX, &stem) || !key_is_valid(e->d_name, stem) ||
            fstatat(cache->fd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) || !S_ISREG(st.st_mode))
            continue;
        if (n == room) {
            struct sm_snapshot_entry *grown =
                reallocarray(list, room = room * 2 + 16, sizeof(*list));
            if (!grown)
                goto no_memory;
            list = grown;
        }
        char *key = strndup(e->d_name, stem);
        if (!key)
            goto no_memory;
        list[n++] = (struct sm_snapshot_entry){
            .key = key,
            .bytes = (uint64_t)st.st_size,
            .disk_bytes = (uint64_t)st.st_blocks * 512,
            .made = st.st_mtim,
            .used = st.st_atim,
        };
    }
    if (n)
        qsort(list, n, sizeof(*list), by_use);
    *entries = list;
    *n_out = n;
    return 0;

no_memory:
    sm_snapshot_entries_free(list, n);
    return sm_error_set(err, SM_ENOMEM, "no memory to list the snapshots");
}

void sm_snapshot_entries_free(struct sm_snapshot_entry *entries, size_t n)
{
    for (size_t i = 0; i < n; i++)
        free(entries[i].key);
    free(entries);
}

static void remove_hint(const struct sm_snapshot_cache *cache, const char *key)
{
    struct name name;
    if (!make_name(key, HINT_SUFFIX, &name, NULL))
        unlinkat(cache->fd, name.text, 0);
}

int sm_snapshot_cache_remove(struct sm_snapshot_cache *cache, const char *key, sm_error *err)
{
    struct name name;
    int rc = make_name(key, SUFFIX, &name, err);
    if (rc)
        return rc;
    if (unlinkat(cache->fd, name.text, 0)) {
        if (errno == ENOENT)
            return sm_error_set(err, SM_ENOTFOUND, "there is no snapshot %s", key);
        return sm_error_errno(err, errno, "cannot remove the snapshot %s", key);
    }
    remove_hint(cache, key);
    return 0;
}

/* ---- prune --------------------------------------------------------------------------------- */

/* What is left, and the first thing that went wrong: one file that cannot be removed does not keep
 * the others. */
struct pruning {
    struct sm_snapshot_cache *cache;
    int rc;
    sm_error *err;
};

static void cannot(struct pruning *p, const char *name)
{
    if (errno != ENOENT && !p->rc)
        p->rc = sm_error_errno(p->err, errno, "cannot remove %s/%s", p->cache->dir, name);
}

/* A writer that did not take the key's lock still holds its own on the file. */
static void remove_partial(struct pruning *p, const char *key, const char *suffix)
{
    struct name name;
    if (make_name(key, suffix, &name, NULL))
        return;
    auto_fd fd = openat(p->cache->fd, name.text, O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    if (fd >= 0 && !sm_lock_try(fd, LOCK_EX) && unlinkat(p->cache->fd, name.text, 0))
        cannot(p, name.text);
}

/* Removes what belongs to a key that nobody works on: the snapshot if `all`, otherwise leftovers.
 * True if the snapshot is gone. */
static bool remove_idle(struct pruning *p, const char *key, bool all)
{
    struct name name, lock_name;
    int dir = p->cache->fd;
    auto_fd fd = -1;
    if (make_name(key, LOCK_SUFFIX, &lock_name, NULL))
        return false;
    sm_error why;
    int rc = try_lock(p->cache, &lock_name, &fd, &why);
    if (rc < 0 && !p->rc) {
        p->rc = rc;
        if (p->err)
            *p->err = why;
    }
    if (rc)
        return false;
    bool gone = false;
    if (all && !make_name(key, SUFFIX, &name, NULL)) {
        gone = unlinkat(dir, name.text, 0) == 0;
        if (gone)
            remove_hint(p->cache, key);
        else
            cannot(p, name.text);
    }
    remove_partial(p, key, PARTIAL_SUFFIX);
    remove_partial(p, key, HINT_PARTIAL);
    if (!make_name(key, SUFFIX, &name, NULL) && faccessat(dir, name.text, F_OK, 0) &&
        errno == ENOENT)
        remove_hint(p->cache, key);
    if (unlinkat(dir, lock_name.text, 0))
        cannot(p, lock_name.text);
    return gone;
}

static void remove_leftovers(struct pruning *p)
{
    auto_dir d = NULL;
    int rc = p->rc ? p->rc : read_dir(p->cache, &d, p->err);
    if (rc) {
        p->rc = rc;
        return;
    }
    static const char *const suffixes[] = {PARTIAL_SUFFIX, LOCK_SUFFIX, HINT_PARTIAL, HINT_SUFFIX};
    for (struct dirent *e; (e = readdir(d));) {
        size_t stem, i = 0;
        while (i < SM_ARRAY_LEN(suffixes) && !ends_with(e->d_name, suffixes[i], &stem))
            i++;
        if (i < SM_ARRAY_LEN(suffixes) && key_is_valid(e->d_name, stem)) {
            char key[MAX_KEY + 1];
            snprintf(key, sizeof(key), "%.*s", (int)stem, e->d_name);
            remove_idle(p, key, false);
        }
    }
}

int sm_snapshot_cache_prune(struct sm_snapshot_cache *cache, uint64_t max_bytes, uint64_t max_age_s,
    size_t *removed, uint64_t *freed_bytes, sm_error *err)
{
    struct sm_snapshot_entry *entries;
    size_t n, count = 0;
    uint64_t kept = 0, freed = 0;
    int rc = sm_snapshot_cache_list(cache, &entries, &n, err);
    if (rc)
        return rc;
    struct pruning p = {.cache = cache, .err = err};
    time_t now = time(NULL);
    for (size_t i = 0; i < n; i++) { /* most recently used first */
        const struct sm_snapshot_entry *e = &entries[i];
        uint64_t age = now > e->used.tv_sec ? (uint64_t)(now - e->used.tv_sec) : 0;
        /* A snapshot is never empty: such a file is damage, of which nothing is to be kept. */
        bool fits = e->bytes && max_bytes && e->disk_bytes <= max_bytes &&
                    kept <= max_bytes - e->disk_bytes;
        if ((fits && age <= max_age_s) || !remove_idle(&p, e->key, true)) {
            kept += e->disk_bytes;
        } else {
            freed += e->disk_bytes;
            count++;
        }
    }
    sm_snapshot_entries_free(entries, n);
    remove_leftovers(&p);
    if (removed)
        *removed = count;
    if (freed_bytes)
        *freed_bytes = freed;
    return p.rc;
}
