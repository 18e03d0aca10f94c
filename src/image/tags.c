/* Names of registries. See tags.h. A tag's file begins with ':', which no directory does. */
#include "image/tags.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"

int sm_store_tag_name(const struct sm_reference *ref, char name[SM_STORE_NAME_MAX], sm_error *err)
{
    int n = snprintf(name, SM_STORE_NAME_MAX, "refs/%s/%s/:%s", ref->host, ref->repository,
        ref->tag ? ref->tag : "");
    if (n >= SM_STORE_NAME_MAX || !ref->tag)
        return sm_error_set(err, SM_EINVAL, "%.100s/%.100s is not a name that can be stored",
            ref->host, ref->repository);
    return 0;
}

int sm_store_put_tag(
    struct sm_imgstore *store, const struct sm_reference *ref, const char *digest, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    int rc = sm_store_tag_name(ref, name, err);
    return rc ? rc : sm_store_write_digest(store, name, digest, err);
}

int sm_store_get_tag(
    struct sm_imgstore *store, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    return sm_store_read_digest(store, name, digest, err);
}

struct walk {
    struct sm_imgstore *store;
    sm_store_tag_fn *fn;
    void *arg;
    sm_error *err;
};

/* `name` is a directory below refs/. Directories nest at most as deep as a name is long. */
static int walk_tags(struct walk *walk, const char *name)
{
    auto_dir dir = sm_open_dir(walk->store->fd, name, O_NOFOLLOW);
    if (!dir)
        return errno == ENOENT
                   ? 0
                   : sm_error_errno(walk->err, errno, "cannot list %s in the store", name);
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
