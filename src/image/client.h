/* Running `supermachine-image build`: the library's end of the pipe. */
#ifndef SM_IMAGE_CLIENT_H
#define SM_IMAGE_CLIENT_H

#include "image/reference.h"
#include "image/store.h"

/* Starts the builder, passes its progress on and waits for its end; digest is the image's then. The
 * builder does not outlive the call, nor the calling process. */
int sm_builder_run(struct sm_imgstore *store, const char *reference,
    const struct sm_ensure_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err);

/* The descriptor at which the program finds the stream that is meant by the path "-". */
#define SM_BUILDER_STREAM 3

/* `supermachine-image save` and `load`, see transfer.h. The path "-" means our standard output or input. */
int sm_builder_save(
    struct sm_imgstore *store, const char *reference, const char *path, sm_error *err);
int sm_builder_load(struct sm_imgstore *store, const char *path,
    const struct sm_image_options *options, char **loaded, sm_error *err);

/* `supermachine-image login` and `logout`; the password goes over a pipe. */
int sm_builder_login(const char *host, const char *user, const char *password,
    const struct sm_image_options *options, sm_error *err);
int sm_builder_logout(const char *host, const struct sm_image_options *options, sm_error *err);

#endif
