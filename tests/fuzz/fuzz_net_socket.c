/*
 * Hostile records at both ends of a card's socket: what reaches the guest's driver must be what it
 * has negotiated, what reaches a backend what it may rely on, and neither end may wait for ever.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "net/frame_socket.h"
#include "net/socket_backend.h"
#include "net/socket_card.h"
#include "net/user_net.h"
#include "util/bytes.h"
#include "util/error.h"

#define MAX_RECORD (SM_NET_HDR + SM_NET_MAX_FRAME + 100)

struct world {
    struct sm_loop *loop;
    struct sm_net_card card; /* of the machine's end */
    struct sm_net_backend *near;
    struct sm_net_backend backend; /* of the far end, unless it is the real one */
    struct sm_socket_card *far;
    uint64_t features; /* of the machine's end as it was configured, or of the far end's backend */
    bool refuses;
    int raw;
    uint32_t sum; /* of all frames: they can be read */
};

static bool look(struct world *w, const struct virtio_net_hdr_v1 *hdr, const void *data, size_t len)
{
    const uint8_t *frame = data;
    fuzz_demand(len >= 14 && len <= SM_NET_MAX_FRAME);
    fuzz_demand(!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) ||
                (size_t)hdr->csum_start + hdr->csum_offset + 2 <= len);
    for (size_t i = 0; i < len; i++)
        w->sum += frame[i];
    return !w->refuses;
}

/* ---- the machine's end ----------------------------------------------------------------------- */

static struct world *of_card(struct sm_net_card *card)
{
    return (struct world *)(void *)((char *)card - offsetof(struct world, card));
}

static bool guest_deliver(
    struct sm_net_card *card, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    struct world *w = of_card(card);
    unsigned gso = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    fuzz_demand(!hdr->flags || (w->features & (1u << VIRTIO_NET_F_GUEST_CSUM)));
    fuzz_demand(!(hdr->flags & ~(VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID)));
    fuzz_demand(
        gso == VIRTIO_NET_HDR_GSO_NONE ||
        (gso == VIRTIO_NET_HDR_GSO_TCPV4 && (w->features & (1u << VIRTIO_NET_F_GUEST_TSO4))) ||
        (gso == VIRTIO_NET_HDR_GSO_TCPV6 && (w->features & (1u << VIRTIO_NET_F_GUEST_TSO6))));
    return look(w, hdr, frame, len);
}

static void guest_flush(struct sm_net_card *card)
{
    (void)card;
}

static void guest_tx_resume(struct sm_net_card *card)
{
    struct world *w = of_card(card);
    static uint8_t frame[100];
    (void)w->near->ops->send(w->near, &(struct virtio_net_hdr_v1){0}, frame, sizeof(frame));
}

/* ---- the far end ----------------------------------------------------------------------------- */

static struct world *of_backend(struct sm_net_backend *backend)
{
    return (struct world *)(void *)((char *)backend - offsetof(struct world, backend));
}

static bool checking_send(
    struct sm_net_backend *b, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct world *w = of_backend(b);
    unsigned gso = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    fuzz_demand(!(hdr->flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM));
    fuzz_demand(!hdr->flags || w->features & (1u << VIRTIO_NET_F_CSUM));
    fuzz_demand(
        gso == VIRTIO_NET_HDR_GSO_NONE ||
        (gso == VIRTIO_NET_HDR_GSO_TCPV4 && (w->features & (1u << VIRTIO_NET_F_HOST_TSO4))) ||
        (gso == VIRTIO_NET_HDR_GSO_TCPV6 && (w->features & (1u << VIRTIO_NET_F_HOST_TSO6))));
    fuzz_demand(
        gso == VIRTIO_NET_HDR_GSO_NONE || (hdr->flags && hdr->gso_size && hdr->hdr_len <= len));
    if (!look(w, hdr, frame, len))
        return false;
    sm_net_complete_checksum(hdr, frame, len);
    (void)sm_net_deliver(b->card, hdr, frame, len);
    return true;
}

static void checking_configure(struct sm_net_backend *b, uint64_t features)
{
    of_backend(b)->features = features;
}

static void checking_nothing(struct sm_net_backend *b)
{
    (void)b;
}

static void on_gone(void *arg)
{
    struct world *w = arg;
    sm_socket_card_destroy(w->far);
    w->far = NULL;
}

