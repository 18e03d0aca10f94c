/* Images out of the store into an archive: `supermachine-image save`. */
#ifndef SM_BUILDER_SAVE_H
#define SM_BUILDER_SAVE_H

#include "image/store.h"

struct sm_parsers;

/* Writes the image as an archive. Its layers are read from the store's blobs (images that were
 * pulled or loaded) or, where they are not there, once more from what the image was made from.
 * As docker's it has the layers decompressed, as docker and podman write them: each is read twice,
 * as a tar has the size of a file in front of it. `stream` >= 0: to this descriptor and not to
 * path. */
int sm_image_save(struct sm_imgstore *store, struct sm_parsers *parsers, const char *reference,
    enum sm_archive_format format, const char *path, int stream, sm_error *err);

#endif
