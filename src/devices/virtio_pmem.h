/*
 * virtio-pmem (virtio 1.2, 5.19): a window of guest-physical memory that the machine maps (here:
 * the root filesystem, straight from the page cache, into a read-only memslot). The device has only
 * to tell where it is and to answer flush requests; what cannot be written is always flushed.
 */
#ifndef SM_DEVICES_VIRTIO_PMEM_H
#define SM_DEVICES_VIRTIO_PMEM_H

#include "devices/virtio_mmio.h"

struct sm_pmem_config {
    uint64_t start, size; /* guest-physical, multiples of 2 MiB */
    int flush_fd;         /* fsync'ed by a flush; -1: read-only, nothing to do. Borrowed */
};

int sm_virtio_pmem_create(const struct sm_virtio_env *env, const struct sm_pmem_config *config,
    struct sm_virtio_dev **dev, sm_error *err);

#endif