static struct sm_net_backend *make_backend(struct world *w, bool real)
{
    static const struct sm_net_backend_ops ops = {
        .send = checking_send,
        .rx_ready = checking_nothing,
        .configure = checking_configure,
        .destroy = checking_nothing,
    };
    static const char nothing[] = "layer none"; /* so no socket of this machine is reached */
    struct sm_net_backend *backend = &w->backend;
    if (!real) {
        w->backend.ops = &ops;
        return backend;
    }
    auto_policy policy = {0};
    fuzz_demand(sm_policy_parse(nothing, strlen(nothing), &policy, NULL) == 0);
    fuzz_demand(sm_user_net_create(
                    w->loop, &(struct sm_user_net_config){.policy = &policy}, &backend, NULL) == 0);
    return backend;
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void set_up(struct world *w, unsigned kind)
{
    static const struct sm_net_card_ops ops = {
        .deliver = guest_deliver, .flush = guest_flush, .tx_resume = guest_tx_resume};
    int ends[2];
    fuzz_demand(sm_loop_create(&w->loop, NULL) == 0 && sm_frame_socket_pair(ends, NULL) == 0);
    w->raw = ends[1];
    w->card.ops = &ops;
    if (kind == 0) {
        fuzz_demand(sm_socket_backend_create(w->loop, ends[0], true, &w->near, NULL) == 0);
        w->near->card = &w->card;
        return;
    }
    const struct sm_socket_card_config config = {
        .fd = ends[0], .backend = make_backend(w, kind == 2), .gone = on_gone, .arg = w};
    fuzz_demand(sm_socket_card_create(w->loop, &config, &w->far, NULL) == 0);
}

static void send_record(struct world *w, struct fuzz_input *in)
{
    static uint8_t record[MAX_RECORD];
    unsigned how = fuzz_take(in, 1);
    size_t len = how & 1 ? fuzz_take(in, 3) % (MAX_RECORD + 1) : fuzz_take(in, 1);
    size_t said = SM_MIN(len, (size_t)fuzz_take(in, 1));
    for (size_t i = 0; i < said; i++)
        record[i] = (uint8_t)fuzz_take(in, 1);
    (void)!send(w->raw, record, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void send_control(struct world *w, struct fuzz_input *in)
{
    struct {
        uint32_t kind, number;
        uint64_t features;
    } control = {fuzz_take(in, 1) % 4, fuzz_take(in, 1), fuzz_take(in, 4)};
    (void)!send(w->raw, &control, sizeof(control), MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void configure(struct world *w, struct fuzz_input *in)
{
    w->features = fuzz_take(in, 4);
    if (w->near)
        w->near->ops->configure(w->near, w->features);
}

static void replug(struct world *w)
{
    int ends[2];
    if (!w->near)
        return;
    fuzz_demand(sm_frame_socket_pair(ends, NULL) == 0);
    fuzz_demand(sm_socket_backend_replug(w->near, ends[0], NULL) == 0);
    close(w->raw);
    w->raw = ends[1];
}

static void step(struct world *w, struct fuzz_input *in)
{
    static uint8_t record[MAX_RECORD];
    switch (fuzz_take(in, 1) % 8) {
    case 0:
    case 1:
        send_record(w, in);
        break;
    case 2:
        send_control(w, in);
        break;
    case 3:
        sm_loop_turn(w->loop);
        break;
    case 4:
        w->refuses = !w->refuses;
        if (w->near && !w->refuses)
            w->near->ops->rx_ready(w->near);
        if (w->far && w->backend.card && !w->refuses)
            sm_net_tx_resume(w->backend.card);
        break;
    case 5:
        if (w->near)
            configure(w, in);
        break;
    case 6:
        replug(w);
        break;
    default:
        while (recv(w->raw, record, sizeof(record), MSG_DONTWAIT) > 0)
            ;
        break;
    }
}

/* Input: which end, then steps. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct world w = {0};
    unsigned kind = fuzz_take(&in, 1) % 3;
    set_up(&w, kind);
    for (unsigned steps = 0; in.left > 0 && steps < 300; steps++)
        step(&w, &in);
    w.refuses = false;
    sm_loop_turn(w.loop);
    if (w.near)
        w.near->ops->destroy(w.near);
    sm_socket_card_destroy(w.far);
    sm_loop_destroy(w.loop);
    close(w.raw);
    return 0;
}
