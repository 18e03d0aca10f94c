/*
 * What is asked of a VM, by concern. The public sm_vm_config, which has all of it in one structure,
 * is translated into this once, at the face (src/api/vm.c); what only one concern needs is given
 * only that.
 *
 * All strings and lists are borrowed.
 */
#ifndef SM_VM_CONFIG_H
#define SM_VM_CONFIG_H

#include <supermachine.h>

/* What a machine is made of besides its image: the key of what is baked is made of just this
 * (guest_files.h). */
struct sm_vm_shape {
    uint64_t memory_bytes; /* 0: not said, see sm_vm_shape_settle */
    unsigned vcpus;        /* likewise */
    const char *kernel;    /* paths; NULL: the installed ones */
    const char *initramfs;
    const char *cmdline; /* NULL: nothing */
};

struct sm_vm_network_config {
    const char *plug;                     /* what the card is plugged into; NULL: user */
    const char *egress;                   /* NULL: all may be reached but the host's loopback */
    const char *const *publish;           /* NULL: nothing */
    bool publish_exposed, no_found_ports; /* as in sm_vm_config */
    const char *door;                     /* path of the front door; NULL: there is none */
    const char *const *dns, *const *dns_search, *const *dns_options; /* as in sm_vm_config */
};

enum sm_vm_from {
    SM_FROM_BAKED, /* the snapshot of this image and shape, baked first if there is none */
    SM_FROM_BOOT,
    SM_FROM_FILE,
};

/* Who is told what happens. */
struct sm_vm_events {
    sm_progress_fn *progress; /* of baking; NULL: nobody */
    void *progress_arg;
    sm_notice_fn *notice; /* one line for a log; NULL: nobody */
    void *notice_arg;
    bool ports, connections; /* notice is told of these, too */
};

struct sm_vm_plan {
    const char *name, *hostname; /* NULL: made up; the name */
    struct sm_vm_shape shape;
    struct sm_vm_network_config network;
    enum sm_vm_from from;
    const char *file;              /* SM_FROM_FILE */
    bool service;                  /* go on with the command that ran when the snapshot was made */
    const sm_exec_config *command; /* its process 1, which is asked for at once; NULL: none */
    int boot_timeout_ms;           /* by the clock; 0: by the guest's own time */
    bool count_instructions;
    struct sm_vm_events events;
};

/* The defaults in the place of what is not said. */
static inline void sm_vm_shape_settle(struct sm_vm_shape *shape)
{
    if (!shape->memory_bytes)
        shape->memory_bytes = 256ull << 20;
    if (!shape->vcpus)
        shape->vcpus = 1;
}

#endif
