/* virtio-net. See virtio_net.h. */
#include "devices/virtio_net.h"

#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/error.h"
#include "util/inet_checksum.h"

#define QUEUE_MAX 256
#define BATCH     64 /* frames before the loop gets its turn */

#define F(bit) (1ULL << (bit))

/* The same whatever is behind the device, so that a snapshot can be restored onto another
 * backend. */
#define OFFLOADS                                                                                   \
    (F(VIRTIO_NET_F_CSUM) | F(VIRTIO_NET_F_GUEST_CSUM) | F(VIRTIO_NET_F_GUEST_TSO4) |              \
        F(VIRTIO_NET_F_GUEST_TSO6) | F(VIRTIO_NET_F_GUEST_ECN) | F(VIRTIO_NET_F_HOST_TSO4) |       \
        F(VIRTIO_NET_F_HOST_TSO6) | F(VIRTIO_NET_F_HOST_ECN))

struct config {
    uint8_t mac[6];
    uint8_t status[2];
    uint8_t max_queue_pairs[2];
    uint8_t mtu[2];
};

struct net {
    struct sm_virtio_dev dev;
    struct sm_net_card card; /* what the backend sees */
    struct sm_net_backend *backend;
    struct config config;
    bool rx_wanted;  /* the backend waits for buffers */
    bool tx_stopped; /* the backend could not take the frame at the head of the ring */
    struct sm_net_counters counters;
    /* Scratch: a chain that is being sent; the first and the present one that a frame is put into.
     * What is sent can be answered before it is done with. */
    struct sm_virtq_chain sent, first, chain;
    uint8_t frame[SM_NET_MAX_FRAME];
};

static struct net *net_of(struct sm_virtio_dev *dev)
{
    return (struct net *)(void *)dev;
}

static struct net *net_of_card(struct sm_net_card *card)
{
    return (struct net *)(void *)((char *)card - offsetof(struct net, card));
}

static uint64_t features_of(const struct net *net)
{
    return net->dev.driver_features[0] | (uint64_t)net->dev.driver_features[1] << 32;
}

