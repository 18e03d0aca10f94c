/* What the store takes on the disk, as sm_store_measure tells it. */
#ifndef SM_IMAGE_USAGE_H
#define SM_IMAGE_USAGE_H

#include "image/store.h"

void sm_imgstore_usage(struct sm_imgstore *store, struct sm_store_usage *usage);

#endif
