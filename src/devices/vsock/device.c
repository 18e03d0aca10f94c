/*
 * virtio-vsock, the device: registers, the event queue, what a snapshot holds, and the faces of
 * what connect.c does. See vsock.h; stream.h has the order of the parts.
 *
 * System calls: clock_nanosleep.
 */
#include "devices/vsock/vsock.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "devices/vsock/connect.h"
#include "util/bytes.h"
#include "util/error.h"

#define F_STREAM (1ULL << 0)

#define EVENT_TRANSPORT_RESET 0u

#define DEFAULT_STREAMS 4096u
#define QUIET_POLL_MS   2

struct sm_vsock {
    struct sm_virtio_dev dev;
    struct vsock_streams streams;
    struct vsock_packets packets;
    struct vsock_connects connects;

    bool hold;            /* after a load: no connections before sm_vsock_transport_reset */
    bool reset_wanted;    /* no event buffer was there */
    bool reset_under_way; /* and the guest has not returned a buffer since event_mark */
    uint16_t event_mark;
    bool clean_load; /* the loaded state says that no stream was open */
};

/* Can connections be made now? */
static bool is_open(void *arg)
{
    const struct sm_vsock *vsock = arg;
    return vsock->dev.active && !vsock->hold && !vsock->reset_wanted && !vsock->reset_under_way;
}

static void open_and_pump(struct sm_vsock *vsock)
{
    sm_vsock_connects_begin(&vsock->connects);
    sm_vsock_pump(&vsock->packets);
}

/* ---- events ---------------------------------------------------------------------------------- */

static void send_reset_event(struct sm_vsock *vsock)
{
    struct sm_virtq *events = &vsock->dev.vq[VSOCK_Q_EVENT];
    struct sm_virtq_chain chain;
    uint8_t event[4];
    if (!sm_virtq_pop(events, &chain)) {
        sm_virtq_notify_next(events);
        return;
    }
    sm_store_le32(event, EVENT_TRANSPORT_RESET);
    size_t n = sm_iov_write(sm_virtq_writable(&chain), chain.n_writable, 0, event, sizeof(event));
    vsock->reset_wanted = false;
    vsock->reset_under_way = true;
    vsock->event_mark = sm_virtq_avail_idx(events);
    sm_virtq_notify_next(events);
    sm_virtq_push(events, chain.head, (uint32_t)n);
    sm_virtio_publish(&vsock->dev, VSOCK_Q_EVENT);
}

static void on_event_queue(struct sm_vsock *vsock)
{
    if (vsock->reset_wanted)
        send_reset_event(vsock);
    /* The driver gives a buffer back after it has acted on the event in it. */
    if (vsock->reset_under_way &&
        sm_virtq_avail_idx(&vsock->dev.vq[VSOCK_Q_EVENT]) != vsock->event_mark) {
        vsock->reset_under_way = false;
        open_and_pump(vsock);
    }
}

struct reset_request {
    struct sm_vsock *vsock;
    bool needed;
};

static void do_transport_reset(void *arg)
{
    struct reset_request *r = arg;
    struct sm_vsock *vsock = r->vsock;
    vsock->hold = false;
    if (!vsock->dev.active || vsock->clean_load)
        return; /* what waits begins when the loaded device is woken */
    r->needed = true;
    vsock->reset_wanted = true;
    send_reset_event(vsock);
}

bool sm_vsock_transport_reset(struct sm_vsock *vsock)
{
    struct reset_request r = {.vsock = vsock};
    sm_loop_run(vsock->dev.env.loop, do_transport_reset, &r);
    return r.needed;
}

/* What the guest has sent before its end is still delivered. */
static void do_end(void *arg)
{
    struct sm_vsock *vsock = arg;
    struct sm_virtq *tx = &vsock->dev.vq[VSOCK_Q_TX];
    for (unsigned i = 0; i < tx->state.size && sm_virtq_has_avail(tx); i++)
        sm_vsock_serve_tx(
            &vsock->packets); /* many packets at once; a guest that still runs cannot keep us */
    sm_vsock_connects_end(&vsock->connects);
    struct vsock_stream *next;
    for (struct vsock_stream *s = vsock->streams.list; s; s = next) {
        next = s->next;
        sm_vsock_stream_answer(s, SM_EGUEST, "the guest has ended");
        s->guest_eof = true;
        sm_vsock_stream_gone(s);
    }
}

