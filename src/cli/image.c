/* supermachine image ls|inspect|verify|rm: the images of the store. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cli/cli.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/values.h"
#include "cli/store.h"

static const struct cli_option ls_options[] = {
    CLI_FORMAT_OPTION("table|json", "how to print the list (table)"),
    {0},
};

struct listing {
    json_t *images; /* NULL: print a table */
};

/* "sha256:" and twelve digits, enough to name an image. */
#define SHORT_DIGEST 19

static void print_row(const char *name, const sm_store_image *image)
{
    char size[32], when[32] = "-";
    time_t created = (time_t)image->created;
    struct tm tm;
    if (localtime_r(&created, &tm))
        strftime(when, sizeof(when), "%Y-%m-%d %H:%M", &tm);
    cli_print("%-40s %-*.*s %-14s %9s  %s\n", name, SHORT_DIGEST, SHORT_DIGEST, image->digest,
        image->platform, cli_format_size(image->disk_bytes, size), when);
}

static void list_one(void *arg, const sm_store_image *image)
{
    struct listing *l = arg;
    if (!l->images) {
        for (const char *const *name = image->names; *name; name++)
            print_row(*name, image);
        if (!*image->names) /* its name has moved, or it was asked for by its digest */
            print_row("<none>", image);
        return;
    }
    json_t *names = json_array();
    for (const char *const *name = image->names; *name; name++)
        json_array_append_new(names, json_string(*name));
    json_array_append_new(
        l->images, json_pack("{s:o, s:s, s:s, s:s, s:I, s:I, s:I}", "names", names, "digest",
                       image->digest, "platform", image->platform, "source", image->source,
                       "size_bytes", (json_int_t)image->size_bytes, "disk_bytes",
                       (json_int_t)image->disk_bytes, "created", (json_int_t)image->created));
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
    struct listing l = {.images = json ? json_array() : NULL};
    if (!json)
        printf("%-40s %-*s %-14s %9s  %s\n", "NAME", SHORT_DIGEST, "DIGEST", "PLATFORM", "SIZE",
            "CREATED");
    int status = CLI_EXIT_OK;
    if (sm_store_list(store, list_one, &l, &err))
        status = cli_fail_error(&err);
    else if (json)
        cli_print_json(l.images);
    json_decref(l.images);
    sm_store_close(store);
    return status;
}

static const struct cli_command image_ls = {
    .name = "image ls",
    .synopsis = "",
    .summary = "List the images of the store.",
    .options = ls_options,
    .run = ls,
};

static int inspect(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind == argc)
        return cli_fail_usage(self, "which image?");

    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    const sm_image_options how = {.pull = SM_PULL_NEVER};
    json_t *all = json_array();
    int status = CLI_EXIT_OK;
    for (int i = optind; i < argc && !status; i++) {
        sm_image *image = NULL;
        if (sm_image_open(store, argv[i], &how, &image, &err)) {
            status = cli_fail_error(&err);
            break;
        }
        json_array_append_new(all, json_pack("{s:s, s:s, s:s, s:o}", "reference", argv[i], "digest",
                                       sm_image_digest(image), "rootfs", sm_image_rootfs(image),
                                       "config", cli_image_json(image)));
        sm_image_close(image);
    }
    if (!status)
        cli_print_json(all);
    json_decref(all);
    sm_store_close(store);
    return status;
}

static const struct cli_command image_inspect = {
    .name = "image inspect",
    .synopsis = "IMAGE...",
    .summary = "Print digest, root filesystem and configuration of images as JSON.",
    .run = inspect,
};

struct verifying {
    sm_store *store;
    int status;
};

static void verify_one(struct verifying *v, const char *shown, const char *reference)
{
    sm_error err;
    if (sm_store_verify(v->store, reference, &err))
        v->status = cli_fail_error(&err);
    else
        cli_print("%s: ok\n", shown);
}

static void verify_listed(void *arg, const sm_store_image *image)
{
    verify_one(arg, *image->names ? *image->names : image->digest, image->digest);
}

static int verify(const struct cli_command *self, int argc, char **argv)
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    sm_error err;
    struct verifying v = {cli_open_store(), CLI_EXIT_OK};
    if (!v.store)
        return CLI_EXIT_FAILURE;
    for (int i = optind; i < argc; i++)
        verify_one(&v, argv[i], argv[i]);
    if (optind == argc && sm_store_list(v.store, verify_listed, &v, &err))
        v.status = cli_fail_error(&err);
    sm_store_close(v.store);
    return v.status;
}

static const struct cli_command image_verify = {
    .name = "image verify",
    .synopsis = "[IMAGE...]",
    .summary = "Compare root filesystems with what was built; all where no image is named.",
    .run = verify,
};

static int rm(const struct cli_command *self, int argc, char **argv)
{
    return cli_remove_each(self, argc, argv, "which image?", sm_store_remove);
}

static const struct cli_command image_rm = {
    .name = "image rm",
    .synopsis = "IMAGE...",
    .summary = "Remove images from the store.",
    .run = rm,
};

static const struct cli_command *const commands[] = {
    &image_ls,
    &image_inspect,
    &cli_image_history,
    &cli_image_tag,
    &image_rm,
    &image_verify,
    &cli_image_prune,
    &cli_image_save,
    &cli_image_load,
    NULL,
};

const struct cli_command cli_image = {
    .name = "image",
    .synopsis = "COMMAND",
    .summary = "Look after the images of the store.",
    .commands = commands,
};
