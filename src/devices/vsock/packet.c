/* The packets of a vsock device. See packet.h. */
#include "devices/vsock/packet.h"

#include <string.h>

#include "util/bytes.h"

#define TX_PER_TURN   64u
#define RX_PER_TURN   128u
#define RX_PER_STREAM 16u
#define TX_RETURN_MS  20u

/* ---- packets to the guest -------------------------------------------------------------------- */

static void store_header(uint8_t raw[VSOCK_HEADER_BYTES], const struct vsock_header *h)
{
    sm_store_le64(raw, h->src_cid);
    sm_store_le64(raw + 8, h->dst_cid);
    sm_store_le32(raw + 16, h->src_port);
    sm_store_le32(raw + 20, h->dst_port);
    sm_store_le32(raw + 24, h->len);
    sm_store_le16(raw + 28, h->type);
    sm_store_le16(raw + 30, h->op);
    sm_store_le32(raw + 32, h->flags);
    sm_store_le32(raw + 36, h->buf_alloc);
    sm_store_le32(raw + 40, h->fwd_cnt);
}

static void push_packet(
    struct vsock_packets *p, struct sm_virtq_chain *c, const struct vsock_header *h)
{
    uint8_t raw[VSOCK_HEADER_BYTES];
    store_header(raw, h);
    sm_iov_write(sm_virtq_writable(c), c->n_writable, 0, raw, sizeof(raw));
    sm_virtq_push(&p->dev->vq[VSOCK_Q_RX], c->head, VSOCK_HEADER_BYTES + h->len);
    p->stats.packets_to_guest++;
    if (h->op == VSOCK_OP_RST)
        p->stats.resets_sent++;
}

static struct vsock_header header_of(
    const struct vsock_packets *p, const struct vsock_stream *s, enum vsock_op op)
{
    return (struct vsock_header){
        .src_cid = SM_VSOCK_HOST_CID,
        .dst_cid = p->guest_cid,
        .src_port = s->host_port,
        .dst_port = s->guest_port,
        .type = VSOCK_TYPE_STREAM,
        .op = (uint16_t)op,
        .buf_alloc = SM_VSOCK_BUF_ALLOC,
        .fwd_cnt = s->fwd_cnt,
    };
}

static bool take(struct vsock_stream *s, enum vsock_op op)
{
    bool there = s->send & 1u << op;
    s->send &= ~(1u << op);
    return there;
}

/* Fills the chain with the stream's next packet; false: it had none after all. May free the
 * stream. */
static bool send_one(struct vsock_packets *p, struct vsock_stream *s, struct sm_virtq_chain *c)
{
    struct vsock_header h = header_of(p, s, VSOCK_OP_RST);
    if (take(s, VSOCK_OP_RST)) {
        push_packet(p, c, &h);
        sm_vsock_stream_free(s);
        return true;
    }
    if (take(s, VSOCK_OP_REQUEST)) {
        h.op = VSOCK_OP_REQUEST;
    } else if (take(s, VSOCK_OP_RESPONSE)) {
        h.op = VSOCK_OP_RESPONSE;
    } else if (s->shut & ~s->shut_sent) {
        h.op = VSOCK_OP_SHUTDOWN;
        h.flags = s->shut;
        s->shut_sent = s->shut;
    } else {
        struct iovec room[SM_VIRTQ_MAX_SIZE];
        size_t len = 0;
        uint32_t credit = sm_vsock_stream_credit(s);
        if (s->state == STREAM_ESTABLISHED && s->readable && credit > 0) {
            size_t space = SM_MIN(c->writable_bytes - VSOCK_HEADER_BYTES, (size_t)credit);
            unsigned n =
                sm_iov_slice(sm_virtq_writable(c), c->n_writable, VSOCK_HEADER_BYTES, space, room);
            len = sm_vsock_stream_fill(s, room, n);
        }
        if (len > 0) {
            h.op = VSOCK_OP_RW;
            h.len = (uint32_t)len;
            s->tx_cnt += h.len;
            s->credit_asked = false;
            p->stats.bytes_to_guest += len;
            if (s->readable && sm_vsock_stream_credit(s) == 0)
                s->send |= 1u << VSOCK_OP_CREDIT_REQUEST;
        } else if (s->shut & ~s->shut_sent) { /* the read has found the end */
            h.op = VSOCK_OP_SHUTDOWN;
            h.flags = s->shut;
            s->shut_sent = s->shut;
        } else if (take(s, VSOCK_OP_CREDIT_UPDATE)) {
            h.op = VSOCK_OP_CREDIT_UPDATE;
        } else if (take(s, VSOCK_OP_CREDIT_REQUEST)) {
            if (s->credit_asked || sm_vsock_stream_credit(s) > 0)
                return false;
            s->credit_asked = true;
            h.op = VSOCK_OP_CREDIT_REQUEST;
        } else {
            return false;
        }
    }
    take(s, VSOCK_OP_CREDIT_UPDATE); /* every packet carries it */
    s->fwd_told = s->fwd_cnt;
    push_packet(p, c, &h);
    return true;
}

