/*
 * virtio-rng. See virtio_rng.h.
 *
 * System calls of the device thread: getrandom.
 */
#include "devices/virtio_rng.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/random.h>

#include "util/bytes.h"
#include "util/error.h"

static uint32_t serve(struct sm_virtio_dev *dev, struct sm_virtq_chain *chain)
{
    (void)dev;
    uint8_t bytes[SM_RNG_MAX];
    /* Up to 256 bytes getrandom neither blocks (after boot) nor is it cut short. */
    ssize_t got = getrandom(bytes, SM_MIN(chain->writable_bytes, sizeof(bytes)), 0);
    size_t n = got < 0 ? 0 : (size_t)got;
    sm_iov_write(sm_virtq_writable(chain), chain->n_writable, 0, bytes, n);
    explicit_bzero(bytes, sizeof(bytes));
    return (uint32_t)n;
}

static void rng_notify(struct sm_virtio_dev *dev, unsigned q)
{
    sm_virtio_serve(dev, q, serve);
}

static void rng_destroy(struct sm_virtio_dev *dev)
{
    sm_virtio_fini(dev);
    free(dev);
}

static const struct sm_virtio_ops rng_ops = {
    .name = "rng",
    .id = SM_VIRTIO_ID_RNG,
    .n_queues = 1,
    .queue_max = 64,
    .notify = rng_notify,
    .destroy = rng_destroy,
};

int sm_virtio_rng_create(const struct sm_virtio_env *env, struct sm_virtio_dev **out, sm_error *err)
{
    struct sm_virtio_dev *dev = calloc(1, sizeof(*dev));
    if (!dev)
        return sm_error_errno(err, ENOMEM, "cannot make the rng device");
    int rc = sm_virtio_init(dev, &rng_ops, env, 0, err);
    if (rc) {
        free(dev);
        return rc;
    }
    *out = dev;
    return 0;
}
