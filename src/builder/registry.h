/* An image in a registry, as a source: manifests and blobs come over the network into the store's
 * blobs/ and are read from there, layers while they are still coming. */
#ifndef SM_BUILDER_REGISTRY_H
#define SM_BUILDER_REGISTRY_H

#include "builder/credentials.h"
#include "builder/source.h"
#include "image/fetch.h"
#include "image/store.h"

/* Asks the registry what the reference means: *top is its manifest or index. */
int sm_registry_open(struct sm_imgstore *store, const struct sm_reference *ref,
    const struct sm_credentials *credentials, const struct sm_fetch *fetch,
    struct sm_source **source, struct sm_descriptor *top, sm_error *err);

#endif
