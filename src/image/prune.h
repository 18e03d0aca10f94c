/* Garbage of the store, as sm_store_prune_images takes it away. */
#ifndef SM_IMAGE_PRUNE_H
#define SM_IMAGE_PRUNE_H

#include "image/store.h"

int sm_imgstore_prune(
    struct sm_imgstore *store, bool all, struct sm_prune_result *result, sm_error *err);

#endif
