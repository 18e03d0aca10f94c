/* Images out of the store into an archive, and back: `image save` and `image load`. */
#ifndef SM_BUILDER_TRANSFER_H
#define SM_BUILDER_TRANSFER_H

#include "builder/make_image.h"

/* Writes the image as an oci-archive. Its layers are read from the store's blobs (images that were pulled
 * or loaded) or, where they are not there, once more from what the image was made from. `stream` >= 0: to this descriptor
 * and not to path. */
int sm_image_save(
    struct sm_imgstore *store, const char *reference, const char *path, int stream, sm_error *err);

/* Makes all images of an oci-archive or docker-archive ready and gives them the names that they have in it.
 * *loaded: names (digests of those without), a line each; malloc'ed. */
int sm_image_load(struct sm_imgstore *store, const char *path, int stream,
    const struct sm_make_options *options, char **loaded, sm_error *err);

#endif
