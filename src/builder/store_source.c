/* The store's blobs as a source. See store_source.h. */
#include "builder/store_source.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/blobs.h"
#include "image/store_files.h"
#include "util/error.h"

struct stored {
    struct sm_source source;
    struct sm_imgstore *store;
};

static int open_stored(struct sm_source *source, const struct sm_descriptor *d, const char *name,
    struct sm_blob *blob, sm_error *err)
{
    const struct stored *s = (const struct stored *)(const void *)source;
    char path[SM_STORE_NAME_MAX];
    sm_store_blob_name(d->digest, path);
    auto_fd fd = sm_store_open_blob(s->store, d);
    if (fd < 0 && faccessat(s->store->fd, path, F_OK, 0) != 0)
        return sm_error_errno(err, errno, "the store does not have the blob %s", d->digest);
    if (fd < 0)
        return sm_error_set(err, SM_ECORRUPT,
            "the blob %s of the store is damaged, prune or pull again", d->digest);
    *blob = (struct sm_blob){.fd = sm_steal_fd(&fd), .size = d->size};
    return 0;
}

static void free_stored(struct sm_source *source)
{
    free(source);
}

int sm_stored_open(struct sm_imgstore *store, const struct sm_image_info *info,
    const struct sm_platform *platform, struct sm_source **source, struct sm_plan *plan,
    sm_error *err)
{
    struct sm_descriptor top = {.is_manifest = true};
    char path[SM_STORE_NAME_MAX];
    struct stat st;
    memcpy(top.digest, info->digest, sizeof(top.digest));
    sm_store_blob_name(info->digest, path);
    if (fstatat(store->fd, path, &st, 0) != 0)
        return sm_error_errno(err, errno, "the store does not have the manifest %s", info->digest);
    top.size = (uint64_t)st.st_size;
    struct stored *s = calloc(1, sizeof(*s));
    if (!s)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    *s = (struct stored){{.open = open_stored, .free = free_stored}, store};
    *source = &s->source;
    return sm_plan_oci(*source, &top, platform, plan, err);
}
