/* What the files of the engine share. */
#ifndef SM_VM_ENGINE_IMPL_H
#define SM_VM_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "net/ports/guest_link.h"
#include "util/bell.h"
#include "vm/engine.h"
#include "vmm/machine.h"
#include "vmm/parts.h"

struct sm_engine {
    struct sm_hv *hv;
    struct sm_machine *machine; /* NULL: neither boot nor restore was called */
    struct sm_machine_load_times times;
    struct sm_pause paused; /* by the VM's user */

    /* The agent's first connection after a boot: the device thread leaves it here and rings. */
    struct sm_bell greeted;
    pthread_mutex_t lock;
    int agent_fd; /* -1: not come, or taken */
    uint64_t agent_ns;

    struct sm_vm_network *network;
    atomic_uint bridging;   /* sockets on their way to the device thread */
    sm_guest_lead_fn *lead; /* where the guest's connections lead; the device thread's */
    void *lead_arg;
};

/* engine_net.c. The card of the machine, plugged in. */
struct sm_machine_part sm_engine_card(struct sm_engine *engine);

#endif
