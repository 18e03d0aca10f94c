/* The tar of a layer: its blob read, checked and decompressed. */
#ifndef SM_BUILDER_INFLATE_H
#define SM_BUILDER_INFLATE_H

#include "builder/plan.h"

struct sm_inflate_ops {
    /* The blob is open, and has so many bytes; may be NULL. */
    void (*opened)(void *arg, uint64_t size);
    /* So many more of them were read; may be NULL. */
    void (*read)(void *arg, size_t size);
    /* A piece of the tar. A failure, SM_ECANCELLED among them, ends it as it is. */
    int (*take)(void *arg, const void *data, size_t size, sm_error *err);
};

/* That the whole blob has the digest it should have is known at the end only, when all of its tar
 * was taken; whether that is the layer's diff_id is for the caller to see. */
int sm_inflate(struct sm_source *source, const struct sm_layer *layer,
    const struct sm_inflate_ops *ops, void *arg, sm_error *err);

#endif
