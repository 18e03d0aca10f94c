/*
 * The mirror state of a virtio-mmio device: all that a snapshot must hold of it (snapshot format,
 * virtio section). Plain data, in host byte order; the codec writes it.
 */
#ifndef SM_DEVICES_VIRTIO_STATE_H
#define SM_DEVICES_VIRTIO_STATE_H

#include <stdint.h>

#define SM_VIRTIO_MAX_QUEUES 8
#define SM_VIRTIO_EXTRA      4

struct sm_virtq_state {
    uint64_t desc, avail, used; /* guest-physical addresses of the three parts */
    uint16_t size;              /* as the driver chose it; power of two */
    uint8_t ready;
    uint16_t last_avail_idx; /* next entry of the available ring that the device takes */
    uint16_t next_used_idx;  /* next entry of the used ring that the device fills */
};

struct sm_virtio_state {
    uint32_t driver_features[2];
    uint32_t status;
    uint32_t interrupt_status;
    uint32_t n_queues;
    struct sm_virtq_state queues[SM_VIRTIO_MAX_QUEUES];
    /* What one device type needs beyond v8; belongs into the extension block. All zero means "not
     * known" and every device copes with that. */
    uint64_t extra[SM_VIRTIO_EXTRA];
};

#endif
