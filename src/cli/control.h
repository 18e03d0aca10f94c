/*
 * The way to a VM that another `supermachine run` holds: a unix socket in the abstract namespace, named
 * after user and VM, so that nothing is left on disk however its owner ends. Both sides ask the kernel who
 * the other is, and talk to the same user only. One request per connection, one line each way:
 *     "snapshot PATH"  ->  "ok PAUSE_US DATA_BYTES RAM_BYTES WRITE_US" or "error SENTENCE"
 */
#ifndef SM_CLI_CONTROL_H
#define SM_CLI_CONTROL_H

#include <supermachine.h>

struct cli_control;

/* Serves requests for the VM in a thread, until it is closed. NULL (and *taken) when a VM of this name runs
 * already; NULL when it cannot be done, which is no reason not to run. */
struct cli_control *cli_control_open(sm_vm *vm, bool *taken);
void cli_control_close(struct cli_control *control); /* NULL is fine; waits for a request */

/* Has the VM of that name captured into the file. 0 or an exit code after a message. */
int cli_control_snapshot(const char *vm, const char *path, sm_snapshot_stats *stats);

#endif