static void count(atomic_ullong *counter, unsigned long long n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

/* ---- guest to backend ---------------------------------------------------------------------- */

bool sm_net_header_is_sane(uint64_t features, struct virtio_net_hdr_v1 *hdr, size_t len)
{
    hdr->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM;
    hdr->num_buffers = 0;
    if (hdr->flags) {
        if (!(features & F(VIRTIO_NET_F_CSUM)) ||
            (size_t)hdr->csum_start + hdr->csum_offset + 2 > len)
            return false;
    } else {
        hdr->csum_start = hdr->csum_offset = 0;
    }
    if (hdr->gso_type == VIRTIO_NET_HDR_GSO_NONE) {
        hdr->gso_size = hdr->hdr_len = 0;
        return true;
    }
    if ((hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN) && !(features & F(VIRTIO_NET_F_HOST_ECN)))
        return false;
    if (!hdr->flags || hdr->gso_size == 0 || hdr->hdr_len > len)
        return false;
    unsigned gso = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    return (gso == VIRTIO_NET_HDR_GSO_TCPV4 && (features & F(VIRTIO_NET_F_HOST_TSO4))) ||
           (gso == VIRTIO_NET_HDR_GSO_TCPV6 && (features & F(VIRTIO_NET_F_HOST_TSO6)));
}

static struct virtio_net_hdr_v1 load_header(const uint8_t raw[SM_NET_HDR])
{
    return (struct virtio_net_hdr_v1){
        .flags = raw[0],
        .gso_type = raw[1],
        .hdr_len = sm_load_le16(raw + 2),
        .gso_size = sm_load_le16(raw + 4),
        .csum_start = sm_load_le16(raw + 6),
        .csum_offset = sm_load_le16(raw + 8),
    };
}

/* Gives the backend a frame whose header is checked. */
static bool hand_over(struct net *net, const struct sm_virtq_chain *chain,
    const struct virtio_net_hdr_v1 *hdr, size_t len)
{
    const struct sm_net_backend_ops *ops = net->backend->ops;
    if (ops->send_pieces && chain->n_readable <= SM_NET_MAX_PIECES) {
        struct iovec pieces[SM_NET_MAX_PIECES];
        unsigned n = sm_iov_slice(chain->iov, chain->n_readable, SM_NET_HDR, len, pieces);
        return ops->send_pieces(net->backend, hdr, pieces, n, len);
    }
    sm_iov_read(chain->iov, chain->n_readable, SM_NET_HDR, net->frame, len);
    return ops->send(net->backend, hdr, net->frame, len);
}

/* Sends one chain; false: the backend wants it later. What is malformed is dropped. */
static bool transmit(struct net *net, const struct sm_virtq_chain *chain)
{
    if (chain->readable_bytes < SM_NET_HDR + 14 ||
        chain->readable_bytes > SM_NET_HDR + sizeof(net->frame)) {
        count(&net->counters.tx_bad, 1);
        return true;
    }
    uint8_t raw[SM_NET_HDR];
    size_t len = chain->readable_bytes - sizeof(raw);
    sm_iov_read(chain->iov, chain->n_readable, 0, raw, sizeof(raw));
    struct virtio_net_hdr_v1 hdr = load_header(raw);
    if (!sm_net_header_is_sane(features_of(net), &hdr, len)) {
        count(&net->counters.tx_bad, 1);
        return true;
    }
    if (!hand_over(net, chain, &hdr, len))
        return false;
    count(&net->counters.tx_frames, 1);
    count(&net->counters.tx_bytes, len);
    return true;
}

static void drain_tx(struct net *net)
{
    if (net->tx_stopped)
        return;
    struct sm_virtq *vq = &net->dev.vq[SM_NET_TX];
    sm_virtq_notify_off(vq);
    unsigned n = 0;
    for (;;) {
        if (n == BATCH) { /* others have their turn; kicks stay off until then */
            sm_virtio_again(&net->dev, SM_NET_TX);
            break;
        }
        if (!sm_virtq_pop(vq, &net->sent)) {
            if (sm_virtq_notify_on(vq))
                continue;
            break;
        }
        if (!transmit(net, &net->sent)) {
            sm_virtq_unpop(vq);
            net->tx_stopped = true;
            break;
        }
        sm_virtq_push(vq, net->sent.head, 0);
        n++;
    }
    if (n > 0 && net->backend->ops->sent_all)
        net->backend->ops->sent_all(net->backend);
    sm_virtio_publish(&net->dev, SM_NET_TX);
}

static void card_tx_resume(struct sm_net_card *card)
{
    struct net *net = net_of_card(card);
    if (!net->tx_stopped)
        return;
    net->tx_stopped = false;
    drain_tx(net);
}

/* ---- backend to guest ---------------------------------------------------------------------- */

static void store_header(
    uint8_t raw[SM_NET_HDR], const struct virtio_net_hdr_v1 *hdr, unsigned buffers)
{
    raw[0] = hdr->flags;
    raw[1] = hdr->gso_type;
    sm_store_le16(raw + 2, hdr->hdr_len);
    sm_store_le16(raw + 4, hdr->gso_size);
    sm_store_le16(raw + 6, hdr->csum_start);
    sm_store_le16(raw + 8, hdr->csum_offset);
    sm_store_le16(raw + 10, (uint16_t)buffers);
}

enum fill { FILLED, NO_BUFFERS, UNDELIVERABLE };

/*
 * Copies the frame into buffers as they are popped; nothing of it is visible before they are
 * pushed, so when the buffers do not suffice they all go back, after the guest was asked to kick
 * when it adds more behind them. The header, whose last field says how many buffers it took, is
 * written at the end.
 */
static enum fill fill_buffers(
    struct net *net, const struct virtio_net_hdr_v1 *hdr, const uint8_t *frame, size_t len)
{
    struct sm_virtq *vq = &net->dev.vq[SM_NET_RX];
    unsigned max = sm_virtio_has(&net->dev, F(VIRTIO_NET_F_MRG_RXBUF)) ? SM_NET_MAX_MERGE : 1;
    struct {
        uint16_t head;
        uint32_t written;
    } used[SM_NET_MAX_MERGE];
    enum fill result = UNDELIVERABLE;
    size_t done = 0;
    unsigned n = 0;
    while (done < len && n < max) {
        struct sm_virtq_chain *chain = n == 0 ? &net->first : &net->chain;
        if (!sm_virtq_pop(vq, chain)) {
            if (vq->running && !vq->broken) {
                if (sm_virtq_notify_on(vq))
                    continue;
                result = NO_BUFFERS;
            }
            break;
        }
        size_t skip = n == 0 ? SM_NET_HDR : 0;
        size_t put = sm_iov_write(
            sm_virtq_writable(chain), chain->n_writable, skip, frame + done, len - done);
        done += put;
        used[n].head = chain->head;
        used[n].written = (uint32_t)(skip + put);
        n++;
        if (chain->writable_bytes <=
            skip) { /* no driver that follows the rules has such a buffer */
            sm_virtio_broken(&net->dev);
            break;
        }
    }
    if (done < len) {
        while (n-- > 0)
            sm_virtq_unpop(vq);
        return result;
    }
    uint8_t raw[SM_NET_HDR];
    store_header(raw, hdr, n);
    sm_iov_write(sm_virtq_writable(&net->first), net->first.n_writable, 0, raw, sizeof(raw));
    for (unsigned i = 0; i < n; i++)
        sm_virtq_push(vq, used[i].head, used[i].written);
    return FILLED;
}

static bool card_deliver(
    struct sm_net_card *card, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    struct net *net = net_of_card(card);
    if (net->rx_wanted)
        return false;
    enum fill result = UNDELIVERABLE;
    if (len > 0 && len <= SM_NET_MAX_FRAME)
        result = fill_buffers(net, hdr, frame, len);
    switch (result) {
    case FILLED:
        count(&net->counters.rx_frames, 1);
        count(&net->counters.rx_bytes, len);
        return true;
    case NO_BUFFERS:
        net->rx_wanted = true;
        return false;
    case UNDELIVERABLE:
        break;
    }
    count(&net->counters.rx_dropped, 1);
    return true;
}

static void card_flush(struct sm_net_card *card)
{
    sm_virtio_publish(&net_of_card(card)->dev, SM_NET_RX);
}

static const struct sm_net_card_ops card_ops = {
    .deliver = card_deliver,
    .flush = card_flush,
    .tx_resume = card_tx_resume,
};

bool sm_net_fits_driver(uint64_t features, struct virtio_net_hdr_v1 *hdr, size_t len)
{
    hdr->flags &= VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;
    if (!(features & F(VIRTIO_NET_F_GUEST_CSUM))) {
        if (hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
            return false;
        hdr->flags = 0;
    }
    if ((hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) &&
        (size_t)hdr->csum_start + hdr->csum_offset + 2 > len)
        return false;
    switch (hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
    case VIRTIO_NET_HDR_GSO_NONE:
        break;
    case VIRTIO_NET_HDR_GSO_TCPV4:
        if (!(features & F(VIRTIO_NET_F_GUEST_TSO4)))
            return false;
        break;
    case VIRTIO_NET_HDR_GSO_TCPV6:
        if (!(features & F(VIRTIO_NET_F_GUEST_TSO6)))
            return false;
        break;
    default:
        return false;
    }
    return !(hdr->gso_type & VIRTIO_NET_HDR_GSO_ECN) || (features & F(VIRTIO_NET_F_GUEST_ECN));
}

void sm_net_complete_checksum(const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    if (!(hdr->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
        return;
    /* The field holds the sum of the pseudo header; 0 means "none" in UDP and is sent as -0. */
    uint16_t sum = sm_inet_finish(sm_inet_sum(frame + hdr->csum_start, len - hdr->csum_start, 0));
    if (sum == 0)
        sum = 0xffff;
    memcpy(frame + hdr->csum_start + hdr->csum_offset, &sum, sizeof(sum));
}

/* ---- device -------------------------------------------------------------------------------- */

static void net_config_read(struct sm_virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, (const uint8_t *)&net_of(dev)->config + offset, len);
}

static void configure(struct net *net)
{
    net->backend->ops->configure(net->backend, features_of(net) & OFFLOADS);
}

static void net_activate(struct sm_virtio_dev *dev)
{
    /* Receive buffers are only looked for when there is a frame: their kicks are of no use. */
    sm_virtq_notify_off(&dev->vq[SM_NET_RX]);
    configure(net_of(dev));
}

static void net_notify(struct sm_virtio_dev *dev, unsigned q)
{
    struct net *net = net_of(dev);
    if (q == SM_NET_TX) {
        drain_tx(net);
    } else if (net->rx_wanted) {
        net->rx_wanted = false;
        sm_virtq_notify_off(&dev->vq[SM_NET_RX]);
        net->backend->ops->rx_ready(net->backend);
    }
}

static void net_reset(struct sm_virtio_dev *dev)
{
    struct net *net = net_of(dev);
    net->rx_wanted = net->tx_stopped = false;
    net->backend->ops->configure(net->backend, 0);
}

/* The one thing that the guest's driver remembers and that may be another after a restore: whether
 * there is a link. (Another MAC address must be told to it by the agent.) */
static void net_save(struct sm_virtio_dev *dev, uint64_t extra[SM_VIRTIO_EXTRA])
{
    extra[0] = net_of(dev)->backend->link_up;
}

static void net_load(struct sm_virtio_dev *dev, const uint64_t extra[SM_VIRTIO_EXTRA])
{
    struct net *net = net_of(dev);
    configure(net);
    if (extra[0] != net->backend->link_up)
        sm_virtio_config_changed(dev);
}

static void net_destroy(struct sm_virtio_dev *dev)
{
    struct net *net = net_of(dev);
    sm_virtio_fini(dev);
    net->backend->ops->destroy(net->backend);
    free(net);
}

static const struct sm_virtio_ops net_ops = {
    .name = "net",
    .id = SM_VIRTIO_ID_NET,
    .n_queues = 2,
    .queue_max = QUEUE_MAX,
    .config_size = sizeof(struct config),
    .config_read = net_config_read,
    .activate = net_activate,
    .notify = net_notify,
    .reset = net_reset,
    .save = net_save,
    .load = net_load,
    .destroy = net_destroy,
};

int sm_virtio_net_create(const struct sm_virtio_env *env, const uint8_t mac[6],
    struct sm_net_backend *backend, struct sm_virtio_dev **dev, sm_error *err)
{
    struct net *net = malloc(sizeof(*net));
    if (!net)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the network device");
    memset(net, 0, offsetof(struct net, sent)); /* scratch is filled before it is read */
    memcpy(net->config.mac, mac, 6);
    sm_store_le16(net->config.status, backend->link_up ? VIRTIO_NET_S_LINK_UP : 0);
    sm_store_le16(net->config.max_queue_pairs, 1);
    sm_store_le16(net->config.mtu, backend->mtu);
    net->backend = backend;
    uint64_t features = F(VIRTIO_NET_F_MAC) | F(VIRTIO_NET_F_STATUS) | F(VIRTIO_NET_F_MTU) |
                        F(VIRTIO_NET_F_MRG_RXBUF) | OFFLOADS;
    int rc = sm_virtio_init(&net->dev, &net_ops, env, features, err);
    if (rc) {
        free(net);
        return rc;
    }
    net->card.ops = &card_ops;
    backend->card = &net->card;
    *dev = &net->dev;
    return 0;
}

const struct sm_net_counters *sm_virtio_net_counters(const struct sm_virtio_dev *dev)
{
    return &((const struct net *)(const void *)dev)->counters;
}
