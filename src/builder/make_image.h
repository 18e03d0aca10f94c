/* Building an image of the store from a reference: what `supermachine-image build` does. */
#ifndef SM_BUILDER_MAKE_IMAGE_H
#define SM_BUILDER_MAKE_IMAGE_H

#include "image/reference.h"
#include "image/store.h"
#include "rootfs/rootfs.h"

struct sm_build_options {
    const char *platform;
    const char *
        source; /* what to record as its origin, where the reference will lead nowhere; NULL: the reference */
    struct sm_rootfs_limits limits;
    sm_progress_fn *progress; /* NULL: silent */
    void *progress_arg;
    const char *tls_ca, *authfile;
    bool insecure_registry;
    unsigned stall_s; /* how long a transfer may stand still; 0: the default */
};

/* Makes the image ready in the store; digest is then its manifest's. A reference that is the digest of an image of
 * the store makes that one anew. */
int sm_build(struct sm_imgstore *store, const char *reference,
    const struct sm_build_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err);

#endif
