/* Options of `run` that say what a command's process is and which ports are its, where they are
 * more than a text. */
#ifndef SM_CLI_PROCESS_H
#define SM_CLI_PROCESS_H

#include "cli/cli.h"
#include "util/strv.h"

/* --entrypoint: a JSON array of texts, or one text. */
void cli_take_entrypoint(struct sm_strv *entrypoint, const char *text);

/* The others return 0, or the exit code after a message. */
int cli_take_security_option(
    const struct cli_command *self, const char *text, sm_exec_config *exec);
int cli_take_oom_score(const struct cli_command *self, const char *text, sm_exec_config *exec);
/* --shm-size becomes one of --tmpfs. */
int cli_take_shm_size(const struct cli_command *self, const char *text, struct sm_strv *tmpfs);
/* --publish and --expose (`option`): ports and ranges of them, between commas, as ports each. */
int cli_take_ports(
    const struct cli_command *self, const char *option, const char *text, struct sm_strv *ports);

#endif
