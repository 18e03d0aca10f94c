/* The machine's end of a card's socket. See socket_backend.h. */
#include "net/socket_backend.h"

#include <stdlib.h>

#include "net/frame_socket.h"
#include "util/cleanup.h"
#include "util/error.h"

struct socket_backend {
    struct sm_net_backend base;
    struct sm_loop *loop;
    struct sm_frame_socket *socket; /* NULL: its other end is gone */
    bool speaks_first;
    bool heard;        /* something was sent by this socket: somebody is there, or will be */
    bool told;         /* the present configuration was */
    bool settled;      /* and answered: what comes is for the present driver */
    uint32_t number;   /* of the configuration */
    uint64_t features; /* of the running driver */
    struct sm_socket_backend_counters counters;
};

static struct socket_backend *socket_backend_of(struct sm_net_backend *backend)
{
    return (struct socket_backend *)(void *)backend;
}

static void count(atomic_ullong *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

/* ---- to the guest -------------------------------------------------------------------------- */

static bool on_frame(void *arg, struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct socket_backend *sb = arg;
    if (sb->settled && sm_net_fits_driver(sb->features, hdr, len))
        return sm_net_deliver(sb->base.card, hdr, frame, len);
    count(&sb->counters.stale);
    return true;
}

static bool on_control(void *arg, enum sm_frame_control kind, uint32_t number, uint64_t features)
{
    (void)features;
    struct socket_backend *sb = arg;
    if (kind != SM_FRAME_CONFIGURED)
        return false;
    if (sb->told && number == sb->number)
        sb->settled = true;
    return true;
}

static void on_received(void *arg)
{
    struct socket_backend *sb = arg;
    sm_net_flush(sb->base.card);
}

static void socket_rx_ready(struct sm_net_backend *backend)
{
    struct socket_backend *sb = socket_backend_of(backend);
    if (sb->socket)
        sm_frame_socket_resume(sb->socket);
}

/* ---- from the guest ------------------------------------------------------------------------ */

static void tell(struct socket_backend *sb)
{
    sm_frame_socket_control(sb->socket, SM_FRAME_CONFIGURE, sb->number, sb->features);
    sb->heard = sb->told = true;
}

static bool socket_send_pieces(struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr,
    const struct iovec *pieces, unsigned n, size_t len)
{
    struct socket_backend *sb = socket_backend_of(backend);
    if (!sb->socket) {
        count(&sb->counters.lost);
        return true;
    }
    if (!sb->told)
        tell(sb);
    return sm_frame_socket_put_pieces(sb->socket, hdr, pieces, n, len);
}

static bool socket_send(
    struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    const struct iovec piece = {.iov_base = frame, .iov_len = len};
    return socket_send_pieces(backend, hdr, &piece, 1, len);
}

static void socket_sent_all(struct sm_net_backend *backend)
{
    const struct socket_backend *sb = socket_backend_of(backend);
    if (sb->socket)
        sm_frame_socket_flush(sb->socket);
}

static void on_room(void *arg)
{
    struct socket_backend *sb = arg;
    sm_net_tx_resume(sb->base.card);
}

/* What the guest's ring holds back is lost with it. */
static void on_gone(void *arg)
{
    struct socket_backend *sb = arg;
    sm_frame_socket_destroy(sb->socket);
    sb->socket = NULL;
    sb->settled = false;
    sm_net_tx_resume(sb->base.card);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void socket_configure(struct sm_net_backend *backend, uint64_t features)
{
    struct socket_backend *sb = socket_backend_of(backend);
    sb->features = features;
    sb->number++;
    sb->told = sb->settled = false;
    if (!sb->socket)
        return;
    sm_frame_socket_forget(sb->socket);
    if (sb->heard || sb->speaks_first) {
        tell(sb);
        sm_frame_socket_flush(sb->socket);
    }
}

static void socket_destroy(struct sm_net_backend *backend)
{
    struct socket_backend *sb = socket_backend_of(backend);
    sm_frame_socket_destroy(sb->socket);
    free(sb);
}

static int plug(struct socket_backend *sb, int fd, sm_error *err)
{
    static const struct sm_frame_socket_user user = {
        .frame = on_frame,
        .control = on_control,
        .received = on_received,
        .room = on_room,
        .gone = on_gone,
    };
    return sm_frame_socket_create(sb->loop, fd, &user, sb, &sb->socket, err);
}

int sm_socket_backend_replug(struct sm_net_backend *backend, int fd, sm_error *err)
{
    struct socket_backend *sb = socket_backend_of(backend);
    sm_frame_socket_destroy(sb->socket);
    sb->socket = NULL;
    sb->heard = sb->told = sb->settled = false;
    int rc = fd >= 0 ? plug(sb, fd, err) : 0;
    if (sb->socket && sb->speaks_first) {
        tell(sb);
        sm_frame_socket_flush(sb->socket);
    }
    sm_net_tx_resume(sb->base.card); /* to the new one, or lost */
    return rc;
}

int sm_socket_backend_create(
    struct sm_loop *loop, int fd, bool speaks_first, struct sm_net_backend **backend, sm_error *err)
{
    static const struct sm_net_backend_ops ops = {
        .send = socket_send,
        .send_pieces = socket_send_pieces,
        .sent_all = socket_sent_all,
        .rx_ready = socket_rx_ready,
        .configure = socket_configure,
        .destroy = socket_destroy,
    };
    auto_free struct socket_backend *sb = calloc(1, sizeof(*sb));
    if (!sb)
        return sm_error_set(err, SM_ENOMEM, "no memory for the network card's socket");
    sb->base = (struct sm_net_backend){.ops = &ops, .mtu = SM_NET_MTU, .link_up = true};
    sb->loop = loop;
    sb->speaks_first = speaks_first;
    int rc = plug(sb, fd, err);
    if (!rc)
        *backend = &sm_steal_ptr(&sb)->base;
    return rc;
}

const struct sm_socket_backend_counters *sm_socket_backend_counters(
    const struct sm_net_backend *backend)
{
    return &((const struct socket_backend *)(const void *)backend)->counters;
}
