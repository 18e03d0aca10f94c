/* All images of an archive into the store: `supermachine-image load`. */
#ifndef SM_BUILDER_LOAD_H
#define SM_BUILDER_LOAD_H

#include "builder/make_image.h"

/* Makes all images of an oci-archive or docker-archive ready and gives them the names that they
 * have in it. `stream` >= 0: of this descriptor and not of path. *loaded: names (digests of those
 * without), a line each; malloc'ed. */
int sm_image_load(struct sm_imgstore *store, const char *path, int stream,
    const struct sm_make_options *options, char **loaded, sm_error *err);

#endif
