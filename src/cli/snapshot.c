/* supermachine snapshot create|ls|rm|inspect|verify. */
#include <getopt.h>
#include <jansson.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/values.h"
#include "cli/store.h"

static const struct cli_option inspect_options[] = {
    CLI_FORMAT_OPTION("text|json", "how to print it (text); json has every register"),
    {0},
};

static void print_scalar(const char *name, const json_t *value)
{
    if (json_is_string(value))
        cli_print("%-28s %s\n", name, json_string_value(value));
    else if (json_is_integer(value))
        printf("%-28s %lld\n", name, (long long)json_integer_value(value));
    else if (json_is_null(value))
        printf("%-28s -\n", name);
    else
        printf("%-28s %s\n", name, json_is_true(value) ? "yes" : "no");
}

/* Scalars as they are, lists by their length, one level of objects by dotted names. */
static void print_text(json_t *root, const char *prefix)
{
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value)
    {
        char name[64];
        snprintf(name, sizeof(name), "%s%s%s", prefix, *prefix ? "." : "", key);
        if (json_is_object(value))
            print_text(value, name);
        else if (json_is_array(value))
            printf("%-28s %zu\n", name, json_array_size(value));
        else
            print_scalar(name, value);
    }
}

static int inspect(const struct cli_command *self, int argc, char **argv)
{
    bool json;
    int id = cli_take_format(self, argc, argv, "text", &json);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (argc - optind != 1)
        return cli_fail_usage(self, "name one file");

    sm_error err;
    char *text;
    if (sm_snapshot_inspect(argv[optind], &text, &err))
        return cli_fail_error(&err);
    if (json) {
        puts(text);
    } else {
        json_t *root = json_loads(text, 0, NULL);
        print_text(root, "");
        json_decref(root);
    }
    free(text);
    return CLI_EXIT_OK;
}

static const struct cli_command snapshot_inspect = {
    .name = "snapshot inspect",
    .synopsis = "FILE",
    .summary = "Print what a snapshot file holds; any SMSNAP v8 file, of any architecture.",
    .options = inspect_options,
    .run = inspect,
};

static int verify(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind == argc)
        return cli_fail_usage(self, "which files?");
    int status = CLI_EXIT_OK;
    for (int i = optind; i < argc; i++) {
        sm_error err;
        if (sm_snapshot_verify(argv[i], &err))
            status = cli_fail_error(&err);
        else
            printf("%s: ok\n", argv[i]);
    }
    return status;
}

static const struct cli_command snapshot_verify = {
    .name = "snapshot verify",
    .synopsis = "FILE...",
    .summary = "Compare snapshot files with their checksums.",
    .run = verify,
};

/* ---- those of the store -------------------------------------------------------------------- */

static const struct cli_option ls_options[] = {
    CLI_FORMAT_OPTION("table|json", "how to print the list (table)"),
    {0},
};

static void print_time(int64_t seconds, char text[32])
{
    time_t t = (time_t)seconds;
    struct tm tm;
    if (!localtime_r(&t, &tm) || !strftime(text, 32, "%Y-%m-%d %H:%M", &tm))
        strcpy(text, "-");
}

static void list_one(void *arg, const sm_store_snapshot *s)
{
    json_t *all = arg;
    if (all) {
        json_array_append_new(
            all, json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:i, s:I, s:I, s:I}", "key", s->key,
                     "path", s->path, "image", s->source, "digest", s->digest, "state", s->state,
                     "memory_bytes", (json_int_t)s->memory_bytes, "vcpus", (int)s->vcpus,
                     "disk_bytes", (json_int_t)s->disk_bytes, "created", (json_int_t)s->created,
                     "used", (json_int_t)s->used));
        return;
    }
    char memory[32], disk[32], used[32];
    print_time(s->used, used);
    cli_print("%-29s %-8s %8s %4u %9s  %-16s  %s\n", s->key, s->state,
        cli_format_size(s->memory_bytes, memory), s->vcpus, cli_format_size(s->disk_bytes, disk),
        used, s->source);
}

static int ls(const struct cli_command *self, int argc, char **argv)
{
    bool json;
    int id = cli_take_format(self, argc, argv, "table", &json);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind]);
    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    json_t *all = json ? json_array() : NULL;
    if (!json)
        printf("%-29s %-8s %8s %4s %9s  %-16s  %s\n", "KEY", "STATE", "MEMORY", "CPUS", "DISK",
            "USED", "IMAGE");
    int rc = sm_store_snapshots(store, list_one, all, &err);
    sm_store_close(store);
    if (!rc && json)
        cli_print_json(all);
    json_decref(all);
    return rc ? cli_fail_error(&err) : CLI_EXIT_OK;
}

static const struct cli_command snapshot_ls = {
    .name = "snapshot ls",
    .synopsis = "",
    .summary = "List the baked snapshots.",
    .options = ls_options,
    .run = ls,
};

static int rm(const struct cli_command *self, int argc, char **argv)
{
    return cli_remove_each(self, argc, argv, "which snapshots?", sm_store_snapshot_remove);
}

static const struct cli_command snapshot_rm = {
    .name = "snapshot rm",
    .synopsis = "KEY...",
    .summary = "Remove baked snapshots, by key or unique prefix.",
    .run = rm,
};

/* ---- a VM that runs ------------------------------------------------------------------------ */

static int create(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (argc - optind != 2)
        return cli_fail_usage(self, "name a VM and a file");
    /* The VM's process may be in another directory. */
    const char *file = argv[optind + 1];
    char path[PATH_MAX], here[PATH_MAX];
    if (*file == '/')
        snprintf(path, sizeof(path), "%s", file);
    else if (!getcwd(here, sizeof(here)) ||
             (size_t)snprintf(path, sizeof(path), "%s/%s", here, file) >= sizeof(path))
        return cli_fail("the path of '%s' is too long", file);
    if (strchr(path, '\n'))
        return cli_fail("a snapshot's path cannot have a line break");
    sm_snapshot_stats stats;
    int status = cli_control_snapshot(argv[optind], path, &stats);
    if (!status)
        cli_print_snapshot_stats(&stats);
    return status;
}

static const struct cli_command snapshot_create = {
    .name = "snapshot create",
    .synopsis = "VM FILE",
    .summary = "Capture a VM that 'run --name VM' holds, and let it run on.",
    .notes = "'supermachine run --snapshot FILE IMAGE' goes on from there, any number of times;\n"
             "a COMMAND behind it runs beside what was captured.\n",
    .run = create,
};

static const struct cli_command *const commands[] = {
    &snapshot_create,
    &snapshot_ls,
    &snapshot_rm,
    &snapshot_inspect,
    &snapshot_verify,
    NULL,
};

const struct cli_command cli_snapshot = {
    .name = "snapshot",
    .synopsis = "COMMAND",
    .summary = "Look after snapshots.",
    .commands = commands,
};
