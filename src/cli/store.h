/* What the commands that look after the store share. */
#ifndef SM_CLI_STORE_H
#define SM_CLI_STORE_H

#include <jansson.h>

#include "cli/cli.h"

/* The user's store; NULL after a message. */
sm_store *cli_open_store(void);

/* What the image's configuration says; null where there is no room for it. A number that is larger
 * than 64 bits is a real. */
json_t *cli_image_json(const sm_image *image);

/* The whole of a command that removes what its arguments name, one after the other, and goes on
 * after one that cannot be; asks `question` where there are none. Returns the exit code. */
int cli_remove_each(const struct cli_command *self, int argc, char **argv, const char *question,
    int (*remove_one)(sm_store *store, const char *name, sm_error *err));

#endif
