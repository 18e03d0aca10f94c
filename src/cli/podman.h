/*
 * Options of `podman run` that have no meaning of their own here: what a machine does not need is
 * taken and does nothing, what would be missed is refused with what to do instead. docs/podman.md
 * has all options, a test tries each row of it.
 */
#ifndef SM_CLI_PODMAN_H
#define SM_CLI_PODMAN_H

#include "cli/cli.h"

/* Behind a command's own options. */
extern const struct cli_option cli_podman_options[];

/* Takes the option, whose value is in optarg, if it is one of these. *status: 0, or the exit code
 * after a message. */
bool cli_take_podman_option(const struct cli_command *self, int id, int *status);

#endif
