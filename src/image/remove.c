/* Order of a removal: names, record, root filesystem; a crash in between leaves things that nothing
 * leads to, which `prune` finds. */
#include "image/remove.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "image/find.h"
#include "image/list.h"
#include "image/seal.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "util/error.h"

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
    if (!sm_store_leads_to(job->store, digest, job->info) ||
        (job->but && strcmp(job->but, file) == 0))
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
    int rc = sm_store_read_images(store, &list, err);
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
