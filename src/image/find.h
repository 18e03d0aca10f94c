/* From reference to image: what the store has. Well below a millisecond, as it is done before each
 * run. */
#ifndef SM_IMAGE_FIND_H
#define SM_IMAGE_FIND_H

#include "image/record.h"

/* Looks `reference` up (all forms of sm_image_open). platform NULL: the host's. SM_ENOTFOUND when
 * the store does not have it, or what it names has changed since it was built. */
int sm_imgstore_find(struct sm_imgstore *store, const char *reference, const char *platform,
    struct sm_image_info *info, sm_error *err);

/* The same of a parsed one; `to_run`: it must fit the platform, and is locked (see record.h). */
int sm_store_resolve(struct sm_imgstore *store, const struct sm_reference *ref,
    const struct sm_platform *platform, bool to_run, struct sm_image_info *info, sm_error *err);

#endif
