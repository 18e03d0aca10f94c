/* Running `supermachine-image build`: the library's end of the pipe. */
#ifndef SM_IMAGE_CLIENT_H
#define SM_IMAGE_CLIENT_H

#include "image/reference.h"
#include "image/store.h"

struct sm_ensure_options {
    const char *platform;     /* NULL: the host's */
    sm_progress_fn *progress; /* NULL: silent */
    void *progress_arg;
    enum sm_pull_policy pull;
    /* path of supermachine-image; NULL: looked up as docs/architecture.md says */
    const char *builder;
    int cancel_fd;      /* becomes readable: give up with SM_ECANCELLED; <= 0: none */
    const char *tls_ca; /* PEM file with further roots for registries; NULL: the system's only */
    bool insecure_registry; /* plain HTTP and unverified TLS will do */
    const char *authfile;   /* NULL: where container tools look */
};

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
