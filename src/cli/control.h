/*
 * The way to a VM that another `supermachine run` holds: a unix socket in the abstract namespace, named
 * after user and VM, so that nothing is left on disk however its owner ends. Both sides ask the kernel who
 * the other is, and talk to the same user only. One request per connection, a line, and lines back:
 *     "snapshot PATH"  ->  "ok PAUSE_US DATA_BYTES RAM_BYTES WRITE_US" or "error SENTENCE"
 *     "ports"          ->  "port IP HOST_PORT GUEST_PORT tcp|udp found|published" for each, then "ok"
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

/* The ports of the VM of that name, at most SM_VM_MAX_PORTS. 0 or an exit code after a message. */
int cli_control_ports(const char *vm, sm_vm_port *ports, size_t *n);

#endif
