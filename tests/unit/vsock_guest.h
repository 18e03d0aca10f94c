/* The driver's side of virtio-vsock for tests, on top of fake_guest.h. */
#ifndef VSOCK_GUEST_H
#define VSOCK_GUEST_H

#include "devices/vsock/vsock.h"
#include "fake_guest.h"

enum {
    VG_REQUEST = 1,
    VG_RESPONSE,
    VG_RST,
    VG_SHUTDOWN,
    VG_RW,
    VG_CREDIT_UPDATE,
    VG_CREDIT_REQUEST,
};

#define VG_HEADER  44u
#define VG_RX_SIZE 65536u
#define VG_TX_SLOT (VG_HEADER + 65536u)
#define VG_EVENTS  4u
#define VG_Q_EVENT 2u /* index of the event queue */

struct vg_packet {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port, len;
    uint16_t type, op;
    uint32_t flags, buf_alloc, fwd_cnt;
    const uint8_t *data;
};

struct vg {
    struct fg fg;
    struct sm_virtio_dev *dev;
    struct fg_queue q[3];
    unsigned size;
    uint32_t rx_bytes;
    uint64_t rx_bufs, tx_bufs, event_bufs;
    bool refill;       /* give rx buffers back as soon as they were read */
    uint32_t held[64]; /* those that were not given back */
    unsigned n_held;
    uint32_t buf_alloc, fwd_cnt; /* what our packets say */
};

static inline void vg_init(
    struct vg *g, struct sm_virtio_dev *dev, unsigned size, uint32_t rx_bytes)
{
    g->dev = dev;
    g->size = size;
    g->rx_bytes = rx_bytes;
    g->refill = true;
    g->n_held = 0;
    g->buf_alloc = 1u << 20;
    g->fwd_cnt = 0;
    g->fg.heap = FG_RAM_GPA + FG_HEAP;
    fg_probe(&g->fg, dev, UINT64_MAX, g->q, 3, size);
    g->rx_bufs = fg_alloc(&g->fg, (size_t)rx_bytes * size);
    g->tx_bufs = fg_alloc(&g->fg, (size_t)VG_TX_SLOT * size);
    g->event_bufs = fg_alloc(&g->fg, 64);
    for (unsigned i = 0; i < size; i++) {
        fg_desc(&g->q[0], i, g->rx_bufs + (uint64_t)i * rx_bytes, rx_bytes, FG_WRITE, 0);
        fg_offer(&g->q[0], i);
    }
    for (unsigned i = 0; i < VG_EVENTS; i++) {
        fg_desc(&g->q[VG_Q_EVENT], i, g->event_bufs + 8 * i, 8, FG_WRITE, 0);
        fg_offer(&g->q[VG_Q_EVENT], i);
    }
    fg_kick(dev, 0);
    fg_kick(dev, VG_Q_EVENT);
}

/* A kick, unless the device said that it does not want one. */
static inline void vg_kick(struct vg *g, unsigned q)
{
    struct fg_queue *fq = &g->q[q];
    uint16_t event = fg_load16(&g->fg, fq->used + 4 + 8 * (uint64_t)fq->size);
    if ((uint16_t)(fq->avail_idx - 1) == event)
        fg_kick(g->dev, q);
}

static inline bool vg_tx_room(struct vg *g)
{
    while (fg_used(&g->q[1], NULL, NULL))
        ;
    return (uint16_t)(g->q[1].avail_idx - g->q[1].last_used) < g->size;
}

static inline void vg_send_bytes(struct vg *g, const void *bytes, uint32_t len)
{
    assert(vg_tx_room(g) && len <= VG_TX_SLOT);
    unsigned slot = g->q[1].avail_idx % g->size;
    uint64_t at = g->tx_bufs + (uint64_t)slot * VG_TX_SLOT;
    memcpy(fg_ptr(&g->fg, at), bytes, len);
    fg_desc(&g->q[1], slot, at, len, 0, 0);
    fg_offer(&g->q[1], slot);
    vg_kick(g, 1);
}

