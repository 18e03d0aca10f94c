/* Blobs of the store (manifests, configs and layers that were pulled or loaded), and adding to
 * them. */
#ifndef SM_BUILDER_BLOBS_H
#define SM_BUILDER_BLOBS_H

#include "image/index.h"
#include "image/store.h"
#include "util/file.h"

/* The blob, if it is there and has its size; -1 otherwise. */
int sm_store_open_blob(struct sm_imgstore *store, const struct sm_descriptor *d);

/* The blob where it is there: *fd, and nothing to do. Else its partial file, in which an earlier
 * writer may have left something; SM_EBUSY when somebody else has held it for wait_ms. *file must
 * be closed in both cases. */
int sm_store_claim_blob(struct sm_imgstore *store, const struct sm_descriptor *d, int wait_ms,
    struct sm_partial *file, int *fd, sm_error *err);

/* Makes blobs/ and takes the shared lock on it that keeps `prune` away from blobs that no image
 * leads to yet. The lock goes with the descriptor. */
int sm_store_hold_blobs(struct sm_imgstore *store, int *fd, sm_error *err);

#endif
