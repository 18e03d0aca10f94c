/*
 * Baking: a VM is booted once and captured, so that every later start is a restore.
 *
 * Up to three snapshots exist for one image and machine, each with a key of what has run in it:
 *     base      the agent is ready, nothing else has run; images with one root file system share it
 *     warm      a warm-up command has run to its end, with the image's environment, user,
 *               directory; as with a container, nothing that it started runs on
 *     service   the image's own command runs, likewise
 * The last two are written as differences from the first, which a boot that makes them writes in
 * the background while it goes on. Each carries a note in JSON: state, image, the pid of the
 * command, the egress policy, and what the bake was asked for: with another warm-up or another end
 * of the wait it is made anew. A bake takes the other one away where that began with another
 * warm-up, and one that asks for neither takes both away, so that runs begin where the last bake
 * says.
 *
 * Locks: whoever makes a snapshot holds the lock of the base's key for all three; the others wait
 * for it and then find what they want.
 */
#ifndef SM_VM_BAKE_H
#define SM_VM_BAKE_H

#include "vm/vm.h"

/* What a snapshot is made of; the shape is settled. The network is a warm-up's and a service's. */
struct sm_bake_request {
    struct sm_vm_shape shape;
    const char *plug, *egress; /* as in struct sm_vm_network_config */
    int boot_timeout_ms;
    sm_progress_fn *progress; /* NULL: nobody is told */
    void *progress_arg;
};

/* As sm_image_bake of the public API. */
int sm_bake(sm_image *image, const struct sm_bake_request *request, const sm_bake_options *options,
    bool *baked, sm_snapshot_stats *stats, sm_error *err);

/* The path of the snapshot to restore for this VM, baked if need be. free() it. */
int sm_bake_find(sm_vm *vm, const struct sm_vm_plan *plan, char **path, sm_error *err);

#endif
