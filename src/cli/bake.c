/* supermachine bake: makes the snapshot that `run` restores. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/image_options.h"
#include "cli/memory_limit.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/values.h"
#include "cli/progress.h"
#include "cli/vm_options.h"

enum { OPT_WARMUP = 0x200, OPT_UNTIL, OPT_AGAIN };

static const struct cli_option options[] = {
    CLI_VM_OPTIONS,
    CLI_PULL_OPTION,
    CLI_IMAGE_OPTIONS,
    {OPT_WARMUP, "warmup", "COMMAND", "run this shell command first and keep the state it leaves"},
    {OPT_UNTIL, "until", "WHEN", "start the image's own command and bake it running: when it is"},
    {OPT_AGAIN, "again", NULL, "bake even if the snapshot is there"},
    {'q', "quiet", NULL, "no progress"},
    {0},
};

struct bake {
    sm_vm_config vm;
    sm_image_options image;
    sm_bake_options options;
    const char *warmup[4];
    bool quiet;
};

static int take_option(const struct cli_command *self, struct bake *bake, int id)
{
    int status;
    int ms;
    if (cli_take_vm_option(self, id, &bake->vm, &status) ||
        cli_take_image_option(self, id, &bake->image, &status))
        return status;
    switch (id) {
    case OPT_WARMUP:
        bake->warmup[0] = "sh";
        bake->warmup[1] = "-c";
        bake->warmup[2] = optarg;
        bake->options.warmup = bake->warmup;
        return CLI_EXIT_OK;
    case OPT_UNTIL:
        if (strcmp(optarg, "listening") == 0) {
            bake->options.until = SM_BAKE_LISTENING;
        } else if (strcmp(optarg, "idle") == 0) {
            bake->options.until = SM_BAKE_IDLE;
        } else if (cli_parse_duration_ms(optarg, &ms) && ms >= 1000 && ms <= 3600000) {
            bake->options.until = SM_BAKE_SECONDS;
            bake->options.seconds = (unsigned)ms / 1000;
        } else {
            return cli_fail_usage(self,
                "'--until %s' is neither 'listening' nor 'idle' nor 1 to 3600 seconds", optarg);
        }
        return CLI_EXIT_OK;
    case OPT_AGAIN:
        bake->options.again = true;
        return CLI_EXIT_OK;
    default: /* --quiet */
        bake->quiet = true;
        return CLI_EXIT_OK;
    }
}

static int bake_image(struct bake *bake, const char *reference)
{
    sm_error err;
    sm_store *store = NULL;
    sm_image *image = NULL;
    bool baked = false;
    sm_snapshot_stats stats = {0};
    sm_progress_fn *progress = cli_progress(bake->quiet);
    bake->vm.progress = progress;
    bake->image.progress = progress;
    int rc = sm_store_open(&store, NULL, &err);
    if (!rc)
        rc = sm_image_open(store, reference, &bake->image, &image, &err);
    if (!rc) {
        cli_limit_memory(bake->vm.memory_bytes);
        rc = sm_image_bake(image, &bake->vm, &bake->options, &baked, &stats, &err);
    }
    cli_progress_end();
    sm_image_close(image);
    sm_store_close(store);
    if (rc)
        return cli_fail_error(&err);
    if (baked)
        cli_print_snapshot_stats(&stats);
    else
        printf("baked already\n");
    return CLI_EXIT_OK;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct bake bake = {0};
    int id;
    while ((id = cli_next_option(self, argc, argv)) > 0) {
        int status = take_option(self, &bake, id);
        if (status)
            return status;
    }
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (argc - optind != 1)
        return cli_fail_usage(self, "name one image");
    return bake_image(&bake, argv[optind]);
}

const struct cli_command cli_bake = {
    .name = "bake",
    .synopsis = "IMAGE",
    .summary = "Make the snapshot that 'run' restores, ahead of time or warmed up.",
    .notes =
        "WHEN is 'listening' (on a TCP port), 'idle', or a number of seconds. 'run' without a\n"
        "command then restores the image's command running. With --warmup every 'run' starts from\n"
        "the state that the warm-up left, with what it has started in the background. Without\n"
        "either 'run' begins with nothing run again. A snapshot serves runs with the same memory,\n"
        "CPUs and kernel.\n",
    .options = options,
    .run = run,
};