static inline void vg_send_raw(
    struct vg *g, const struct vg_packet *p, const void *data, uint32_t data_len)
{
    static _Thread_local uint8_t raw[VG_TX_SLOT];
    assert(data_len <= 65536);
    sm_store_le64(raw, p->src_cid);
    sm_store_le64(raw + 8, p->dst_cid);
    sm_store_le32(raw + 16, p->src_port);
    sm_store_le32(raw + 20, p->dst_port);
    sm_store_le32(raw + 24, p->len);
    sm_store_le16(raw + 28, p->type);
    sm_store_le16(raw + 30, p->op);
    sm_store_le32(raw + 32, p->flags);
    sm_store_le32(raw + 36, p->buf_alloc);
    sm_store_le32(raw + 40, p->fwd_cnt);
    if (data_len)
        memcpy(raw + VG_HEADER, data, data_len);
    vg_send_bytes(g, raw, VG_HEADER + data_len);
}

static inline void vg_send(struct vg *g, uint32_t guest_port, uint32_t host_port, unsigned op,
    uint32_t flags, const void *data, uint32_t len)
{
    struct vg_packet p = {.src_cid = 3,
        .dst_cid = 2,
        .src_port = guest_port,
        .dst_port = host_port,
        .len = len,
        .type = 1,
        .op = (uint16_t)op,
        .flags = flags,
        .buf_alloc = g->buf_alloc,
        .fwd_cnt = g->fwd_cnt};
    vg_send_raw(g, &p, data, len);
}

static inline void vg_give_back(struct vg *g, uint32_t id)
{
    fg_offer(&g->q[0], id);
    vg_kick(g, 0);
}

static inline void vg_refill(struct vg *g)
{
    while (g->n_held > 0)
        vg_give_back(g, g->held[--g->n_held]);
}

/* The next packet of the host; its data are valid until the next call. */
static inline bool vg_recv(struct vg *g, struct vg_packet *p)
{
    static _Thread_local uint8_t copy[VG_RX_SIZE];
    uint32_t id, len;
    if (g->refill)
        vg_refill(g);
    if (!fg_used(&g->q[0], &id, &len))
        return false;
    assert(id < g->size && len >= VG_HEADER && len <= g->rx_bytes);
    memcpy(copy, fg_ptr(&g->fg, g->rx_bufs + (uint64_t)id * g->rx_bytes), len);
    *p = (struct vg_packet){
        .src_cid = sm_load_le64(copy),
        .dst_cid = sm_load_le64(copy + 8),
        .src_port = sm_load_le32(copy + 16),
        .dst_port = sm_load_le32(copy + 20),
        .len = sm_load_le32(copy + 24),
        .type = sm_load_le16(copy + 28),
        .op = sm_load_le16(copy + 30),
        .flags = sm_load_le32(copy + 32),
        .buf_alloc = sm_load_le32(copy + 36),
        .fwd_cnt = sm_load_le32(copy + 40),
        .data = copy + VG_HEADER,
    };
    assert(p->len == len - VG_HEADER);
    if (g->refill)
        vg_give_back(g, id);
    else
        g->held[g->n_held++] = id;
    return true;
}

/* The id of an event that came, or -1. */
static inline int vg_event(struct vg *g)
{
    uint32_t id, len;
    if (!fg_used(&g->q[VG_Q_EVENT], &id, &len))
        return -1;
    assert(id < VG_EVENTS && len == 4);
    return (int)sm_load_le32(fg_ptr(&g->fg, g->event_bufs + 8 * (uint64_t)id));
}

/* Posts the oldest event buffer again, as the driver does when it has dealt with an event. */
static inline void vg_return_event(struct vg *g)
{
    unsigned id = g->q[VG_Q_EVENT].avail_idx % VG_EVENTS;
    fg_offer(&g->q[VG_Q_EVENT], id);
    vg_kick(g, VG_Q_EVENT);
}

#endif
