/*
 * virtio-pmem. See virtio_pmem.h.
 *
 * System calls of the device thread: fdatasync.
 */
#include "devices/virtio_pmem.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/error.h"

#define REQ_FLUSH  0u
#define RESP_OK    0u
#define RESP_ERROR 1u

struct pmem {
    struct sm_virtio_dev dev;
    struct sm_pmem_config config;
};

static void pmem_config_read(struct sm_virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
    struct pmem *pmem = (struct pmem *)dev;
    uint8_t config[16];
    sm_store_le64(config, pmem->config.start);
    sm_store_le64(config + 8, pmem->config.size);
    memcpy(buf, config + offset, len);
}

static uint32_t serve(struct sm_virtio_dev *dev, struct sm_virtq_chain *chain)
{
    struct pmem *pmem = (struct pmem *)dev;
    uint8_t type[4], response[4];
    bool good = sm_iov_read(chain->iov, chain->n_readable, 0, type, 4) == 4 &&
                sm_load_le32(type) == REQ_FLUSH &&
                (pmem->config.flush_fd < 0 || fdatasync(pmem->config.flush_fd) == 0);
    sm_store_le32(response, good ? RESP_OK : RESP_ERROR);
    return (uint32_t)sm_iov_write(
        sm_virtq_writable(chain), chain->n_writable, 0, response, sizeof(response));
}

static void pmem_notify(struct sm_virtio_dev *dev, unsigned q)
{
    sm_virtio_serve(dev, q, serve);
}

static void pmem_destroy(struct sm_virtio_dev *dev)
{
    sm_virtio_fini(dev);
    free(dev);
}

static const struct sm_virtio_ops pmem_ops = {
    .name = "pmem",
    .id = SM_VIRTIO_ID_PMEM,
    .n_queues = 1,
    .queue_max = 64,
    .config_size = 16,
    .config_read = pmem_config_read,
    .notify = pmem_notify,
    .destroy = pmem_destroy,
};

int sm_virtio_pmem_create(const struct sm_virtio_env *env, const struct sm_pmem_config *config,
    struct sm_virtio_dev **dev, sm_error *err)
{
    struct pmem *pmem = calloc(1, sizeof(*pmem));
    if (!pmem)
        return sm_error_errno(err, ENOMEM, "cannot make the pmem device");
    pmem->config = *config;
    int rc = sm_virtio_init(&pmem->dev, &pmem_ops, env, 0, err);
    if (rc) {
        free(pmem);
        return rc;
    }
    *dev = &pmem->dev;
    return 0;
}
