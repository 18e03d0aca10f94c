/* Listing what the store has. See list.h. */
#include "image/list.h"

#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/leads.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "util/error.h"

void sm_image_list_clear(struct sm_image_list *list)
{
    for (size_t i = 0; i < list->count; i++) {
        sm_image_info_clear(&list->entries[i].info);
        sm_strv_clear(&list->entries[i].names);
    }
    free(list->entries);
    *list = (struct sm_image_list){0};
}

struct naming {
    struct sm_imgstore *store;
    struct sm_image_list *list;
};

bool sm_store_leads_to(
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
        if (sm_store_leads_to(naming->store, digest, &entry->info) &&
            !sm_strv_add(&entry->names, full))
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

int sm_store_read_images(struct sm_imgstore *store, struct sm_image_list *list, sm_error *err)
{
    auto_dir dir = sm_open_dir(store->fd, "images/sha256", 0);
    if (!dir)
        return errno == ENOENT ? 0
                               : sm_error_errno(err, errno,
                                     "cannot list the images of the store %s", store->path);
    struct dirent *entry;
    while ((entry = readdir(dir))) {
        char digest[SM_DIGEST_LEN + 1];
        snprintf(digest, sizeof(digest), "sha256:%.64s", entry->d_name);
        struct sm_image_info info;
        if (!sm_digest_valid(digest) ||
            sm_store_get_image(store, digest, NULL, false, &info, NULL) != 0)
            continue;
        struct sm_image_entry *grown = reallocarray(list->entries, list->count + 1, sizeof(*grown));
        if (!grown) {
            sm_image_info_clear(&info);
            return sm_error_set(err, SM_ENOMEM, "out of memory");
        }
        list->entries = grown;
        grown[list->count++] = (struct sm_image_entry){.info = info};
    }
    return 0;
}

int sm_imgstore_list(struct sm_imgstore *store, struct sm_image_list *out, sm_error *err)
{
    struct sm_image_list list = {0};
    int rc = sm_store_read_images(store, &list, err);
    if (rc == 0) {
        struct naming naming = {store, &list};
        rc = sm_store_each_tag(store, name_images, &naming, err);
        for (size_t i = 0; rc == 0 && i < list.count; i++) {
            struct sm_image_entry *entry = &list.entries[i];
            auto_reference ref = NULL;
            if (sm_reference_parse(entry->info.source, &ref, NULL) == 0 &&
                ref->kind != SM_REF_REGISTRY && !sm_strv_add(&entry->names, entry->info.source))
                rc = -SM_ENOMEM;
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
