/*
 * Garbage: what no image leads to. A root filesystem goes only under its exclusive lock, and after
 * another look at the images while that is held, since a builder that holds the lock may be about
 * to record it. Blobs are left alone while anybody pulls (pulls hold a shared lock on blobs/).
 */
#include "image/prune.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "image/index.h"
#include "image/json.h"
#include "image/list.h"
#include "image/remove.h"
#include "image/seal.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "util/error.h"
#include "util/file.h"

enum { OLD_S = 60 * 60 }; /* what is younger may be in the making */

struct prune {
    struct sm_imgstore *store;
    struct sm_image_list images;
    json_t *needed; /* digests of blobs, as keys */
    struct sm_prune_result *result;
    int rc; /* the first failure, told in *err; what else there is goes all the same */
    sm_error *err;
};

typedef void prune_fn(struct prune *p, const char *dir, const char *name);

static void each_file(struct prune *p, const char *dir, prune_fn *fn)
{
    auto_dir d = sm_open_dir(p->store->fd, dir, 0);
    if (!d)
        return;
    struct dirent *entry;
    while ((entry = readdir(d)))
        if (*entry->d_name != '.')
            fn(p, dir, entry->d_name);
}

static bool ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

static bool is_old(const struct prune *p, const char *path)
{
    struct stat st;
    return fstatat(p->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
           st.st_mtime + OLD_S < time(NULL);
}

static void keep_failure(struct prune *p, int rc, const sm_error *why)
{
    if (!p->rc && p->err)
        *p->err = *why;
    p->rc = p->rc ? p->rc : rc;
}

static bool remove_file(struct prune *p, const char *path)
{
    struct stat st;
    sm_error why;
    if (fstatat(p->store->fd, path, &st, AT_SYMLINK_NOFOLLOW) != 0 || !S_ISREG(st.st_mode))
        return false;
    if (unlinkat(p->store->fd, path, 0) != 0) {
        if (errno != ENOENT)
            keep_failure(p,
                sm_error_errno(
                    &why, errno, "cannot remove %s from the store %s", path, p->store->path),
                &why);
        return false;
    }
    p->result->bytes += (uint64_t)st.st_blocks * 512;
    return true;
}

/* The descriptor holds the exclusive lock; -1: somebody else has one, or the file is gone. */
static int lock_file(struct prune *p, const char *path)
{
    int fd = openat(p->store->fd, path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) != 0) {
        sm_close(fd);
        return -1;
    }
    return fd;
}

static bool has_rootfs(const struct sm_image_list *images, const char *path)
{
    for (size_t i = 0; i < images->count; i++)
        if (ends_with(images->entries[i].info.rootfs_path, path))
            return true;
    return false;
}

static void prune_rootfs(struct prune *p, const char *dir, const char *name)
{
    char path[SM_STORE_NAME_MAX];
    snprintf(path, sizeof(path), "%s/%.300s", dir, name);
    bool partial = ends_with(name, ".partial");
    if (!partial && has_rootfs(&p->images, path))
        return;
    auto_fd fd = lock_file(p, path);
    if (fd < 0)
        return;
    struct sm_image_list now = {0};
    bool needed =
        !partial && (sm_imgstore_list(p->store, &now, NULL) != 0 || has_rootfs(&now, path));
    sm_image_list_clear(&now);
    if (needed)
        return;
    if (!partial) /* one that is being made shares the name of its seal with the finished file */
        sm_seal_break(p->store, path);
    if (remove_file(p, path))
        p->result->rootfs++;
}

/* The seal of a file that is gone. A builder writes it before the file has its name: young ones
 * stay. */
static void prune_seal(struct prune *p, const char *dir, const char *name)
{
    char path[SM_STORE_NAME_MAX], rootfs[SM_STORE_NAME_MAX];
    snprintf(path, sizeof(path), "%s/%.300s", dir, name);
    snprintf(rootfs, sizeof(rootfs), "rootfs/%.300s" SM_ROOTFS_SUFFIX, name);
    if (faccessat(p->store->fd, rootfs, F_OK, AT_SYMLINK_NOFOLLOW) != 0 && is_old(p, path))
        remove_file(p, path);
}

static void prune_blob(struct prune *p, const char *dir, const char *name)
{
    char path[SM_STORE_NAME_MAX], digest[SM_DIGEST_LEN + 1];
    snprintf(path, sizeof(path), "%s/%.300s", dir, name);
    snprintf(digest, sizeof(digest), "sha256:%.64s", name);
    if (!ends_with(name, ".partial") && json_object_get(p->needed, digest))
        return;
    if (remove_file(p, path))
        p->result->blobs++;
}

