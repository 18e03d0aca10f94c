/*
 * How a VM is reached: ports that are published, what is found to listen in it, its front door.
 *
 * All of it lives on the client's loop and reaches the guest by the engine's link, so it is told of
 * on the loop's thread. Nothing is made before somebody needs it.
 */
#ifndef SM_VM_PORTS_H
#define SM_VM_PORTS_H

#include "vm/vm.h"

struct sm_port_spec; /* net/ports/spec.h */

/* What is wrong with the ports that the configuration asks for, before there is a VM: SM_EINVAL, or
 * SM_ELIMIT when they are too many. */
int sm_vm_check_ports(
    const struct sm_oci_config *image, const struct sm_vm_network_config *config, sm_error *err);

/* Whether the host's ports can be had now: asked where a long time passes until they are opened. */
int sm_vm_try_ports(const sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err);

/* The agent is connected, and nothing of the user's runs yet: opens what the configuration asks
 * for, so that nothing has begun when one of these cannot be had. */
int sm_vm_open_ports(sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err);
/* The agent is ready: follows what listens in the guest, beginning with what is known to. */
int sm_vm_follow_ports(sm_vm *vm, const struct sm_vm_network_config *config, sm_error *err);
/* Something runs in the guest that may listen. */
void sm_vm_watch_ports(sm_vm *vm);
/* As sm_vm_publish of the public API. */
int sm_vm_add_port(sm_vm *vm, const char *port, sm_error *err);
/* Copies at most `max`, the newest first; returns how many there are. */
size_t sm_vm_list_ports(sm_vm *vm, struct sm_port_spec *specs, size_t max);
/* Before the engine is closed. */
void sm_vm_close_ports(sm_vm *vm);

#endif