void sm_vsock_end(struct sm_vsock *vsock)
{
    sm_loop_run(vsock->dev.env.loop, do_end, vsock);
}

/* ---- the virtio device ----------------------------------------------------------------------- */

static void vsock_config_read(struct sm_virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
    uint8_t config[8];
    sm_store_le64(config, ((struct sm_vsock *)dev)->packets.guest_cid);
    memcpy(buf, config + offset, len);
}

static void vsock_activate(struct sm_virtio_dev *dev)
{
    sm_virtq_notify_next(&dev->vq[VSOCK_Q_EVENT]);
    /* Connects that wait begin as work of its own, so that the vCPU that waits for us goes on. */
    sm_virtio_again(dev, VSOCK_Q_RX);
}

static void vsock_notify(struct sm_virtio_dev *dev, unsigned q)
{
    struct sm_vsock *vsock = (struct sm_vsock *)dev;
    switch (q) {
    case VSOCK_Q_RX:
        open_and_pump(vsock);
        break;
    case VSOCK_Q_TX:
        sm_vsock_serve_tx(&vsock->packets);
        break;
    default:
        on_event_queue(vsock);
        break;
    }
}

/* The guest's sockets are gone, or about to be: no packets, only the sockets' ends. */
static void vsock_reset(struct sm_virtio_dev *dev)
{
    struct sm_vsock *vsock = (struct sm_vsock *)dev;
    struct vsock_stream *next;
    for (struct vsock_stream *s = vsock->streams.list; s; s = next) {
        next = s->next;
        sm_vsock_stream_gone(s);
    }
    sm_vsock_packets_forget(&vsock->packets);
    vsock->hold = vsock->reset_wanted = vsock->reset_under_way = false;
}

/* Those that the guest believes in, or that it has to be told about. */
static uint64_t streams_of_the_guest(const struct sm_vsock *vsock)
{
    uint64_t n = vsock->packets.n_resets + (vsock->reset_wanted || vsock->reset_under_way ||
                                               (vsock->hold && !vsock->clean_load));
    for (const struct vsock_stream *s = vsock->streams.list; s; s = s->next)
        n += s->state != STREAM_ORPHAN;
    return n;
}

/* 0 is "not known". */
static void vsock_save(struct sm_virtio_dev *dev, uint64_t extra[SM_VIRTIO_EXTRA])
{
    extra[0] = 1 + streams_of_the_guest((struct sm_vsock *)dev);
}

struct count_request {
    const struct sm_vsock *vsock;
    uint64_t *n;
};

static void count_open(void *arg)
{
    struct count_request *r = arg;
    *r->n = streams_of_the_guest(r->vsock);
}

static void vsock_load(struct sm_virtio_dev *dev, const uint64_t extra[SM_VIRTIO_EXTRA])
{
    struct sm_vsock *vsock = (struct sm_vsock *)dev;
    vsock->hold = true;
    vsock->connects.ended = false;
    vsock->clean_load = extra[0] == 1;
}

static void vsock_destroy(struct sm_virtio_dev *dev)
{
    struct sm_vsock *vsock = (struct sm_vsock *)dev;
    sm_vsock_streams_fini(&vsock->streams);
    sm_vsock_connects_fini(&vsock->connects);
    sm_vsock_packets_fini(&vsock->packets);
    sm_virtio_fini(dev);
    free(vsock);
}

static const struct sm_virtio_ops vsock_ops = {
    .name = "vsock",
    .id = SM_VIRTIO_ID_VSOCK,
    .n_queues = 3,
    .queue_max = 128,
    .config_size = 8,
    .config_read = vsock_config_read,
    .activate = vsock_activate,
    .notify = vsock_notify,
    .reset = vsock_reset,
    .save = vsock_save,
    .load = vsock_load,
    .destroy = vsock_destroy,
};

static void pump(void *arg)
{
    sm_vsock_pump(arg);
}

/* Who calls whom: the streams have packets pumped, packets ask connects who is there, connects ask
 * us whether they may. */