static void prune_tmp(struct prune *p, const char *dir, const char *name)
{
    char path[SM_STORE_NAME_MAX];
    snprintf(path, sizeof(path), "%s/%.300s", dir, name);
    if (is_old(p, path))
        remove_file(p, path);
}

static bool has_record(const struct prune *p, const char *digest)
{
    char image[SM_STORE_NAME_MAX];
    sm_store_image_name(digest, image);
    return faccessat(p->store->fd, image, F_OK, 0) == 0;
}

static void prune_choice(struct prune *p, const char *dir, const char *name)
{
    char path[SM_STORE_NAME_MAX], digest[SM_DIGEST_LEN + 1];
    snprintf(path, sizeof(path), "%s/%.300s", dir, name);
    int rc = sm_store_read_digest(p->store, path, digest, NULL);
    if (rc == -SM_ECORRUPT || (rc == 0 && !has_record(p, digest)))
        remove_file(p, path);
}

static void prune_archive(struct prune *p, const char *dir, const char *name)
{
    char path[SM_STORE_NAME_MAX];
    snprintf(path, sizeof(path), "%s/%.300s", dir, name);
    auto_json *record = NULL;
    (void)sm_json_load_at(p->store->fd, path, &record, NULL);
    const char *digest = sm_json_string(record, "digest");
    if (!sm_digest_valid(digest) || !has_record(p, digest))
        remove_file(p, path);
}

/* ---- what is needed -------------------------------------------------------------------------- */

static void need(struct prune *p, const char *digest)
{
    if (sm_digest_valid(digest))
        json_object_set_new(p->needed, digest, json_true());
}

/* A manifest and what it names. */
static void need_manifest(struct prune *p, const char *digest)
{
    char path[SM_STORE_NAME_MAX];
    auto_json *root = NULL;
    need(p, digest);
    sm_store_blob_name(digest, path);
    if (sm_json_load_at(p->store->fd, path, &root, NULL) != 0)
        return;
    need(p, sm_json_string(json_object_get(root, "config"), "digest"));
    size_t i;
    json_t *layer;
    json_array_foreach(json_object_get(root, "layers"), i, layer)
        need(p, sm_json_string(layer, "digest"));
}

static int need_tag(void *arg, const char *full, const char *file, const char *digest)
{
    need(arg, digest);
    return 0;
}

static int remove_unnamed(struct prune *p)
{
    for (size_t i = 0; i < p->images.count; i++) {
        const struct sm_image_entry *entry = &p->images.entries[i];
        bool named = false;
        for (size_t j = 0; j < entry->names.count && !named; j++) {
            auto_reference ref = NULL;
            named = sm_reference_parse(entry->names.items[j], &ref, NULL) == 0 &&
                    ref->kind == SM_REF_REGISTRY;
        }
        sm_error why;
        int rc = named ? 0 : sm_imgstore_remove(p->store, entry->info.digest, NULL, &why);
        if (rc && rc != -SM_EBUSY)
            keep_failure(p, rc, &why);
        p->result->images += !named && rc == 0;
    }
    sm_image_list_clear(&p->images);
    return sm_imgstore_list(p->store, &p->images, p->err);
}

static void prune_blobs(struct prune *p)
{
    auto_fd lock = lock_file(p, "blobs");
    if (lock < 0)
        return;
    for (size_t i = 0; i < p->images.count; i++)
        need_manifest(p, p->images.entries[i].info.digest);
    if (sm_store_each_tag(p->store, need_tag, p, NULL) == 0)
        each_file(p, "blobs/sha256", prune_blob);
}

int sm_imgstore_prune(
    struct sm_imgstore *store, bool all, struct sm_prune_result *out, sm_error *err)
{
    struct prune p = {.store = store, .needed = json_object(), .result = out, .err = err};
    *out = (struct sm_prune_result){0};
    int rc = p.needed ? sm_imgstore_list(store, &p.images, err)
                      : sm_error_set(err, SM_ENOMEM, "out of memory");
    if (rc == 0 && all)
        rc = remove_unnamed(&p);
    if (rc == 0) {
        each_file(&p, "rootfs", prune_rootfs);
        prune_blobs(&p);
        each_file(&p, "seals", prune_seal);
        each_file(&p, "tmp", prune_tmp);
        each_file(&p, "indexes/sha256", prune_choice);
        each_file(&p, "archives", prune_archive);
    }
    sm_image_list_clear(&p.images);
    json_decref(p.needed);
    return rc ? rc : p.rc;
}
