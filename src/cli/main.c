/* Finds the subcommand and runs it. */
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "util/bytes.h"

static const struct cli_command *const commands[] = {
    &cli_run,
    &cli_pull,
    &cli_login,
    &cli_logout,
    &cli_bake,
    &cli_image,
    &cli_port,
    &cli_snapshot,
    &cli_cache,
    &cli_doctor,
    &cli_version,
    &cli_help,
    NULL,
};

static const struct cli_option root_options[] = {
    {'v', "version", NULL, "print the version"},
    {0},
};

/* What docker and podman have at the top. */
static const char *const elsewhere[][2] = {
    {"images", "image ls"},
    {"rmi", "image rm"},
    {"tag", "image tag"},
    {"inspect", "image inspect"},
    {"history", "image history"},
    {"save", "image save"},
    {"load", "image load"},
    {"commit", "snapshot create"},
};

const struct cli_command cli_root = {
    .name = "",
    .synopsis = "COMMAND",
    .summary = "Run OCI images as hardware-isolated microVMs.",
    .notes = "'supermachine COMMAND --help' tells more.\n",
    .options = root_options,
    .commands = commands,
};

/* "ls" of "image ls". */
static const char *last_word(const char *name)
{
    const char *space = strrchr(name, ' ');
    return space ? space + 1 : name;
}

static int dispatch(const struct cli_command *group, int argc, char **argv)
{
    optind = 0;
    int id = cli_next_option(group, argc, argv);
    if (id == 'v') {
        optind = 0;
        return cli_version.run(&cli_version, 1, argv);
    }
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    argc -= optind;
    argv += optind;
    if (argc == 0) {
        cli_print_help(group);
        return CLI_EXIT_FAILURE;
    }
    for (const struct cli_command *const *c = group->commands; *c; c++) {
        if (strcmp(last_word((*c)->name), argv[0]) == 0) {
            optind = 0;
            return (*c)->commands ? dispatch(*c, argc, argv) : (*c)->run(*c, argc, argv);
        }
    }
    for (size_t i = 0; group == &cli_root && i < SM_ARRAY_LEN(elsewhere); i++) {
        if (strcmp(elsewhere[i][0], argv[0]) == 0)
            return cli_fail_usage(
                group, "unknown command '%s'; here it is '%s'", argv[0], elsewhere[i][1]);
    }
    return cli_fail_usage(
        group, "unknown command '%s%s%s'", group->name, *group->name ? " " : "", argv[0]);
}

int main(int argc, char **argv)
{
    /* What the library opens must not become 0, 1 or 2. */
    for (int fd = 0; fd <= 2; fd++) {
        if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
            return CLI_EXIT_FAILURE;
    }
    /* Nor is what the caller left open for what we start. */
    close_range(3, ~0U, CLOSE_RANGE_CLOEXEC);
    /* A reader of our own messages that went away is an error of write(2), not the end of us. */
    signal(SIGPIPE, SIG_IGN);
    int status = argc > 0 ? dispatch(&cli_root, argc, argv) : CLI_EXIT_FAILURE;
    if (fflush(stdout) || ferror(stdout))
        status = status ? status : cli_fail("cannot write the output");
    return status;
}
