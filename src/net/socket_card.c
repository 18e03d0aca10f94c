/* The far end of a card's socket. See socket_card.h. */
#include "net/socket_card.h"

#include <stdlib.h>

#include "net/frame_socket.h"
#include "util/cleanup.h"
#include "util/error.h"

struct sm_socket_card {
    struct sm_net_card card; /* what the backend sees */
    struct sm_net_backend *backend;
    struct sm_frame_socket *socket;
    bool configured;
    uint64_t features;
    uint64_t bad;
    void (*gone)(void *arg);
    void *arg;
};

static struct sm_socket_card *socket_card_of(struct sm_net_card *card)
{
    return (struct sm_socket_card *)(void *)card;
}

/* ---- from the machine ---------------------------------------------------------------------- */

static bool on_frame(void *arg, struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct sm_socket_card *sc = arg;
    if (sc->configured && sm_net_header_is_sane(sc->features, hdr, len))
        return sc->backend->ops->send(sc->backend, hdr, frame, len);
    sc->bad++;
    return true;
}

static bool on_control(void *arg, enum sm_frame_control kind, uint32_t number, uint64_t features)
{
    struct sm_socket_card *sc = arg;
    if (kind != SM_FRAME_CONFIGURE)
        return false;
    sc->configured = true;
    sc->features = features;
    sc->backend->ops->configure(sc->backend, features);
    sm_frame_socket_control(sc->socket, SM_FRAME_CONFIGURED, number, 0);
    return true;
}

static void on_received(void *arg)
{
    struct sm_socket_card *sc = arg;
    if (sc->backend->ops->sent_all)
        sc->backend->ops->sent_all(sc->backend);
    sm_frame_socket_flush(sc->socket);
}

static void card_tx_resume(struct sm_net_card *card)
{
    sm_frame_socket_resume(socket_card_of(card)->socket);
}

/* ---- to the machine ------------------------------------------------------------------------ */

static bool card_deliver(
    struct sm_net_card *card, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    return sm_frame_socket_put(socket_card_of(card)->socket, hdr, frame, len);
}

static void card_flush(struct sm_net_card *card)
{
    sm_frame_socket_flush(socket_card_of(card)->socket);
}

static void on_room(void *arg)
{
    struct sm_socket_card *sc = arg;
    sc->backend->ops->rx_ready(sc->backend);
}

/* ---- life ---------------------------------------------------------------------------------- */

static void on_gone(void *arg)
{
    struct sm_socket_card *sc = arg;
    sc->gone(sc->arg);
}

int sm_socket_card_create(struct sm_loop *loop, const struct sm_socket_card_config *config,
    struct sm_socket_card **card, sm_error *err)
{
    static const struct sm_net_card_ops ops = {
        .deliver = card_deliver,
        .flush = card_flush,
        .tx_resume = card_tx_resume,
    };
    static const struct sm_frame_socket_user user = {
        .frame = on_frame,
        .control = on_control,
        .received = on_received,
        .room = on_room,
        .gone = on_gone,
    };
    auto_free struct sm_socket_card *sc = calloc(1, sizeof(*sc));
    if (!sc)
        return sm_error_set(err, SM_ENOMEM, "no memory for the network card's socket");
    sc->card.ops = &ops;
    sc->backend = config->backend;
    sc->gone = config->gone;
    sc->arg = config->arg;
    int rc = sm_frame_socket_create(loop, config->fd, &user, sc, &sc->socket, err);
    if (rc)
        return rc;
    config->backend->card = &sc->card;
    *card = sm_steal_ptr(&sc);
    return 0;
}

void sm_socket_card_destroy(struct sm_socket_card *sc)
{
    if (!sc)
        return;
    sc->backend->ops->destroy(sc->backend); /* may still deliver */
    sm_frame_socket_destroy(sc->socket);
    free(sc);
}

uint64_t sm_socket_card_bad(const struct sm_socket_card *sc)
{
    return sc->bad;
}
