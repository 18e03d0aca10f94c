/*
 * virtio-balloon (virtio 1.2, 5.5) with free page reporting: the guest tells which of its pages are
 * free, and they are given back to the host (sm_gm_discard: they read as zeros afterwards, whatever
 * backs the memory). It can also be inflated, which takes pages from the guest for good.
 */
#ifndef SM_DEVICES_VIRTIO_BALLOON_H
#define SM_DEVICES_VIRTIO_BALLOON_H

#include "devices/virtio_mmio.h"

struct sm_balloon_stats {
    uint64_t reported_bytes; /* by free page reporting, ever */
    uint64_t actual_pages;   /* 4 KiB pages in the balloon, as the guest says */
};

int sm_virtio_balloon_create(
    const struct sm_virtio_env *env, struct sm_virtio_dev **dev, sm_error *err);

/* How many 4 KiB pages the guest shall give up. Any thread. */
void sm_balloon_set_target(struct sm_virtio_dev *dev, uint32_t pages);
void sm_balloon_stats(struct sm_virtio_dev *dev, struct sm_balloon_stats *stats);

#endif
