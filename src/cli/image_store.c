/* supermachine image tag|prune|history|save|load: names, garbage, what an image was made by,
 * archives. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/values.h"
#include "cli/progress.h"
#include "cli/store.h"
#include "util/archive_format.h"
#include "util/text.h"

static int tag(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (argc - optind != 2)
        return cli_fail_usage(self, "an image and a name are needed");
    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    int rc = sm_store_tag(store, argv[optind], argv[optind + 1], &err);
    sm_store_close(store);
    return rc ? cli_fail_error(&err) : CLI_EXIT_OK;
}

const struct cli_command cli_image_tag = {
    .name = "image tag",
    .synopsis = "IMAGE NAME",
    .summary = "Give an image of the store a further name.",
    .run = tag,
};

static const struct cli_option prune_options[] = {
    {'a', "all", NULL, "images without a name, too"},
    {0},
};

static int prune(const struct cli_command *self, int argc, char **argv)
{
    bool all = false;
    int id;
    while ((id = cli_next_option(self, argc, argv)) > 0)
        all = true;
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind]);
    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    sm_prune_result result;
    int rc = sm_store_prune_images(store, all, &result, &err);
    sm_store_close(store);
    char size[32];
    if (!rc || result.images || result.bytes)
        printf("removed %u images, %u root filesystems, %u blobs: %s\n", result.images,
            result.rootfs, result.blobs, cli_format_size(result.bytes, size));
    return rc ? cli_fail_error(&err) : CLI_EXIT_OK;
}

const struct cli_command cli_image_prune = {
    .name = "image prune",
    .synopsis = "",
    .summary = "Remove what no image of the store needs.",
    .options = prune_options,
    .run = prune,
};

static const struct cli_option history_options[] = {
    CLI_FORMAT_OPTION("table|json", "how to print it (table)"),
    {0},
};

static const char *text_of(const json_t *entry, const char *key)
{
    const char *text = json_string_value(json_object_get(entry, key));
    return text ? text : "";
}

static void print_history(const json_t *history)
{
    size_t i;
    json_t *entry;
    printf("%-20s %-6s %s\n", "CREATED", "LAYER", "CREATED BY");
    json_array_foreach(history, i, entry)
    {
        bool empty = json_is_true(json_object_get(entry, "empty_layer"));
        char *by = strdup(text_of(entry, "created_by"));
        if (by)
            sm_text_clean(by, false); /* one line each */
        cli_print(
            "%-20.20s %-6s %s\n", text_of(entry, "created"), empty ? "no" : "yes", by ? by : "");
        free(by);
    }
}

static int history(const struct cli_command *self, int argc, char **argv)
{
    bool json;
    int id = cli_take_format(self, argc, argv, "table", &json);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (argc - optind != 1)
        return cli_fail_usage(self, "which image?");
    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    sm_image *image = NULL;
    sm_image_options how = {.pull = SM_PULL_NEVER};
    int rc = sm_image_open(store, argv[optind], &how, &image, &err);
    if (rc == 0) {
        json_t *config = cli_image_json(image);
        json_t *list = json_object_get(config, "history");
        if (json && list)
            cli_print_json(list);
        else if (json)
            printf("[]\n");
        else
            print_history(list);
        json_decref(config);
    }
    sm_image_close(image);
    sm_store_close(store);
    return rc ? cli_fail_error(&err) : CLI_EXIT_OK;
}

const struct cli_command cli_image_history = {
    .name = "image history",
    .synopsis = "IMAGE",
    .summary = "Show by what an image was made.",
    .options = history_options,
    .run = history,
};

static const struct cli_option save_options[] = {
    CLI_FORMAT_OPTION(
        SM_ARCHIVE_OCI_NAME "|" SM_ARCHIVE_DOCKER_NAME, "of which kind (oci-archive)"),
    {'o', "output", "FILE", "the archive to write (-: standard output, which must be no terminal)"},
    {'q', "quiet", NULL, "taken: nothing is printed anyway"},
    {0},
};

static int take_format(
    const struct cli_command *self, const char *text, enum sm_archive_format *format)
{
    if (sm_archive_format_parse(text, format))
        return CLI_EXIT_OK;
    return cli_fail_usage(self,
        "'%s' is no format of an archive: " SM_ARCHIVE_OCI_NAME ", " SM_ARCHIVE_DOCKER_NAME, text);
}

static int save(const struct cli_command *self, int argc, char **argv)
{
    const char *output = "-";
    enum sm_archive_format format = SM_ARCHIVE_OCI;
    int id;
    while ((id = cli_next_option(self, argc, argv)) > 0) {
        if (id == 'o')
            output = optarg;
        else if (id != 'q' && take_format(self, optarg, &format) != CLI_EXIT_OK)
            return CLI_EXIT_FAILURE;
    }
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (argc - optind != 1)
        return cli_fail_usage(self, "which image?");
    if (strcmp(output, "-") == 0 && isatty(STDOUT_FILENO))
        return cli_fail_usage(self, "an archive is nothing for a terminal: use --output");
    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    int rc = sm_store_save_as(store, argv[optind], format, output, &err);
    sm_store_close(store);
    return rc ? cli_fail_error(&err) : CLI_EXIT_OK;
}

const struct cli_command cli_image_save = {
    .name = "image save",
    .synopsis = "IMAGE",
    .summary = "Write an image of the store as an archive.",
    .options = save_options,
    .run = save,
};

static const struct cli_option load_options[] = {
    {'i', "input", "FILE", "the archive to read (-: standard input, which must be no terminal)"},
    {'q', "quiet", NULL, "no progress"},
    {0},
};

static int load(const struct cli_command *self, int argc, char **argv)
{
    const char *input = NULL;
    bool quiet = false;
    int id;
    while ((id = cli_next_option(self, argc, argv)) > 0) {
        if (id == 'i')
            input = optarg;
        else
            quiet = true;
    }
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (!input && argc - optind == 1)
        input = argv[optind++];
    if (!input)
        input = "-";
    if (optind < argc || (strcmp(input, "-") == 0 && isatty(STDIN_FILENO)))
        return cli_fail_usage(self, "one archive is needed");
    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    char *names = NULL;
    const sm_image_options how = {.progress = cli_progress(quiet)};
    int rc = sm_store_load(store, input, &how, &names, &err);
    cli_progress_end();
    sm_store_close(store);
    if (rc)
        return cli_fail_error(&err);
    cli_print("%s", names);
    free(names);
    return CLI_EXIT_OK;
}

const struct cli_command cli_image_load = {
    .name = "image load",
    .synopsis = "[FILE]",
    .summary = "Make the images of an OCI or docker archive ready, under their names.",
    .options = load_options,
    .run = load,
};
