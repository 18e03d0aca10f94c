/* supermachine version */
#include <getopt.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/options.h"

static int run(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind]);
    printf("supermachine %s\n", sm_version());
    return CLI_EXIT_OK;
}

const struct cli_command cli_version = {
    .name = "version",
    .synopsis = "",
    .summary = "Print the version.",
    .run = run,
};
