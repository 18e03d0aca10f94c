/* supermachine doctor: what this host lacks, and what to do about it. */
#include <getopt.h>
#include <stdio.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/options.h"

static void print_check(void *arg, const sm_check *check)
{
    static const char *const words[] = {
        [SM_CHECK_OK] = "ok", [SM_CHECK_WARNING] = "warning", [SM_CHECK_FAILED] = "FAILED"};
    printf("%-8s %-14s %s\n", words[check->status], check->name, check->detail);
    if (check->advice)
        printf("%-8s %-14s -> %s\n", "", "", check->advice);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind]);
    if (sm_host_check(NULL, print_check, NULL) == SM_CHECK_FAILED)
        return cli_fail("microVMs cannot run here until what failed above is mended");
    return CLI_EXIT_OK;
}

const struct cli_command cli_doctor = {
    .name = "doctor",
    .synopsis = "",
    .summary = "Check whether this host can run microVMs, and say what to do.",
    .notes = "Ends with 0 when microVMs can run (warnings included), with 125 when they cannot.\n",
    .run = run,
};
