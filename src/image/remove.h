/* Images and names that go. */
#ifndef SM_IMAGE_REMOVE_H
#define SM_IMAGE_REMOVE_H

#include "image/store.h"

/* Removes the name, or, where the reference is a digest or was the last name, the image and what
 * only it needs. SM_EBUSY when something runs from it (a VM, an open sm_image). `removed` (may be
 * NULL) gets the digest when the image itself went, else NULL; the caller frees it. */
int sm_imgstore_remove(
    struct sm_imgstore *store, const char *reference, char **removed, sm_error *err);

#endif
