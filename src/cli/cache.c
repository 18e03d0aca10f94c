/* supermachine cache ls|prune: what the store takes on the disk, and giving it back. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/values.h"
#include "cli/store.h"
#include "util/bytes.h"

static const struct cli_option ls_options[] = {
    CLI_FORMAT_OPTION("table|json", "how to print the list (table)"),
    {0},
};

static int ls(const struct cli_command *self, int argc, char **argv)
{
    bool json;
    int id = cli_take_format(self, argc, argv, "table", &json);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind]);
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    sm_store_usage usage;
    sm_store_measure(store, &usage);
    sm_store_close(store);

    const struct {
        const char *name;
        const sm_disk_usage *part;
    } rows[] = {{"blobs", &usage.blobs}, {"rootfs", &usage.rootfs}, {"snapshots", &usage.snapshots},
        {"other", &usage.other}};
    json_t *all = json_object();
    if (!json)
        printf("%-12s %7s %9s\n", "WHAT", "FILES", "SIZE");
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        const sm_disk_usage *part = rows[i].part;
        char size[32];
        if (json)
            json_object_set_new(all, rows[i].name,
                json_pack("{s:I, s:I}", "files", (json_int_t)part->files, "bytes",
                    (json_int_t)part->bytes));
        else
            printf("%-12s %7llu %9s\n", rows[i].name, (unsigned long long)part->files,
                cli_format_size(part->bytes, size));
    }
    if (json)
        cli_print_json(all);
    json_decref(all);
    return CLI_EXIT_OK;
}

static const struct cli_command cache_ls = {
    .name = "cache ls",
    .synopsis = "",
    .summary = "Show what the store takes on the disk.",
    .notes = "'image prune' gives back blobs and root filesystems, 'cache prune' snapshots.\n",
    .options = ls_options,
    .run = ls,
};

enum { OPT_MAX_SIZE = 0x100, OPT_MAX_AGE };

static const struct cli_option prune_options[] = {
    {OPT_MAX_SIZE, "max-size", "SIZE", "keep at most this much of snapshots (0: none)"},
    {OPT_MAX_AGE, "unused-for", "TIME", "remove what was not used for this time, such as 12h"},
    {0},
};

static int prune(const struct cli_command *self, int argc, char **argv)
{
    uint64_t max_bytes = UINT64_MAX, max_age_s = UINT64_MAX;
    int id, ms;
    while ((id = cli_next_option(self, argc, argv)) > 0) {
        if (id == OPT_MAX_SIZE && !cli_parse_size(optarg, &max_bytes))
            return cli_fail_usage(self, "'--max-size %s' is not a size such as 10g", optarg);
        if (id == OPT_MAX_AGE) {
            if (!cli_parse_duration_ms(optarg, &ms))
                return cli_fail_usage(self, "'--unused-for %s' is not a time such as 12h", optarg);
            max_age_s = (uint64_t)ms / 1000;
        }
    }
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind]);
    if (max_bytes == UINT64_MAX && max_age_s == UINT64_MAX)
        max_bytes = 0;

    sm_store *store;
    sm_error err;
    size_t removed;
    uint64_t freed;
    if (sm_store_open(&store, NULL, &err))
        return cli_fail_error(&err);
    int rc = sm_store_prune(store, max_bytes, max_age_s, &removed, &freed, &err);
    sm_store_close(store);
    char size[32];
    if (!rc || removed)
        printf("removed %zu snapshots, %s\n", removed, cli_format_size(freed, size));
    return rc ? cli_fail_error(&err) : CLI_EXIT_OK;
}

static const struct cli_command cache_prune = {
    .name = "cache prune",
    .synopsis = "",
    .summary = "Remove baked snapshots; all of them, or those that the options choose.",
    .notes = "VMs that run go on. What was removed is baked again when it is needed.\n",
    .options = prune_options,
    .run = prune,
};

static const struct cli_command *const commands[] = {&cache_ls, &cache_prune, NULL};

const struct cli_command cli_cache = {
    .name = "cache",
    .synopsis = "COMMAND",
    .summary = "See what the store takes on the disk, and give it back.",
    .commands = commands,
};
