/* What an OCI image config says about running the image (image-spec, config.md, "config"). */
#ifndef SM_IMAGE_IMAGE_CONFIG_H
#define SM_IMAGE_IMAGE_CONFIG_H

#include <supermachine.h>

#include "util/strv.h"

struct sm_oci_config {
    struct sm_strv entrypoint, cmd, env;
    struct sm_strv exposed; /* "PORT[-PORT][/PROTOCOL]", not checked */
    char *user;             /* "": root */
    char *working_dir;      /* absolute and without ".."; "": / */
    int stop_signal;        /* 0 where the image names none that we know */
};

/* `json` is hostile. On failure *config is empty. */
int sm_oci_config_parse(struct sm_oci_config *config, const char *json, sm_error *err);
void sm_oci_config_clear(struct sm_oci_config *config);

/* What the image exposes, port by port: "PORT/tcp", "PORT/udp". Refuses what is none; an image that
 * exposes such is run all the same where nobody asks for these ports. `ports` is the caller's, also
 * after a failure. */
int sm_oci_exposed_ports(const struct sm_oci_config *config, struct sm_strv *ports, sm_error *err);

/* Number of a signal by name ("SIGTERM", "TERM", "SIGRTMIN+3") or number; 0: there is none. */
int sm_signal_number(const char *name);

#endif
