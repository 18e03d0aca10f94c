/*
 * A machine is a list of parts: what it has beside RAM, vCPUs and platform. The list is made above,
 * in the order in which the guest finds its devices; vmm walks it and chooses where things are: a
 * register window and an interrupt for each (sm_arch_place), an address for what a part maps.
 *
 * A role says what a part is for in this machine ("rootfs", "vsock", "vol:/data"), once in a list.
 * A restore matches what a snapshot has by device type and role, so an optional part is one row of
 * the list, not a new kind of machine. The key of a bake has the roles of what every VM has; an
 * optional part has to be added to it by who makes the list.
 */
#ifndef SM_VMM_PARTS_H
#define SM_VMM_PARTS_H

#include <stdint.h>

#include <supermachine.h>

#include "arch/arch.h"
#include "devices/virtio_mmio.h"
#include "snapshot/snapshot.h"

struct sm_machine_part;
struct sm_net_backend; /* devices/virtio_net.h */
struct sm_vsock;       /* devices/vsock/vsock.h */

#define SM_MACHINE_MAX_PARTS SM_ARCH_MAX_PLACES

/* What a device is made of, and what comes of it. */
struct sm_part_env {
    struct sm_virtio_env virtio;
    uint64_t gpa, bytes; /* where the guest sees the part's file; 0, 0: it has none */
};
struct sm_part_device {
    struct sm_virtio_dev *dev;
    uint64_t config[2];     /* as snapshots have it, see struct sm_snapshot_device */
    struct sm_vsock *vsock; /* of the part that is one */
};
typedef int sm_part_make_fn(const struct sm_machine_part *part, const struct sm_part_env *env,
    struct sm_part_device *made, sm_error *err);

/* Makes what the network card is plugged into, on the machine's loop. */
typedef int sm_part_plug_fn(
    void *arg, struct sm_loop *loop, struct sm_net_backend **backend, sm_error *err);

struct sm_machine_part {
    const char *role; /* shorter than SM_SNAPSHOT_ROLE_BYTES, not empty */
    sm_part_make_fn *make;
    const char *file; /* path of what the guest sees in memory, read-only; NULL: nothing */
    union {           /* the maker's own */
        uint32_t cid;
        struct {
            sm_part_plug_fn *plug;
            void *arg;
            uint8_t mac[6];
        } net;
    };
};

/* The parts that there are. Strings and pointers are borrowed until sm_machine_create has
 * returned. */
struct sm_machine_part sm_part_rootfs(
    const char *path); /* /dev/pmem0 of the guest, where it comes first */
struct sm_machine_part sm_part_vsock(uint32_t guest_cid);
struct sm_machine_part sm_part_rng(void);
struct sm_machine_part sm_part_balloon(void);
struct sm_machine_part sm_part_net(sm_part_plug_fn *plug, void *arg, const uint8_t mac[6]);

#endif
