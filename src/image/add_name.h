/* A further name for an image of the store: `image tag`. */
#ifndef SM_IMAGE_ADD_NAME_H
#define SM_IMAGE_ADD_NAME_H

#include "image/store.h"

int sm_imgstore_tag(
    struct sm_imgstore *store, const char *reference, const char *name, sm_error *err);

#endif
