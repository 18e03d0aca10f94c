/* Making an image of the store ready, from a reference: what `supermachine-image build` does. */
#ifndef SM_BUILDER_MAKE_IMAGE_H
#define SM_BUILDER_MAKE_IMAGE_H

#include "image/fetch.h"
#include "image/reference.h"
#include "image/store.h"

struct sm_parsers;

struct sm_make_options {
    struct sm_fetch fetch;
    /* what to record as its origin, where the reference will lead nowhere; NULL: the reference */
    const char *source;
    struct sm_parsers *parsers; /* see parsers.h */
    int stream;                 /* where an archive whose path is "-" is read; 0: nowhere */
    sm_progress_fn *progress;   /* NULL: silent */
    void *progress_arg;
};

/* Makes the image ready in the store; digest is then its manifest's. A reference that is the digest
 * of an image of the store makes that one anew. */
int sm_make_image(struct sm_imgstore *store, const char *reference,
    const struct sm_make_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err);

#endif
