/* The options that say where an image comes from; `run`, `bake` and `pull` share them. */
#ifndef SM_CLI_IMAGE_OPTIONS_H
#define SM_CLI_IMAGE_OPTIONS_H

#include "cli/cli.h"

enum { OPT_PULL = 0x180, OPT_PLATFORM, OPT_TLS_CA, OPT_AUTHFILE, OPT_INSECURE_REGISTRY };

#define CLI_REGISTRY_OPTIONS                                                                       \
    {OPT_TLS_CA, "tls-ca", "FILE", "trust the CAs of this PEM file for registries"},               \
        {OPT_AUTHFILE, "authfile", "FILE",                                                         \
            "credentials of registries (those of podman and docker)"},                             \
    {                                                                                              \
        OPT_INSECURE_REGISTRY, "insecure-registry", NULL, "accept plain HTTP and unverified TLS"   \
    }

#define CLI_IMAGE_OPTIONS                                                                          \
    {OPT_PLATFORM, "platform", "OS/ARCH", "of images for several platforms (the host's)"},         \
        CLI_REGISTRY_OPTIONS

#define CLI_PULL_OPTION                                                                            \
    {                                                                                              \
        OPT_PULL, "pull", "WHEN",                                                                  \
            "ask the registry: missing (when we have no such image), always, never"                \
    }

/* Takes the option, whose value is in optarg, if it is one of these. *status: 0, or the exit code
 * after a message. */
bool cli_take_image_option(
    const struct cli_command *self, int id, sm_image_options *options, int *status);

#endif
