/* The options that say where an image comes from. See image_options.h. */
#include "cli/image_options.h"

#include <getopt.h>
#include <string.h>

bool cli_take_image_option(
    const struct cli_command *self, int id, sm_image_options *options, int *status)
{
    *status = CLI_EXIT_OK;
    switch (id) {
    case OPT_PULL:
        if (strcmp(optarg, "missing") == 0)
            options->pull = SM_PULL_MISSING;
        else if (strcmp(optarg, "always") == 0)
            options->pull = SM_PULL_ALWAYS;
        else if (strcmp(optarg, "never") == 0)
            options->pull = SM_PULL_NEVER;
        else
            *status = cli_fail_usage(self, "'--pull %s' is none of missing, always, never", optarg);
        return true;
    case OPT_PLATFORM:
        options->platform = optarg;
        return true;
    case OPT_TLS_CA:
        options->tls_ca = optarg;
        return true;
    case OPT_AUTHFILE:
        options->authfile = optarg;
        return true;
    case OPT_INSECURE_REGISTRY:
        options->insecure_registry = true;
        return true;
    default:
        return false;
    }
}
