/* What the commands that look after the store share: opening it, removing from it. */
#include "cli/store.h"

#include <getopt.h>
#include <stdio.h>

#include "cli/options.h"

sm_store *cli_open_store(void)
{
    sm_store *store = NULL;
    sm_error err;
    if (sm_store_open(&store, NULL, &err))
        cli_fail_error(&err);
    return store;
}

json_t *cli_image_json(const sm_image *image)
{
    json_t *config = json_loads(sm_image_config(image), JSON_ALLOW_NUL, NULL);
    if (!config)
        config = json_loads(sm_image_config(image), JSON_ALLOW_NUL | JSON_DECODE_INT_AS_REAL, NULL);
    return config ? config : json_null();
}

int cli_remove_each(const struct cli_command *self, int argc, char **argv, const char *question,
    int (*remove_one)(sm_store *store, const char *name, sm_error *err))
{
    int id = cli_next_option(self, argc, argv);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind == argc)
        return cli_fail_usage(self, "%s", question);
    sm_error err;
    sm_store *store = cli_open_store();
    if (!store)
        return CLI_EXIT_FAILURE;
    int status = CLI_EXIT_OK;
    for (int i = optind; i < argc; i++) {
        if (remove_one(store, argv[i], &err))
            status = cli_fail_error(&err);
        else
            printf("%s\n", argv[i]);
    }
    sm_store_close(store);
    return status;
}
