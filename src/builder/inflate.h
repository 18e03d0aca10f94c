/* The tar of a layer: its blob read, checked and decompressed. */
#ifndef SM_BUILDER_INFLATE_H
#define SM_BUILDER_INFLATE_H

#include "builder/source.h"

struct sm_inflate_ops {
    /* So many more bytes of the blob were read; may be NULL. */
    void (*read)(void *arg, size_t size);
    /* A piece of the tar. A failure, SM_ECANCELLED among them, ends it as it is. */
    int (*take)(void *arg, const void *data, size_t size, sm_error *err);
};

/* That the whole blob has the digest it should have (where it has one, and nobody else sees to it)
 * is known at the end only, when all of its tar was taken; whether that is the layer's diff_id is
 * for the caller to see. */
int sm_inflate(struct sm_blob *blob, const struct sm_descriptor *d,
    const struct sm_inflate_ops *ops, void *arg, sm_error *err);

#endif
