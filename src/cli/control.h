/*
 * The way to a VM that another `supermachine run` holds: a unix socket with the VM's name in
 * $XDG_RUNTIME_DIR/supermachine, else /run/user/UID/supermachine, /run/supermachine (root) or
 * /tmp/supermachine-UID: a directory that only this user can enter, so nobody else can take a name.
 * It is bound before the VM is started, so that of two with one name the second never starts. What
 * a killed owner left is removed by whoever comes by. Both sides ask the kernel who the other is,
 * and talk to the same user only. One request per connection, a line, and lines back:
 *     "snapshot PATH"  ->  "ok PAUSE_US DATA_BYTES RAM_BYTES WRITE_US" or "error SENTENCE"
 *     "ports"          ->  "port IP HOST_PORT GUEST_PORT tcp|udp found|published"..., then "ok"
 */
#ifndef SM_CLI_CONTROL_H
#define SM_CLI_CONTROL_H

#include <supermachine.h>

struct cli_control;

/* Takes the name and answers requests in a thread, until it is closed. NULL (and *taken) when a VM
 * of this name runs already; NULL when it cannot be done, which is no reason not to run a VM that
 * nobody has named. errno tells why; EINVAL: no VM can have this name. */
struct cli_control *cli_control_reserve(const char *name, bool *taken);
/* The VM is up; NULL: it is over. Waits for a request that is being answered. NULL for control is
 * fine. */
void cli_control_attach(struct cli_control *control, sm_vm *vm);
void cli_control_close(struct cli_control *control); /* NULL is fine; waits for a request */
/* The process ends without having closed it: its name goes. From any thread. */
void cli_control_abandon(void);

/* Has the VM of that name captured into the file, however long that takes, unless its process ends.
 * 0 or an exit code after a message. */
int cli_control_snapshot(const char *vm, const char *path, sm_snapshot_stats *stats);

/* The ports of the VM of that name, at most SM_VM_MAX_PORTS. 0 or an exit code after a message. */
int cli_control_ports(const char *vm, sm_vm_port *ports, size_t *n);

#endif
