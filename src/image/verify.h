/* Whether a root filesystem of the store is as it was made: all of it is read. */
#ifndef SM_IMAGE_VERIFY_H
#define SM_IMAGE_VERIFY_H

#include "image/record.h"

/* Of what `info` holds open. SM_ECORRUPT: it is damaged, and from now on made anew by whoever wants
 * to use it. */
int sm_imgstore_verify(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err);
/* The same of an image that the store has, of whatever platform: it is looked up, and neither built
 * nor made anew first. */
int sm_imgstore_verify_named(struct sm_imgstore *store, const char *reference, sm_error *err);

#endif
