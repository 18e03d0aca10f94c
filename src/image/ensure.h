/*
 * An image that is ready to run: found in the store, or made by the program `supermachine-image`
 * first. This stands above the store, which starts no program, and the client, which knows no store
 * but by its path.
 */
#ifndef SM_IMAGE_ENSURE_H
#define SM_IMAGE_ENSURE_H

#include "image/client.h"
#include "image/record.h"

struct sm_ensure_options {
    struct sm_builder_options builder;
    enum sm_pull_policy pull;
};

/* As sm_imgstore_find; what is missing is pulled and built first, what is damaged made anew.
 * options may be NULL. */
int sm_imgstore_ensure(struct sm_imgstore *store, const char *reference,
    const struct sm_ensure_options *options, struct sm_image_info *info, sm_error *err);

#endif
