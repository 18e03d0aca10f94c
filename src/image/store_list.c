/* Listing and removing what the store has. Order of a removal: names, record, root filesystem; a
 * crash in between leaves things that nothing leads to, which `prune` finds. */
#include "image/store_internal.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>

#include "image/json.h"
#include "image/seal.h"
#include "util/error.h"

/* ---- names --------------------------------------------------------------------------------- */

struct walk {
    struct sm_imgstore *store;
    sm_store_tag_fn *fn;
    void *arg;
    sm_error *err;
};

/* `name` is a directory below refs/. Directories nest at most as deep as a name is long. */
static int walk_tags(struct walk *walk, const char *name)
{
    int fd = openat(walk->store->fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int saved = errno;
        sm_close(fd);
        return saved == ENOENT
                   ? 0
                   : sm_error_errno(walk->err, saved, "cannot list %s in the store", name);
    }
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char path[SM_STORE_NAME_MAX];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0 ||
            snprintf(path, sizeof(path), "%s/%s", name, entry->d_name) >= (int)sizeof(path))
            continue;
        int rc;
        if (*entry->d_name != ':') {
            rc = walk_tags(walk, path);
        } else {
            char full[SM_STORE_NAME_MAX], digest[SM_DIGEST_LEN + 1];
            snprintf(full, sizeof(full), "%s%s", name + strlen("refs/"), entry->d_name);
            if (sm_store_get_tag(walk->store, path, digest, NULL) != 0)
                continue;
            rc = walk->fn(walk->arg, full, path, digest);
        }
        if (rc)
            return rc;
    }
    return 0;
}

int sm_store_each_tag(struct sm_imgstore *store, sm_store_tag_fn *fn, void *arg, sm_error *err)
{
    struct walk walk = {store, fn, arg, err};
    return walk_tags(&walk, "refs");
}

/* ---- listing ------------------------------------------------------------------------------- */

void sm_image_list_clear(struct sm_image_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        sm_image_info_clear(&list->entries[i].info);
        for (char **name = list->entries[i].names; *name; name++)
            free(*name);
        free(list->entries[i].names);
    }
    free(list->entries);
    *list = (struct sm_image_list){0};
}

static int add_name(struct sm_image_entry *entry, const char *name)
{
    size_t n = 0;
    while (entry->names[n])
        n++;
    char **grown = reallocarray(entry->names, n + 2, sizeof(*grown));
    if (!grown)
        return -SM_ENOMEM;
    entry->names = grown;
    grown[n + 1] = NULL;
    grown[n] = strdup(name);
    return grown[n] ? 0 : -SM_ENOMEM;
}

struct naming {
    struct sm_imgstore *store;
    struct sm_image_list *list;
};

/* Whether the name's target (a manifest, or an index and any choice of it) is this image. */
static bool leads_to(
    struct sm_imgstore *store, const char *target, const struct sm_image_info *info)
{
    if (strcmp(target, info->digest) == 0)
        return true;
    struct sm_platform platform;
    char digest[SM_DIGEST_LEN + 1];
    if (sm_platform_parse(info->platform, &platform, NULL) != 0)
        return false;
    for (int pass = 0; pass < 2; pass++) {
        if (sm_store_get_choice(store, target, &platform, digest, NULL) == 0 &&
            strcmp(digest, info->digest) == 0)
            return true;
        *platform.variant = '\0';
    }
    return false;
}

static int name_images(void *arg, const char *full, const char *file, const char *digest)
{
    struct naming *naming = arg;
    for (size_t i = 0; i < naming->list->count; i++) {
        struct sm_image_entry *entry = &naming->list->entries[i];
        if (leads_to(naming->store, digest, &entry->info) && add_name(entry, full) != 0)
            return -SM_ENOMEM;
    }
    return 0;
}

static int newest_first(const void *a, const void *b)
{
    const struct sm_image_entry *x = a, *y = b;
    if (x->info.created != y->info.created)
        return x->info.created < y->info.created ? 1 : -1;
    return strcmp(x->info.digest, y->info.digest);
}

static int read_images(struct sm_imgstore *store, struct sm_image_list *list, sm_error *err)
{
    int fd = openat(store->fd, "images/sha256", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT)
        return 0;
    auto_dir dir = fd < 0 ? NULL : fdopendir(fd);
    if (!dir) {
        int rc = sm_error_errno(err, errno, "cannot list the images of the store %s", store->path);
        sm_close(fd);
        return rc;
    }
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char digest[SM_DIGEST_LEN + 1];
        snprintf(digest, sizeof(digest), "sha256:%.64s", entry->d_name);
        struct sm_image_info info;
        if (!sm_digest_valid(digest) ||
            sm_store_get_image(store, digest, NULL, false, &info, NULL) != 0)
            continue;
        struct sm_image_entry *grown = reallocarray(list->entries, list->count + 1, sizeof(*grown));
        if (grown)
            list->entries = grown;
        char **no_names = calloc(1, sizeof(*no_names));
        if (!grown || !no_names) {
            free(no_names);
            sm_image_info_clear(&info);
            return sm_error_set(err, SM_ENOMEM, "out of memory");
        }
        grown[list->count++] = (struct sm_image_entry){.info = info, .names = no_names};
    }
    return 0;
}

