/* The options that say where an image comes from. See image_options.h. */
#include "cli/image_options.h"

#include <getopt.h>
#include <string.h>

#include "cli/options.h"

static const struct cli_setting settings[] = {
    {CLI_SETS_TEXT(OPT_PLATFORM, sm_image_options, platform)},
    {CLI_SETS_TEXT(OPT_TLS_CA, sm_image_options, tls_ca)},
    {CLI_SETS_TEXT(OPT_AUTHFILE, sm_image_options, authfile)},
    {CLI_SETS_FLAG(OPT_INSECURE_REGISTRY, sm_image_options, insecure_registry)},
    {0},
};

bool cli_take_image_option(
    const struct cli_command *self, int id, sm_image_options *options, int *status)
{
    *status = CLI_EXIT_OK;
    if (id != OPT_PULL)
        return cli_take_setting(self, settings, id, options, status);
    if (strcmp(optarg, "missing") == 0)
        options->pull = SM_PULL_MISSING;
    else if (strcmp(optarg, "always") == 0)
        options->pull = SM_PULL_ALWAYS;
    else if (strcmp(optarg, "never") == 0)
        options->pull = SM_PULL_NEVER;
    else
        *status = cli_fail_usage(self, "'--pull %s' is none of missing, always, never", optarg);
    return true;
}