static int make_parts(struct sm_vsock *vsock, const struct sm_vsock_config *config, sm_error *err)
{
    struct sm_loop *loop = vsock->dev.env.loop;
    unsigned max = config && config->max_streams ? config->max_streams : DEFAULT_STREAMS;
    uint64_t cid = config && config->guest_cid ? config->guest_cid : SM_VSOCK_GUEST_CID;
    sm_vsock_streams_init(&vsock->streams, loop, max, pump, &vsock->packets);
    vsock->packets = (struct vsock_packets){.dev = &vsock->dev,
        .guest_cid = cid,
        .streams = &vsock->streams,
        .accept = sm_vsock_connects_accept,
        .accept_arg = &vsock->connects};
    vsock->connects = (struct vsock_connects){.loop = loop,
        .streams = &vsock->streams,
        .packets = &vsock->packets,
        .open = is_open,
        .open_arg = vsock};
    int rc = sm_vsock_packets_init(&vsock->packets, err);
    if (rc)
        return rc;
    rc = sm_vsock_connects_init(&vsock->connects, err);
    if (rc)
        sm_vsock_packets_fini(&vsock->packets);
    return rc;
}

int sm_vsock_create(const struct sm_virtio_env *env, const struct sm_vsock_config *config,
    struct sm_vsock **out, sm_error *err)
{
    auto_free struct sm_vsock *vsock = calloc(1, sizeof(*vsock));
    if (!vsock)
        return sm_error_errno(err, ENOMEM, "cannot make the vsock device");
    int rc = sm_virtio_init(&vsock->dev, &vsock_ops, env, F_STREAM, err);
    if (rc)
        return rc;
    rc = make_parts(vsock, config, err);
    if (rc) {
        sm_virtio_fini(&vsock->dev);
        return rc;
    }
    *out = sm_steal_ptr(&vsock);
    return 0;
}

struct sm_virtio_dev *sm_vsock_dev(struct sm_vsock *vsock)
{
    return &vsock->dev;
}

/* ---- who is connected ------------------------------------------------------------------------ */

int sm_vsock_connect(
    struct sm_vsock *vsock, uint32_t port, struct sm_wait *wait, int *fd, sm_error *err)
{
    return sm_vsock_connects_wait(&vsock->connects, port, wait, fd, err);
}

bool sm_vsock_bridge(struct sm_vsock *vsock, int fd, const struct sm_vsock_target *target)
{
    return sm_vsock_connects_bridge(&vsock->connects, fd, target);
}

int sm_vsock_listen(
    struct sm_vsock *vsock, uint32_t port, sm_vsock_accept_fn *fn, void *arg, sm_error *err)
{
    return sm_vsock_connects_listen(&vsock->connects, port, fn, arg, err);
}

void sm_vsock_accept_any(struct sm_vsock *vsock, sm_vsock_ask_fn *fn, void *arg)
{
    sm_loop_check_here(vsock->dev.env.loop);
    vsock->connects.ask = fn;
    vsock->connects.ask_arg = arg;
}

void sm_vsock_lead(struct sm_vsock *vsock, uint32_t ticket, int fd)
{
    sm_vsock_connects_lead(&vsock->connects, ticket, fd);
}

/* ---- what is counted ------------------------------------------------------------------------- */

struct stats_request {
    struct sm_vsock *vsock;
    struct sm_vsock_stats *out;
};

static void copy_stats(void *arg)
{
    struct stats_request *r = arg;
    *r->out = r->vsock->packets.stats;
    r->out->streams = r->vsock->streams.n;
}

bool sm_vsock_wait_quiet(struct sm_vsock *vsock, int timeout_ms)
{
    for (;; timeout_ms -= QUIET_POLL_MS) {
        uint64_t open = 0;
        sm_loop_run(vsock->dev.env.loop, count_open, &(struct count_request){vsock, &open});
        if (open == 0 || timeout_ms <= 0)
            return open == 0;
        nanosleep(&(struct timespec){.tv_nsec = QUIET_POLL_MS * 1000000L}, NULL);
    }
}

void sm_vsock_get_stats(struct sm_vsock *vsock, struct sm_vsock_stats *stats)
{
    struct stats_request r = {.vsock = vsock, .out = stats};
    *stats = (struct sm_vsock_stats){0};
    sm_loop_run(vsock->dev.env.loop, copy_stats, &r);
}
