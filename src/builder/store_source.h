/* An image that the store has a record of as a source: from the blobs that it keeps of what was
 * pulled or loaded. */
#ifndef SM_BUILDER_STORE_SOURCE_H
#define SM_BUILDER_STORE_SOURCE_H

#include "builder/plan.h"
#include "builder/source.h"
#include "image/record.h"

/* SM_ENOTFOUND: the store does not keep its manifest. *source and *plan are the caller's even after
 * a failure. */
int sm_stored_open(struct sm_imgstore *store, const struct sm_image_info *info,
    const struct sm_platform *platform, struct sm_source **source, struct sm_plan *plan,
    sm_error *err);

#endif
