/*
 * virtio-net (virtio 1.2, 5.1): one receive and one transmit queue, mergeable receive buffers,
 * checksum and segmentation offload as far as the backend takes part; no control queue.
 *
 * A frame of the guest is copied out of guest memory once and then judged and sent from that copy,
 * so the guest cannot change it in between: by the device, or by the kernel for a backend that only
 * passes it on. Frames to the guest go straight into its buffers. Nothing is queued here in either
 * direction: a backend that cannot take a frame gets it again later (the guest's ring is the
 * queue), and a frame for which the guest has no buffers stays with the backend.
 *
 * Backends know nothing of rings or guest memory, nor of the device: they are plugged into a card,
 * which is this device or one at the far end of a socket, in another process. All their functions
 * run on their loop's thread. Each must take what the offered features allow: checksums that are
 * left to it, and TCP segments beyond the MTU.
 */
#ifndef SM_DEVICES_VIRTIO_NET_H
#define SM_DEVICES_VIRTIO_NET_H

#include <linux/virtio_net.h>
#include <sys/uio.h>

#include "devices/virtio_mmio.h"

#define SM_NET_RX         0
#define SM_NET_TX         1
#define SM_NET_HDR        12    /* bytes of struct virtio_net_hdr_v1 */
#define SM_NET_MAX_FRAME  65562 /* Ethernet header, VLAN tag, largest IP packet; rounded up */
#define SM_NET_MAX_MERGE  64    /* receive buffers that one frame may take */
#define SM_NET_MAX_PIECES 64
#define SM_NET_MTU        65520 /* of networks that end in this process: fewer, larger frames */

struct sm_net_backend;
struct sm_net_card;

struct sm_net_card_ops {
    bool (*deliver)(struct sm_net_card *card, const struct virtio_net_hdr_v1 *hdr,
        const void *frame, size_t len);
    void (*flush)(struct sm_net_card *card);
    void (*tx_resume)(struct sm_net_card *card);
};

/* What a backend is plugged into. */
struct sm_net_card {
    const struct sm_net_card_ops *ops;
};

struct sm_net_backend_ops {
    /* A frame from the guest; the header is checked and names only what was negotiated. False: not
     * now, sm_net_tx_resume will be called. The frame may be written to. */
    bool (*send)(struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr,
        uint8_t *frame, size_t len);
    /* The same for who does not look at the frame, which still lies in guest memory and may change:
     * SM_NET_MAX_PIECES at most. NULL: send is called. */
    bool (*send_pieces)(struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr,
        const struct iovec *pieces, unsigned n, size_t len);
    void (*sent_all)(struct sm_net_backend *backend); /* end of a batch of sends; may be NULL */
    /* There are receive buffers again after sm_net_deliver said no. */
    void (*rx_ready)(struct sm_net_backend *backend);
    /* The driver runs with these features of the device type (0: was reset, drop what is
     * queued). */
    void (*configure)(struct sm_net_backend *backend, uint64_t features);
    void (*destroy)(struct sm_net_backend *backend);
};

struct sm_net_backend {
    const struct sm_net_backend_ops *ops;
    uint16_t mtu;
    bool link_up;
    struct sm_net_card *card; /* set by what it is plugged into */
};

struct sm_net_counters {
    atomic_ullong tx_frames, tx_bytes, tx_bad;
    atomic_ullong rx_frames, rx_bytes, rx_dropped;
};

/* The device owns the backend from then on (not on failure). */
int sm_virtio_net_create(const struct sm_virtio_env *env, const uint8_t mac[6],
    struct sm_net_backend *backend, struct sm_virtio_dev **dev, sm_error *err);

const struct sm_net_counters *sm_virtio_net_counters(const struct sm_virtio_dev *dev);

/* ---- for backends -------------------------------------------------------------------------- */

/* Gives a frame to the guest (hdr->num_buffers is filled in). True: delivered, or dropped because
 * this guest can never take it. False: no buffers now, rx_ready will tell. */
static inline bool sm_net_deliver(
    struct sm_net_card *card, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    return card->ops->deliver(card, hdr, frame, len);
}
/* Shows the guest what was delivered; at the end of a batch. */
static inline void sm_net_flush(struct sm_net_card *card)
{
    card->ops->flush(card);
}
/* The backend can send again. */
static inline void sm_net_tx_resume(struct sm_net_card *card)
{
    card->ops->tx_resume(card);
}

/* What a driver may ask for in a header, with these features negotiated: a checksum in bounds,
 * segmentation of a kind that was offered. What it says beyond that is taken out. */
bool sm_net_header_is_sane(uint64_t features, struct virtio_net_hdr_v1 *hdr, size_t len);
/* And what a driver that negotiated these can be given. */
bool sm_net_fits_driver(uint64_t features, struct virtio_net_hdr_v1 *hdr, size_t len);

/* Does what NEEDS_CSUM asks for; the header has been checked against the length. */
void sm_net_complete_checksum(const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len);

#endif
