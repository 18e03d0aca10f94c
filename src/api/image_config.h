/* What an OCI image config says about running the image (image-spec, config.md, "config"). */
#ifndef SM_API_IMAGE_CONFIG_H
#define SM_API_IMAGE_CONFIG_H

#include <supermachine.h>

#include "util/strv.h"

struct sm_image_config {
    struct sm_strv entrypoint, cmd, env;
    struct sm_strv exposed; /* "PORT[/PROTOCOL]", not checked */
    char *user;             /* "": root */
    char *working_dir;      /* "": / */
    int stop_signal;        /* SIGTERM where the image names none that we know */
};

/* `json` is hostile. On failure *config is empty. */
int sm_image_config_parse(struct sm_image_config *config, const char *json, sm_error *err);
void sm_image_config_clear(struct sm_image_config *config);

/* Number of a signal by name ("SIGTERM", "TERM", "SIGRTMIN+3") or number; 0: there is none. */
int sm_signal_number(const char *name);

/* The argv and env that an exec of this image runs with, see sm_exec_config. Both must be empty; what
 * was put into them is the caller's even after a failure. */
int sm_image_config_argv(const struct sm_image_config *image, const sm_exec_config *exec,
    struct sm_strv *argv, sm_error *err);
int sm_image_config_env(const struct sm_image_config *image, const sm_exec_config *exec,
    struct sm_strv *env, sm_error *err);

#endif
