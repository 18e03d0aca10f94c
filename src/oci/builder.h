/* Running `supermachine-image build`: the library's end of the pipe. */
#ifndef SM_OCI_BUILDER_H
#define SM_OCI_BUILDER_H

#include "oci/reference.h"
#include "oci/store.h"

/* Starts the builder, passes its progress on and waits for its end; digest is the image's then. The
 * builder does not outlive the call, nor the calling process. */
int sm_builder_run(struct sm_imgstore *store, const char *reference,
    const struct sm_ensure_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err);

#endif