/* Takes an rx buffer; false: none. One that cannot hold a byte of data is the driver's mistake. */
static bool pop_rx(struct vsock_packets *p, struct sm_virtq_chain *c)
{
    struct sm_virtq *rx = &p->dev->vq[VSOCK_Q_RX];
    if (!sm_virtq_pop(rx, c) && !(sm_virtq_notify_on(rx) && sm_virtq_pop(rx, c)))
        return false;
    if (c->writable_bytes <= VSOCK_HEADER_BYTES) {
        rx->broken = true;
        rx->why_broken = "receive buffer is too small";
        return false;
    }
    sm_virtq_notify_off(rx);
    return true;
}

static void unpop_rx(struct vsock_packets *p)
{
    sm_virtq_unpop(&p->dev->vq[VSOCK_Q_RX]);
}

static bool send_resets(struct vsock_packets *p, struct sm_virtq_chain *c)
{
    unsigned done = 0;
    while (done < p->n_resets && pop_rx(p, c)) {
        const struct vsock_reset *r = &p->resets[done++];
        struct vsock_header h = {
            .src_cid = r->cid,
            .dst_cid = p->guest_cid,
            .src_port = r->host_port,
            .dst_port = r->guest_port,
            .type = r->type,
            .op = VSOCK_OP_RST,
        };
        push_packet(p, c, &h);
    }
    p->n_resets -= done;
    memmove(p->resets, p->resets + done, p->n_resets * sizeof(p->resets[0]));
    return p->n_resets == 0;
}

/*
 * Gives buffers back to the guest. It needs no interrupt to learn that a tx buffer is free, it only
 * frees memory then; so those go along with the interrupt for the next rx buffer, if not so many
 * wait that the queue could run short, and if not too long. An interrupt is dear where a guest
 * kernel is emulated.
 */
static void publish(struct vsock_packets *p, bool tx_too)
{
    struct sm_virtq *rx = &p->dev->vq[VSOCK_Q_RX], *tx = &p->dev->vq[VSOCK_Q_TX];
    bool wanted = sm_virtq_publish(rx);
    if (wanted || tx_too || sm_virtq_unpublished(tx) >= tx->state.size / 4u)
        wanted |= sm_virtq_publish(tx);
    else if (sm_virtq_unpublished(tx) > 0 && tx->running)
        sm_loop_timer_arm(p->tx_timer, TX_RETURN_MS);
    if (wanted)
        sm_virtio_interrupt(p->dev);
    if (rx->broken || tx->broken)
        sm_virtio_broken(p->dev);
}

void sm_vsock_pump(struct vsock_packets *p)
{
    if (!p->dev->active)
        return;
    struct sm_virtq_chain chain;
    unsigned budget = RX_PER_TURN;
    bool buffers = send_resets(p, &chain);
    while (buffers && p->streams->ready && budget > 0) {
        struct vsock_stream *s = sm_vsock_take_ready(p->streams);
        bool more = true;
        for (unsigned i = 0; i < RX_PER_STREAM && more && budget > 0; i++) {
            if (!(buffers = pop_rx(p, &chain)))
                break;
            bool last = s->send & 1u << VSOCK_OP_RST;
            bool sent = send_one(p, s, &chain);
            if (!sent)
                unpop_rx(p);
            budget -= sent;
            more = !last && sent && sm_vsock_stream_wants(s);
            if (last)
                s = NULL;
        }
        if (s && more)
            sm_vsock_stream_ready(s); /* behind the others */
    }
    publish(p, false);
    if (budget == 0)
        sm_virtio_again(p->dev, VSOCK_Q_RX);
}

void sm_vsock_pump_later(struct vsock_packets *p)
{
    sm_virtio_again(p->dev, VSOCK_Q_RX);
}

void sm_vsock_packets_forget(struct vsock_packets *p)
{
    p->n_resets = 0;
    sm_loop_timer_disarm(p->tx_timer);
}

/* ---- packets from the guest ------------------------------------------------------------------ */

/* A RESPONSE to nothing is one to a REQUEST that was given up: the RST that said so is on its
 * way. */
static void reset_unknown(struct vsock_packets *p, const struct vsock_header *h)
{
    if (h->op == VSOCK_OP_RST || h->op == VSOCK_OP_RESPONSE || p->n_resets == VSOCK_RESETS)
        return;
    p->resets[p->n_resets++] = (struct vsock_reset){
        .cid = h->dst_cid, .host_port = h->dst_port, .guest_port = h->src_port, .type = h->type};
}

static void on_request(struct vsock_packets *p, const struct vsock_header *h)
{
    if (!p->accept(p->accept_arg, h))
        reset_unknown(p, h);
}

static void on_response(struct vsock_packets *p, struct vsock_stream *s)
{
    if (s->state != STREAM_CONNECTING || (s->send & 1u << VSOCK_OP_REQUEST)) {
        sm_vsock_stream_kill(s);
        return;
    }
    s->state = STREAM_ESTABLISHED;
    if (!sm_vsock_stream_establish(s)) {
        sm_vsock_stream_kill(s);
        return;
    }
    p->stats.connects++;
    sm_vsock_stream_answer(s, SM_OK, NULL);
}

