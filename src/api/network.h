/* The network of a VM, from the words of the configuration to what its card is plugged into. */
#ifndef SM_API_NETWORK_H
#define SM_API_NETWORK_H

#include <supermachine.h>

#include "net/policy.h"
#include "net/ports.h"
#include "vmm/machine.h"

/* Lives as long as the machine: it gets what the network reports. */
struct sm_vm_network {
    bool user; /* else none */
    struct sm_policy policy;
    struct sm_ports *ports; /* NULL: nothing was published */
    sm_notice_fn *notice;
    void *notice_arg;
};

/* Reads and checks; nothing is opened. */
int sm_vm_network_init(struct sm_vm_network *network, const sm_vm_config *config, sm_error *err);
void sm_vm_network_clear(struct sm_vm_network *network);

/* A snapshot says what its guest was allowed at most. */
int sm_vm_network_narrow(struct sm_vm_network *network, const char *saved, sm_error *err);

/* Fills in the card of the machine. */
void sm_vm_network_plug(struct sm_vm_network *network, struct sm_machine_config *machine);

/* The machine runs and its agent is ready: publishes what the configuration asks for. */
int sm_vm_network_open(struct sm_vm_network *network, struct sm_machine *machine,
    const sm_vm_config *config, sm_error *err);
/* Before the machine is closed. */
void sm_vm_network_close(struct sm_vm_network *network);

int sm_vm_network_publish(struct sm_vm_network *network, struct sm_machine *machine,
    const char *port, sm_error *err);

#endif
