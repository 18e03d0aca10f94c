/*
 * virtio-rng (virtio 1.2, 5.4): getrandom(2) of the host, at most SM_RNG_MAX bytes a request.
 */
#ifndef SM_DEVICES_VIRTIO_RNG_H
#define SM_DEVICES_VIRTIO_RNG_H

#include "devices/virtio_mmio.h"

#define SM_RNG_MAX 256

int sm_virtio_rng_create(
    const struct sm_virtio_env *env, struct sm_virtio_dev **dev, sm_error *err);

#endif
