/* All images of the store, and the names that lead to each: rows of `image ls`. */
#ifndef SM_IMAGE_LIST_H
#define SM_IMAGE_LIST_H

#include "image/record.h"
#include "util/strv.h"

/* An image and the names that lead to it. */
struct sm_image_entry {
    struct sm_image_info info;
    struct sm_strv names;
};

struct sm_image_list {
    struct sm_image_entry *entries; /* newest first */
    size_t count;
};

int sm_imgstore_list(struct sm_imgstore *store, struct sm_image_list *list, sm_error *err);
void sm_image_list_clear(struct sm_image_list *list);

/* The same in any order and without names. */
int sm_store_read_images(struct sm_imgstore *store, struct sm_image_list *list, sm_error *err);

/* Whether a name's target (a manifest, or an index and any choice of it) is this image. */
bool sm_store_leads_to(
    struct sm_imgstore *store, const char *target, const struct sm_image_info *info);

#endif
