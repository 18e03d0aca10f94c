/*
 * virtio-blk (virtio 1.2, 5.2) over a file or block device: read, write, flush, get id, discard,
 * write zeroes. Data moves between guest memory and the file by preadv/pwritev without a copy of
 * ours. Requests run one after the other on the loop's thread.
 */
#ifndef SM_DEVICES_VIRTIO_BLK_H
#define SM_DEVICES_VIRTIO_BLK_H

#include "devices/virtio_mmio.h"

struct sm_blk_config {
    int fd;        /* the device takes it on success */
    uint64_t size; /* bytes; whole sectors of 512 are offered */
    bool read_only;
    const char *id; /* serial number, at most 20 bytes are used */
};

int sm_virtio_blk_create(const struct sm_virtio_env *env, const struct sm_blk_config *config,
    struct sm_virtio_dev **dev, sm_error *err);

#endif