static void on_data(struct vsock_packets *p, struct vsock_stream *s, const struct vsock_header *h,
    const struct sm_virtq_chain *c)
{
    struct iovec data[SM_VIRTQ_MAX_SIZE];
    uint32_t unread = s->rx_cnt - s->fwd_cnt; /* at most SM_VSOCK_BUF_ALLOC */
    if (s->state != STREAM_ESTABLISHED || s->guest_eof ||
        h->len > c->readable_bytes - VSOCK_HEADER_BYTES || h->len > SM_VSOCK_BUF_ALLOC - unread) {
        sm_vsock_stream_kill(s);
        return;
    }
    if (h->len == 0)
        return;
    unsigned n = sm_iov_slice(c->iov, c->n_readable, VSOCK_HEADER_BYTES, h->len, data);
    s->rx_cnt += h->len;
    p->stats.bytes_from_guest += h->len;
    if (!sm_vsock_stream_feed(s, data, n, h->len))
        sm_vsock_stream_kill(s);
}

static void on_stream_packet(struct vsock_packets *p, struct vsock_stream *s,
    const struct vsock_header *h, const struct sm_virtq_chain *c)
{
    s->peer_buf_alloc = h->buf_alloc;
    s->peer_fwd_cnt = h->fwd_cnt;
    switch (h->op) {
    case VSOCK_OP_RESPONSE:
        on_response(p, s);
        break;
    case VSOCK_OP_RST:
        p->stats.resets_received++;
        sm_vsock_stream_gone(s);
        return; /* freed, or no packet will follow */
    case VSOCK_OP_SHUTDOWN:
        if (s->state == STREAM_ESTABLISHED)
            sm_vsock_stream_guest_shutdown(s, h->flags);
        else
            sm_vsock_stream_kill(s);
        break;
    case VSOCK_OP_RW:
        on_data(p, s, h, c);
        break;
    case VSOCK_OP_CREDIT_UPDATE:
        break;
    case VSOCK_OP_CREDIT_REQUEST:
        s->send |= 1u << VSOCK_OP_CREDIT_UPDATE;
        break;
    default: /* a second REQUEST, and what is not known */
        sm_vsock_stream_kill(s);
        break;
    }
    sm_vsock_stream_ready(s);
}

static void on_packet(struct vsock_packets *p, const struct sm_virtq_chain *c)
{
    uint8_t raw[VSOCK_HEADER_BYTES];
    if (sm_iov_read(c->iov, c->n_readable, 0, raw, sizeof(raw)) < sizeof(raw))
        return; /* nobody to answer to */
    p->stats.packets_from_guest++;
    struct vsock_header h = {
        .src_cid = sm_load_le64(raw),
        .dst_cid = sm_load_le64(raw + 8),
        .src_port = sm_load_le32(raw + 16),
        .dst_port = sm_load_le32(raw + 20),
        .len = sm_load_le32(raw + 24),
        .type = sm_load_le16(raw + 28),
        .op = sm_load_le16(raw + 30),
        .flags = sm_load_le32(raw + 32),
        .buf_alloc = sm_load_le32(raw + 36),
        .fwd_cnt = sm_load_le32(raw + 40),
    };
    if (h.src_cid != p->guest_cid || h.dst_cid != SM_VSOCK_HOST_CID ||
        h.type != VSOCK_TYPE_STREAM) {
        reset_unknown(p, &h);
        return;
    }
    struct vsock_stream *s = sm_vsock_find(p->streams, h.dst_port, h.src_port);
    if (s && s->state == STREAM_RESETTING) {
        if (h.op == VSOCK_OP_RST) /* both gave up: ours need not be sent */
            sm_vsock_stream_free(s);
        return;
    }
    if (s)
        on_stream_packet(p, s, &h, c);
    else if (h.op == VSOCK_OP_REQUEST)
        on_request(p, &h);
    else
        reset_unknown(p, &h);
}

void sm_vsock_serve_tx(struct vsock_packets *p)
{
    struct sm_virtq *tx = &p->dev->vq[VSOCK_Q_TX];
    struct sm_virtq_chain chain;
    unsigned budget = TX_PER_TURN;
    sm_virtq_notify_off(tx);
    do {
        while (budget > 0 && sm_virtq_pop(tx, &chain)) {
            on_packet(p, &chain);
            sm_virtq_push(tx, chain.head, 0);
            budget--;
        }
    } while (budget > 0 && sm_virtq_notify_on(tx));
    if (budget == 0)
        sm_virtio_again(p->dev, VSOCK_Q_TX);
    sm_vsock_pump(p); /* publishes */
}

/* ---- life ------------------------------------------------------------------------------------ */

static void on_tx_timer(void *arg)
{
    publish(arg, true);
}

int sm_vsock_packets_init(struct vsock_packets *p, sm_error *err)
{
    return sm_loop_timer_create(p->dev->env.loop, on_tx_timer, p, &p->tx_timer, err);
}

void sm_vsock_packets_fini(struct vsock_packets *p)
{
    sm_loop_timer_destroy(p->tx_timer);
}
