/*
 * The library's end of `supermachine-image`, which makes images ready in a process of its own. The
 * program does not outlive the call, nor the calling process.
 */
#ifndef SM_IMAGE_CLIENT_H
#define SM_IMAGE_CLIENT_H

#include "image/fetch.h"
#include "image/reference.h"
#include "image/store.h"

/* How it is called; all of it may be zero. */
struct sm_builder_options {
    struct sm_fetch fetch;
    sm_progress_fn *progress; /* NULL: silent */
    void *progress_arg;
    int cancel_fd;       /* becomes readable: give up with SM_ECANCELLED; <= 0: none */
    const char *program; /* its path; NULL: looked up as docs/architecture.md says */
};

/* The descriptor at which the program finds the stream that is meant by the path "-". */
#define SM_BUILDER_STREAM 3

/* The longest password that it takes. */
#define SM_BUILDER_MAX_SECRET 4096

/* `supermachine-image build`; digest is the image's then. */
int sm_builder_build(struct sm_imgstore *store, const char *reference,
    const struct sm_builder_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err);

/* `supermachine-image save` and `load`, see builder/save.h and load.h. The path "-" means our
 * standard output or input. */
int sm_builder_save(struct sm_imgstore *store, const char *reference, enum sm_archive_format format,
    const char *path, sm_error *err);
int sm_builder_load(struct sm_imgstore *store, const char *path,
    const struct sm_builder_options *options, char **loaded, sm_error *err);

/* `supermachine-image login` and `logout`; the password goes over its standard input. */
int sm_builder_login(const char *host, const char *user, const char *password,
    const struct sm_builder_options *options, sm_error *err);
int sm_builder_logout(const char *host, const struct sm_builder_options *options, sm_error *err);

#endif
