/* supermachine snapshot inspect|verify: snapshot files. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/options.h"

enum { OPT_FORMAT = 256 };

static const struct cli_option inspect_options[] = {
    {OPT_FORMAT, "format", "text|json", "how to print it (text); json has every register"},
    {0},
};

static void print_scalar(const char *name, const json_t *value)
{
    if (json_is_string(value))
        printf("%-28s %s\n", name, json_string_value(value));
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
    bool json = false;
    int id;
    while ((id = cli_next_option(self, argc, argv)) > 0) {
        json = strcmp(optarg, "json") == 0;
        if (!json && strcmp(optarg, "text") != 0)
            return cli_fail_usage(self, "unknown format '%s'", optarg);
    }
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

static const struct cli_command *const commands[] = {&snapshot_inspect, &snapshot_verify, NULL};

const struct cli_command cli_snapshot = {
    .name = "snapshot",
    .synopsis = "COMMAND",
    .summary = "Look at snapshots.",
    .commands = commands,
};
