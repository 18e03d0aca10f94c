/* What the objects of the public API are made of; for the files of this directory only. */
#ifndef SM_API_INTERNAL_H
#define SM_API_INTERNAL_H

#include <supermachine.h>

#include "api/image_config.h"
#include "image/store.h"

struct sm_store {
    struct sm_imgstore *images;
};

struct sm_image {
    sm_store *store;
    struct sm_image_info info;
    struct sm_image_config config;
};

/* Compares the whole root filesystem with its seal (image/seal.h): what is baked lives long. */
int sm_image_verify(const sm_image *image, sm_error *err);

struct sm_snapshot_cache;

/* The store's snapshots; the caller closes it. */
int sm_store_snapshot_cache(sm_store *store, struct sm_snapshot_cache **cache, sm_error *err);

#endif
