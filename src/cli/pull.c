/* supermachine pull: gets images and makes them ready to run. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/image_options.h"
#include "cli/options.h"
#include "cli/progress.h"
#include "cli/store.h"

static const struct cli_option options[] = {
    CLI_IMAGE_OPTIONS,
    {'q', "quiet", NULL, "no progress, only the digest"},
    {0},
};

/* Where nobody watches: a line when something new begins. */
static void print_lines(void *arg, const sm_progress *p)
{
    char *last = arg;
    if (p->layer || strncmp(last, p->what, 127) == 0)
        return;
    snprintf(last, 128, "%s", p->what);
    fprintf(stderr, "%s\n", p->what);
}

static int pull(sm_store *store, const char *reference, sm_image_options how, bool quiet)
{
    char last[128] = "";
    sm_image *image = NULL;
    sm_error err;
    how.progress = cli_progress(quiet);
    if (!how.progress && !quiet) {
        how.progress = print_lines;
        how.progress_arg = last;
    }
    how.pull = SM_PULL_ALWAYS;
    int rc = sm_image_open(store, reference, &how, &image, &err);
    cli_progress_end();
    if (rc)
        return cli_fail_error(&err);
    printf("%s\n", sm_image_digest(image));
    sm_image_close(image);
    return CLI_EXIT_OK;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    sm_image_options how = {0};
    bool quiet = false;
    int id, status = CLI_EXIT_OK;
    while ((id = cli_next_option(self, argc, argv)) > 0) {
        if (id == 'q')
            quiet = true;
        else if (cli_take_image_option(self, id, &how, &status) && status)
            return status;
    }
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind == argc)
        return cli_fail_usage(self, "which image?");
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    for (int i = optind; i < argc && !status; i++)
        status = pull(store, argv[i], how, quiet);
    sm_store_close(store);
    return status;
}

const struct cli_command cli_pull = {
    .name = "pull",
    .synopsis = "IMAGE...",
    .summary = "Get images from a registry and make them ready to run.",
    .notes =
        "A name without a registry in front means docker.io. Digests are printed on standard output.\n",
    .options = options,
    .run = run,
};
