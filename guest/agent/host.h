/*
 * Who may talk to the agent: the host alone. Who connects is root here, and with a kernel that has
 * vsock's loopback any process of the guest could. (The tests' listeners are unix sockets.)
 */
#ifndef SM_AGENT_HOST_H
#define SM_AGENT_HOST_H

#include <stdbool.h>

struct sockaddr_vm;
bool host_is(const struct sockaddr_vm *peer);
/* accept(2) of the host. -1 and errno: of somebody else, EPERM. */
int host_accept(int listener);

#endif