int sm_imgstore_list(struct sm_imgstore *store, struct sm_image_list *out, sm_error *err)
{
    struct sm_image_list list = {0};
    int rc = read_images(store, &list, err);
    if (rc == 0) {
        struct naming naming = {store, &list};
        rc = sm_store_each_tag(store, name_images, &naming, err);
        for (size_t i = 0; rc == 0 && i < list.count; i++) {
            struct sm_image_entry *entry = &list.entries[i];
            auto_reference ref = NULL;
            if (sm_reference_parse(entry->info.source, &ref, NULL) == 0 &&
                ref->kind != SM_REF_REGISTRY)
                rc = add_name(entry, entry->info.source);
        }
        if (rc == -SM_ENOMEM)
            sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    if (rc) {
        sm_image_list_clear(&list);
        return rc;
    }
    if (list.count > 0)
        qsort(list.entries, list.count, sizeof(*list.entries), newest_first);
    *out = list;
    return 0;
}

/* ---- removing ------------------------------------------------------------------------------ */

struct names_of {
    struct sm_imgstore *store;
    const struct sm_image_info *info;
    const char *but; /* the file of a name that does not count, or NULL */
    unsigned count;
    bool remove;
};

static int visit_name(void *arg, const char *full, const char *file, const char *digest)
{
    struct names_of *job = arg;
    if (!leads_to(job->store, digest, job->info) || (job->but && strcmp(job->but, file) == 0))
        return 0;
    job->count++;
    return job->remove && unlinkat(job->store->fd, file, 0) != 0 && errno != ENOENT ? -SM_EIO : 0;
}

static bool rootfs_is_shared(const struct sm_image_list *list, const struct sm_image_info *info)
{
    for (size_t i = 0; i < list->count; i++)
        if (strcmp(list->entries[i].info.digest, info->digest) != 0 &&
            strcmp(list->entries[i].info.rootfs_path, info->rootfs_path) == 0)
            return true;
    return false;
}

/* Removes record and root filesystem. The exclusive lock is held from before the look at who else
 * uses the file until it is unlinked, so nobody can begin to use it in between. */
static int remove_image(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err)
{
    auto_fd fd = open(info->rootfs_path, O_RDONLY | O_CLOEXEC);
    bool locked = fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0;
    struct sm_image_list list = {0};
    int rc = read_images(store, &list, err);
    bool shared = rc == 0 && rootfs_is_shared(&list, info);
    sm_image_list_clear(&list);
    if (rc)
        return rc;
    if (fd >= 0 && !locked && !shared)
        return sm_error_set(err, SM_EBUSY,
            "the image %.19s is in use, stop the machines that run from it first", info->digest);
    struct names_of job = {store, info, .remove = true};
    rc = sm_store_each_tag(store, visit_name, &job, err);
    char name[SM_STORE_NAME_MAX];
    sm_store_image_name(info->digest, name);
    if (rc == 0 && unlinkat(store->fd, name, 0) != 0 && errno != ENOENT)
        rc = -SM_EIO;
    if (rc == 0 && !shared) {
        sm_seal_break(store, info->rootfs_path);
        if (unlink(info->rootfs_path) != 0 && errno != ENOENT)
            rc = -SM_EIO;
    }
    return rc ? sm_error_errno(err, errno, "cannot remove the image %.19s", info->digest) : 0;
}

int sm_imgstore_remove(
    struct sm_imgstore *store, const char *reference, char **removed, sm_error *err)
{
    auto_reference ref = NULL;
    int rc = sm_reference_parse(reference, &ref, err);
    if (rc)
        return rc;
    struct sm_platform host;
    struct sm_image_info info;
    rc = sm_platform_parse(NULL, &host, err);
    if (rc == 0)
        rc = sm_store_resolve(store, ref, &host, false, &info, err);
    if (rc)
        return rc;
    char name[SM_STORE_NAME_MAX];
    struct names_of others = {store, &info, .but = name};
    if (ref->kind == SM_REF_REGISTRY && ref->tag && sm_store_tag_name(ref, name, NULL) == 0 &&
        faccessat(store->fd, name, F_OK, 0) == 0)
        rc = sm_store_each_tag(store, visit_name, &others, err);
    if (rc == 0 && others.count > 0 && unlinkat(store->fd, name, 0) != 0)
        rc = sm_error_errno(err, errno, "cannot remove the name %s", reference);
    else if (rc == 0 && others.count == 0)
        rc = remove_image(store, &info, err);
    if (rc == 0 && removed)
        *removed = others.count == 0 ? sm_steal_ptr(&info.digest) : NULL;
    sm_image_info_clear(&info);
    return rc;
}

int sm_imgstore_tag(
    struct sm_imgstore *store, const char *reference, const char *name, sm_error *err)
{
    auto_reference from = NULL;
    auto_reference to = NULL;
    int rc = sm_reference_parse(reference, &from, err);
    if (rc == 0)
        rc = sm_reference_parse(name, &to, err);
    if (rc)
        return rc;
    if (to->kind != SM_REF_REGISTRY || to->digest)
        return sm_error_set(
            err, SM_EINVAL, "%.200s is not a name to give, as example.com/app:1", name);
    struct sm_platform host;
    struct sm_image_info info;
    rc = sm_platform_parse(NULL, &host, err);
    if (rc == 0)
        rc = sm_store_resolve(store, from, &host, false, &info, err);
    if (rc)
        return rc;
    /* A name of an index stays one of all its platforms. */
    char file[SM_STORE_NAME_MAX], digest[SM_DIGEST_LEN + 1];
    if (from->kind != SM_REF_REGISTRY || !from->tag || sm_store_tag_name(from, file, NULL) != 0 ||
        sm_store_get_tag(store, file, digest, NULL) != 0)
        snprintf(digest, sizeof(digest), "%s", info.digest);
    sm_image_info_clear(&info);
    return sm_store_put_tag(store, to, digest, err);
}
