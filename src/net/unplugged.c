/* The network backend of `--network none`. See unplugged.h. */
#include "net/unplugged.h"

#include <stdlib.h>

#include "util/error.h"

static bool unplugged_send(
    struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    (void)backend, (void)hdr, (void)frame, (void)len;
    return true;
}

static void unplugged_rx_ready(struct sm_net_backend *backend)
{
    (void)backend;
}

static void unplugged_configure(struct sm_net_backend *backend, uint64_t features)
{
    (void)backend, (void)features;
}

static void unplugged_destroy(struct sm_net_backend *backend)
{
    free(backend);
}

int sm_net_unplugged(void *arg, struct sm_loop *loop, struct sm_net_backend **out, sm_error *err)
{
    (void)arg, (void)loop;
    struct sm_net_backend *backend = calloc(1, sizeof(*backend));
    if (!backend)
        return sm_error_set(err, SM_ENOMEM, "no memory for the network device");
    static const struct sm_net_backend_ops ops = {
        .send = unplugged_send,
        .rx_ready = unplugged_rx_ready,
        .configure = unplugged_configure,
        .destroy = unplugged_destroy,
    };
    *backend = (struct sm_net_backend){.ops = &ops, .mtu = SM_NET_MTU, .link_up = false};
    *out = backend;
    return 0;
}
