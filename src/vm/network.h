/* The network of a VM, from the words of the configuration to what its card is plugged into. */
#ifndef SM_VM_NETWORK_H
#define SM_VM_NETWORK_H

#include <supermachine.h>

#include "image/image_config.h"
#include "net/guest_net.h"
#include "net/policy.h"
#include "net/ports/found.h"
#include "net/ports/ports.h"
#include "util/rate.h"
#include "vmm/machine.h"
#include "wire/wire.h"

enum sm_network_mode { SM_NETWORK_USER, SM_NETWORK_NONE, SM_NETWORK_TAP };

/* Lives as long as the machine: it gets what the network reports. */
struct sm_vm_network {
    enum sm_network_mode mode;
    struct sm_tap_spec tap;
    bool moved; /* the guest's card is set up for another network than the user-mode one */
    struct sm_policy policy;        /* until the machine is there */
    struct sm_ports *ports;         /* once it is open */
    struct sm_listeners *listeners; /* NULL: what listens is not looked for */
    struct sm_listener *known;      /* what listened when the snapshot was made */
    size_t n_known;
    struct sm_rate found_rate;
    sm_notice_fn *notice;
    void *notice_arg;
};

/* Reads and checks; nothing is opened. */
int sm_vm_network_init(struct sm_vm_network *network, const sm_vm_config *config, sm_error *err);
void sm_vm_network_clear(struct sm_vm_network *network);

/* What the agent is to be told about the card before the guest's programs run: in *message, which points into
 * *text. False: nothing, it is as it must be. */
struct sm_network_text {
    struct sm_guest_net net;
    char resolv_conf[SM_RESOLV_TEXT_MAX + 1];
};
bool sm_vm_network_describe(struct sm_vm_network *network, struct sm_network_text *text,
    struct sm_wire_set_network *message);

/* A snapshot says what its guest was allowed at most. */
int sm_vm_network_narrow(struct sm_vm_network *network, const char *saved, sm_error *err);
/* The policy as text, malloc'ed; NULL: there is none. */
int sm_vm_network_policy(const struct sm_vm_network *network, char **text, sm_error *err);

/* Fills in the card of the machine. */
void sm_vm_network_plug(struct sm_vm_network *network, struct sm_machine_config *machine);

/* Takes what listened from the snapshot's registry. */
int sm_vm_network_remember(
    struct sm_vm_network *network, const struct sm_snapshot *snapshot, sm_error *err);

/* The machine runs and its agent is ready: publishes what the configuration asks for and what is known to
 * listen, and opens the front door. */
int sm_vm_network_open(struct sm_vm_network *network, struct sm_machine *machine,
    const struct sm_oci_config *image, const sm_vm_config *config, sm_error *err);
/* Something runs that may listen. */
void sm_vm_network_watch(struct sm_vm_network *network);
/* Before the machine is closed. */
void sm_vm_network_close(struct sm_vm_network *network);

/* Once it is open. */
int sm_vm_network_publish(struct sm_vm_network *network, const char *port, sm_error *err);

#endif
