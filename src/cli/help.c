/* supermachine help [COMMAND...] */
#include <getopt.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"

static int run(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    const struct cli_command *command = &cli_root;
    for (int i = optind; i < argc; i++) {
        const struct cli_command *const *c = command->commands;
        for (; c && *c; c++) {
            const char *space = strrchr((*c)->name, ' ');
            if (strcmp(space ? space + 1 : (*c)->name, argv[i]) == 0)
                break;
        }
        if (!c || !*c)
            return cli_fail_usage(&cli_root, "unknown command '%s'", argv[i]);
        command = *c;
    }
    cli_print_help(command);
    return CLI_EXIT_OK;
}

const struct cli_command cli_help = {
    .name = "help",
    .synopsis = "[COMMAND...]",
    .summary = "Explain a command.",
    .run = run,
};
