/* sm_store and sm_image: the public face of the image store. */
#include <stdlib.h>
#include <sys/stat.h>

#include "api/internal.h"
#include "image/add_name.h"
#include "image/client.h"
#include "image/ensure.h"
#include "image/image.h"
#include "image/list.h"
#include "image/prune.h"
#include "image/remove.h"
#include "image/usage.h"
#include "image/verify.h"
#include "util/cleanup.h"
#include "util/error.h"

int sm_store_open(sm_store **store, const char *dir, sm_error *err)
{
    sm_store *s = calloc(1, sizeof(*s));
    if (!s)
        return sm_error_set(err, SM_ENOMEM, "no memory for the store");
    int rc = sm_imgstore_open(&s->images, dir, err);
    if (rc) {
        free(s);
        return rc;
    }
    *store = s;
    return 0;
}

void sm_store_close(sm_store *store)
{
    if (!store)
        return;
    sm_imgstore_close(store->images);
    free(store);
}

int sm_store_list(sm_store *store, sm_store_list_fn *fn, void *arg, sm_error *err)
{
    static const char *const none[] = {NULL};
    struct sm_image_list list = {0};
    int rc = sm_imgstore_list(store->images, &list, err);
    if (rc)
        return rc;
    for (size_t i = 0; i < list.count; i++) {
        const struct sm_image_entry *e = &list.entries[i];
        struct stat st = {0};
        (void)stat(e->info.rootfs_path, &st);
        fn(arg, &(sm_store_image){
                    .names = e->names.count ? (const char *const *)e->names.items : none,
                    .digest = e->info.digest,
                    .platform = e->info.platform,
                    .source = e->info.source,
                    .size_bytes = e->info.rootfs_size,
                    .disk_bytes = (uint64_t)st.st_blocks * 512,
                    .created = e->info.created,
                });
    }
    sm_image_list_clear(&list);
    return 0;
}

int sm_store_remove(sm_store *store, const char *reference, sm_error *err)
{
    return sm_imgstore_remove(store->images, reference, NULL, err);
}

int sm_store_tag(sm_store *store, const char *reference, const char *name, sm_error *err)
{
    return sm_imgstore_tag(store->images, reference, name, err);
}

int sm_store_prune_images(sm_store *store, bool all, sm_prune_result *result, sm_error *err)
{
    return sm_imgstore_prune(store->images, all, result, err);
}

int sm_store_verify(sm_store *store, const char *reference, sm_error *err)
{
    return sm_imgstore_verify_named(store->images, reference, err);
}

void sm_store_measure(sm_store *store, sm_store_usage *usage)
{
    sm_imgstore_usage(store->images, usage);
}

/* What the caller says, as the rooms below pass it on. */
static struct sm_ensure_options options_of(const sm_image_options *o)
{
    if (!o)
        return (struct sm_ensure_options){0};
    return (struct sm_ensure_options){
        .pull = o->pull,
        .builder =
            {
                .fetch =
                    {
                        .platform = o->platform,
                        .tls_ca = o->tls_ca,
                        .authfile = o->authfile,
                        .insecure = o->insecure_registry,
                    },
                .progress = o->progress,
                .progress_arg = o->progress_arg,
                .cancel_fd = o->cancel_fd,
            },
    };
}

int sm_store_save(sm_store *store, const char *reference, const char *path, sm_error *err)
{
    return sm_store_save_as(store, reference, SM_ARCHIVE_OCI, path, err);
}

int sm_store_save_as(sm_store *store, const char *reference, enum sm_archive_format format,
    const char *path, sm_error *err)
{
    if (format != SM_ARCHIVE_OCI && format != SM_ARCHIVE_DOCKER)
        return sm_error_set(err, SM_EINVAL, "there is no archive of the format %d", (int)format);
    return sm_builder_save(store->images, reference, format, path, err);
}

int sm_store_load(
    sm_store *store, const char *path, const sm_image_options *options, char **names, sm_error *err)
{
    const struct sm_ensure_options o = options_of(options);
    return sm_builder_load(store->images, path, &o.builder, names, err);
}

int sm_registry_login(const char *host, const char *user, const char *password,
    const sm_image_options *options, sm_error *err)
{
    const struct sm_ensure_options o = options_of(options);
    return sm_builder_login(host, user, password, &o.builder, err);
}

int sm_registry_logout(const char *host, const sm_image_options *options, sm_error *err)
{
    const struct sm_ensure_options o = options_of(options);
    return sm_builder_logout(host, &o.builder, err);
}

int sm_image_open(sm_store *store, const char *reference, const sm_image_options *options,
    sm_image **image, sm_error *err)
{
    sm_image *i = calloc(1, sizeof(*i));
    if (!i)
        return sm_error_set(err, SM_ENOMEM, "no memory for the image");
    i->store = store->images;
    i->info.rootfs_fd = -1;
    const struct sm_ensure_options ensure = options_of(options);
    int rc = sm_imgstore_ensure(store->images, reference, &ensure, &i->info, err);
    if (!rc) {
        rc = sm_oci_config_parse(&i->config, i->info.config, err);
        if (rc)
            rc = sm_error_prefix(err, rc, "image '%s'", reference);
    }
    if (rc) {
        sm_image_close(i);
        return rc;
    }
    *image = i;
    return 0;
}

void sm_image_close(sm_image *image)
{
    if (!image)
        return;
    sm_oci_config_clear(&image->config);
    sm_image_info_clear(&image->info);
    free(image);
}

const char *sm_image_digest(const sm_image *image)
{
    return image->info.digest;
}

const char *sm_image_config(const sm_image *image)
{
    return image->info.config;
}

const char *sm_image_rootfs(const sm_image *image)
{
    return image->info.rootfs_path;
}
