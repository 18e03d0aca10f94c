/*
 * A card's frames over a socket: the machine's end with a card of the test's, the far end with a
 * backend of the test's, both together or each against raw records that also lie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/frame_socket.h"
#include "net/socket_backend.h"
#include "net/socket_card.h"
#include "util/bytes.h"
#include "util/loop.h"

#define FRAME    60
#define MAX_SEEN 512

/* One direction as its taker sees it: the first bytes of frames are their numbers. */
struct seen {
    bool refuses;
    unsigned n, asked, batches, resumed;
    uint32_t number[MAX_SEEN];
    size_t len[MAX_SEEN];
    struct virtio_net_hdr_v1 hdr[MAX_SEEN];
    uint8_t last_byte;
};

struct fixture {
    struct sm_loop *loop;
    /* The machine's end, and the card that it is plugged into. */
    struct sm_net_card card;
    struct seen guest;
    struct sm_net_backend *near;
    /* The far end: a card with a backend, or a raw socket. */
    struct sm_net_backend backend;
    struct seen network;
    unsigned configured;
    uint64_t features;
    struct sm_socket_card *far;
    unsigned gone;
    int raw; /* -1: none */
};

static bool see(struct seen *s, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    s->asked++;
    if (s->refuses)
        return false;
    assert_true(s->n < MAX_SEEN);
    s->number[s->n] = sm_load_le32(frame);
    s->len[s->n] = len;
    s->hdr[s->n] = *hdr;
    s->last_byte = ((const uint8_t *)frame)[len - 1];
    s->n++;
    return true;
}

static struct fixture *of_card(struct sm_net_card *card)
{
    return (struct fixture *)(void *)((char *)card - offsetof(struct fixture, card));
}

static struct fixture *of_backend(struct sm_net_backend *backend)
{
    return (struct fixture *)(void *)((char *)backend - offsetof(struct fixture, backend));
}

static bool guest_deliver(
    struct sm_net_card *card, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    return see(&of_card(card)->guest, hdr, frame, len);
}

static void guest_flush(struct sm_net_card *card)
{
    of_card(card)->guest.batches++;
}

static void guest_tx_resume(struct sm_net_card *card)
{
    of_card(card)->network.resumed++;
}

static bool network_send(
    struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    return see(&of_backend(backend)->network, hdr, frame, len);
}

static void network_sent_all(struct sm_net_backend *backend)
{
    of_backend(backend)->network.batches++;
}

static void network_rx_ready(struct sm_net_backend *backend)
{
    of_backend(backend)->guest.resumed++;
}

static void network_configure(struct sm_net_backend *backend, uint64_t features)
{
    of_backend(backend)->configured++;
    of_backend(backend)->features = features;
}

static void network_destroy(struct sm_net_backend *backend)
{
    (void)backend;
}

static void on_gone(void *arg)
{
    struct fixture *f = arg;
    f->gone++;
    sm_socket_card_destroy(f->far);
    f->far = NULL;
}

#define OFFLOADS                                                                                   \
    (1ull << VIRTIO_NET_F_CSUM | 1ull << VIRTIO_NET_F_GUEST_CSUM |                                 \
        1ull << VIRTIO_NET_F_HOST_TSO4 | 1ull << VIRTIO_NET_F_GUEST_TSO4)

static void make_far(struct fixture *f, int fd)
{
    static const struct sm_net_backend_ops ops = {
        .send = network_send,
        .sent_all = network_sent_all,
        .rx_ready = network_rx_ready,
        .configure = network_configure,
        .destroy = network_destroy,
    };
    f->backend = (struct sm_net_backend){.ops = &ops};
    const struct sm_socket_card_config config = {
        .fd = fd, .backend = &f->backend, .gone = on_gone, .arg = f};
    assert_int_equal(sm_socket_card_create(f->loop, &config, &f->far, NULL), 0);
}

/* `near` and `far`: whether that end is ours; the other one is raw then. */
static struct fixture *start(bool near, bool far, bool speaks_first)
{
    static const struct sm_net_card_ops ops = {
        .deliver = guest_deliver, .flush = guest_flush, .tx_resume = guest_tx_resume};
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    int ends[2];
    assert_int_equal(sm_frame_socket_pair(ends, NULL), 0);
    f->card.ops = &ops;
    f->raw = near && far ? -1 : ends[near ? 1 : 0];
    if (near) {
        assert_int_equal(
            sm_socket_backend_create(f->loop, ends[0], speaks_first, &f->near, NULL), 0);
        f->near->card = &f->card;
        f->near->ops->configure(f->near, OFFLOADS);
    }
    if (far)
        make_far(f, ends[1]);
    return f;
}

static void stop(struct fixture *f)
{
    if (f->near)
        f->near->ops->destroy(f->near);
    sm_socket_card_destroy(f->far);
    sm_loop_destroy(f->loop);
    if (f->raw >= 0)
        close(f->raw);
    free(f);
}

static const struct virtio_net_hdr_v1 plain;

/* A frame of the guest's, as the device gives it. */
static bool send_sized(
    struct fixture *f, uint32_t number, const struct virtio_net_hdr_v1 *hdr, size_t len)
{
    static uint8_t frame[SM_NET_MAX_FRAME];
    sm_store_le32(frame, number);
    frame[len - 1] = (uint8_t)(number + 1);
    if (number % 2)
        return f->near->ops->send(f->near, hdr, frame, len);
    const struct iovec pieces[] = {{.iov_base = frame, .iov_len = 3},
        {.iov_base = frame + 3, .iov_len = len - 4}, {.iov_base = frame + len - 1, .iov_len = 1}};
    return f->near->ops->send_pieces(f->near, hdr, pieces, SM_ARRAY_LEN(pieces), len);
}

static bool send_small(struct fixture *f, uint32_t number)
{
    return send_sized(f, number, &plain, FRAME);
}

static void flush(struct fixture *f)
{
    f->near->ops->sent_all(f->near);
}

/* A small one on its way, so that both ends are configured. */
static void shake_hands(struct fixture *f)
{
    assert_true(send_small(f, 0));
    flush(f);
    sm_loop_turn(f->loop);
    f->network.n = 0;
}

struct record {
    union {
        struct {
            struct virtio_net_hdr_v1 hdr;
            uint8_t frame[SM_NET_MAX_FRAME + 64];
        };
        struct {
            uint32_t kind, number;
            uint64_t features;
        };
    };
};
#define CONTROL 16

static ssize_t raw_receive(struct fixture *f, struct record *r)
{
    return recv(f->raw, r, sizeof(*r), MSG_DONTWAIT);
}

static void raw_send(struct fixture *f, const void *record, size_t len)
{
    assert_int_equal(send(f->raw, record, len, MSG_NOSIGNAL), len);
}

static void raw_control(struct fixture *f, uint32_t kind, uint32_t number, uint64_t features)
{
    const struct record r = {.kind = kind, .number = number, .features = features};
    raw_send(f, &r, CONTROL);
}

static bool raw_try_frame(struct fixture *f, uint32_t number, size_t len)
{
    static struct record r;
    sm_store_le32(r.frame, number);
    return send(f->raw, &r, SM_NET_HDR + len, MSG_DONTWAIT | MSG_NOSIGNAL) > 0;
}

/* ---- both ends ------------------------------------------------------------------------------- */

static void frames_keep_their_order_and_their_headers(void **state)
{
    (void)state;
    struct fixture *f = start(true, true, false);
    const struct virtio_net_hdr_v1 tso = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
        .gso_type = VIRTIO_NET_HDR_GSO_TCPV4,
        .hdr_len = 54,
        .gso_size = 1448,
        .csum_start = 34,
        .csum_offset = 16};
    for (uint32_t i = 0; i < 200; i++) {
        bool large = i % 50 >= 48;
        while (!send_sized(f, i, large ? &tso : &plain, large ? SM_NET_MAX_FRAME : FRAME + i))
            sm_loop_turn(f->loop);
    }
    flush(f);
    sm_loop_turn(f->loop);
    assert_int_equal(f->configured, 1);
    assert_int_equal(f->features, OFFLOADS);
    assert_int_equal(f->network.n, 200);
    for (uint32_t i = 0; i < 200; i++) {
        bool large = i % 50 >= 48;
        assert_int_equal(f->network.number[i], i);
        assert_int_equal(f->network.len[i], large ? SM_NET_MAX_FRAME : FRAME + i);
        assert_memory_equal(&f->network.hdr[i], large ? &tso : &plain, sizeof(tso));
    }
    assert_int_equal(f->network.last_byte, 200);
    for (uint32_t i = 0; i < 3; i++) { /* and the other way */
        static uint8_t frame[SM_NET_MAX_FRAME];
        sm_store_le32(frame, i);
        assert_true(
            sm_net_deliver(f->backend.card, i ? &tso : &plain, frame, i ? sizeof(frame) : FRAME));
    }
    sm_net_flush(f->backend.card);
    sm_loop_turn(f->loop);
    assert_int_equal(f->guest.n, 3);
    assert_int_equal(f->guest.number[2], 2);
    assert_int_equal(f->guest.len[2], SM_NET_MAX_FRAME);
    assert_memory_equal(&f->guest.hdr[2], &tso, sizeof(tso));
    stop(f);
}

/* The guest's ring waits while the network does not read, and nothing is lost. */
static void a_network_that_is_busy_keeps_the_guest_waiting(void **state)
{
    (void)state;
    struct fixture *f = start(true, true, false);
    shake_hands(f);
    f->network.refuses = true;
    uint32_t sent = 0;
    while (sent < MAX_SEEN && send_sized(f, sent, &plain, 32768)) {
        sent++;
        sm_loop_turn(f->loop);
    }
    assert_in_range(sent, 4, MAX_SEEN - 1);
    assert_int_equal(f->network.n, 0);
    unsigned resumed = f->network.resumed;
    f->network.refuses = false;
    sm_net_tx_resume(f->backend.card);
    sm_loop_turn(f->loop);
    assert_true(f->network.resumed > resumed); /* the guest is told that there is room */
    assert_true(send_sized(f, sent, &plain, 32768));
    flush(f);
    sm_loop_turn(f->loop);
    assert_int_equal(f->network.n, sent + 1);
    for (uint32_t i = 0; i <= sent; i++)
        assert_int_equal(f->network.number[i], i);
    stop(f);
}

static void a_guest_without_buffers_keeps_the_network_waiting(void **state)
{
    (void)state;
    struct fixture *f = start(true, true, false);
    shake_hands(f);
    f->guest.refuses = true;
    static uint8_t frame[20000];
    uint32_t sent = 0;
    for (;; sent++) {
        assert_true(sent < MAX_SEEN);
        sm_store_le32(frame, sent);
        if (!sm_net_deliver(f->backend.card, &plain, frame, sent % 2 ? sizeof(frame) : FRAME))
            break;
        sm_loop_turn(f->loop);
    }
    assert_in_range(sent, 4, MAX_SEEN - 1);
    assert_int_equal(f->guest.n, 0);
    assert_int_equal(f->guest.asked, 1); /* nobody is asked again and again */
    unsigned resumed = f->guest.resumed;
    f->guest.refuses = false;
    f->near->ops->rx_ready(f->near);
    sm_loop_turn(f->loop);
    assert_true(f->guest.resumed > resumed);
    assert_true(sm_net_deliver(f->backend.card, &plain, frame, FRAME));
    sm_net_flush(f->backend.card);
    sm_loop_turn(f->loop);
    assert_int_equal(f->guest.n, sent + 1);
    for (uint32_t i = 0; i <= sent; i++)
        assert_int_equal(f->guest.number[i], i);
    stop(f);
}

static void what_the_guest_sent_last_is_dealt_with_before_the_end(void **state)
{
    (void)state;
    struct fixture *f = start(true, true, false);
    shake_hands(f);
    /* Something is on its way to the guest too: the kernel tells of that as an error. */
    uint8_t frame[FRAME] = {0};
    for (uint32_t i = 0; i < 3; i++)
        assert_true(send_small(f, i));
    flush(f);
    assert_true(sm_net_deliver(f->backend.card, &plain, frame, sizeof(frame)));
    sm_net_flush(f->backend.card);
    f->near->ops->destroy(f->near);
    f->near = NULL;
    sm_loop_turn(f->loop);
    assert_int_equal(f->network.n, 3);
    assert_int_equal(f->gone, 1);
    stop(f);
}

/* ---- the machine's end ----------------------------------------------------------------------- */

static void nothing_is_sent_before_the_guest_sends(void **state)
{
    (void)state;
    static struct record r;
    struct fixture *f = start(true, false, false);
    f->near->ops->configure(f->near, 0);
    f->near->ops->configure(f->near, OFFLOADS);
    sm_loop_turn(f->loop);
    assert_int_equal(raw_receive(f, &r), -1);
    assert_true(send_small(f, 7));
    flush(f);
    assert_int_equal(raw_receive(f, &r), CONTROL);
    assert_int_equal(r.kind, SM_FRAME_CONFIGURE);
    assert_int_equal(r.features, OFFLOADS);
    assert_int_equal(raw_receive(f, &r), SM_NET_HDR + FRAME);
    assert_int_equal(sm_load_le32(r.frame), 7);
    stop(f);
    f = start(true, false, true); /* but where others may speak first */
    assert_int_equal(raw_receive(f, &r), CONTROL);
    stop(f);
}

static void a_driver_gets_only_what_was_made_for_it(void **state)
{
    (void)state;
    static struct record r;
    struct fixture *f = start(true, false, true);
    assert_int_equal(raw_receive(f, &r), CONTROL);
    uint32_t number = r.number;
    assert_true(raw_try_frame(f, 1, FRAME)); /* before the answer */
    raw_control(f, SM_FRAME_CONFIGURED, number - 1, 0);
    assert_true(raw_try_frame(f, 2, FRAME)); /* an older one's */
    raw_control(f, SM_FRAME_CONFIGURED, number, 0);
    assert_true(raw_try_frame(f, 3, FRAME));
    sm_loop_turn(f->loop);
    assert_int_equal(f->guest.n, 1);
    assert_int_equal(f->guest.number[0], 3);
    f->guest.refuses = true;
    assert_true(raw_try_frame(f, 4, FRAME));
    sm_loop_turn(f->loop);
    f->guest.refuses = false;
    f->near->ops->configure(f->near, 0); /* a reset: the one that waits is dropped, ... */
    assert_true(raw_try_frame(f, 5, FRAME));
    sm_loop_turn(f->loop);
    assert_int_equal(f->guest.n, 1); /* ... and what is under way */
    assert_int_equal(raw_receive(f, &r), CONTROL);
    assert_int_equal(r.number, number + 1);
    assert_int_equal(r.features, 0);
    f->near->ops->configure(f->near, OFFLOADS);
    assert_int_equal(raw_receive(f, &r), CONTROL);
    raw_control(f, SM_FRAME_CONFIGURED, r.number, 0);
    assert_true(raw_try_frame(f, 6, FRAME));
    sm_loop_turn(f->loop);
    assert_int_equal(f->guest.number[f->guest.n - 1], 6);
    assert_int_equal(f->guest.n, 2);
    stop(f);
}

/* What no network may say ends the socket; what no driver can take is dropped. */
static void a_hostile_network_is_cut_off_and_can_be_replaced(void **state)
{
    (void)state;
    static struct record r;
    const struct {
        struct record head;
        size_t len;
        bool cut;
    } rows[] = {
        {{.kind = SM_FRAME_CONFIGURE}, CONTROL, true},
        {{.kind = 99}, CONTROL, true},
        {{.kind = 0}, 0, true},
        {{.kind = SM_FRAME_CONFIGURED}, CONTROL - 1, true},
        {{.kind = SM_FRAME_CONFIGURED}, CONTROL + 1, true},
        {{.kind = SM_FRAME_CONFIGURED}, SM_NET_HDR + 13, true},
        {{.hdr = {.flags = 0}}, SM_NET_HDR + SM_NET_MAX_FRAME + 1, true},
        {{.hdr = {.flags = 0}}, SM_NET_HDR + SM_NET_MAX_FRAME + 50, true},
        {{.hdr = {.gso_type = 9}}, SM_NET_HDR + FRAME, false},
        {{.hdr = {.gso_type = VIRTIO_NET_HDR_GSO_TCPV6, .gso_size = 1}}, SM_NET_HDR + FRAME, false},
        {{.hdr = {.flags = 1, .csum_start = FRAME}}, SM_NET_HDR + FRAME, false},
        {{.hdr = {.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff}}, SM_NET_HDR + FRAME,
            false},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct fixture *f = start(true, false, true);
        assert_int_equal(raw_receive(f, &r), CONTROL);
        raw_control(f, SM_FRAME_CONFIGURED, r.number, 0);
        raw_send(f, &rows[i].head, rows[i].len);
        sm_loop_turn(f->loop);
        assert_int_equal(f->guest.n, 0);
        char end;
        ssize_t n = recv(f->raw, &end, 1, MSG_DONTWAIT);
        assert_true(
            rows[i].cut ? n == 0 || (n < 0 && errno == ECONNRESET) : n < 0 && errno == EAGAIN);
        assert_true(send_small(f, 1)); /* never held up */
        flush(f);
        assert_int_equal(sm_socket_backend_counters(f->near)->lost, rows[i].cut);
        int ends[2];
        assert_int_equal(sm_frame_socket_pair(ends, NULL), 0);
        assert_int_equal(sm_socket_backend_replug(f->near, ends[0], NULL), 0);
        close(f->raw);
        f->raw = ends[1];
        assert_int_equal(raw_receive(f, &r), CONTROL);
        raw_control(f, SM_FRAME_CONFIGURED, r.number, 0);
        assert_true(raw_try_frame(f, 8, FRAME));
        sm_loop_turn(f->loop);
        assert_int_equal(f->guest.n, 1);
        stop(f);
    }
}

static void a_dead_network_holds_nobody_up_until_there_is_another(void **state)
{
    (void)state;
    static struct record r;
    struct fixture *f = start(true, false, false);
    uint32_t sent = 0;
    while (send_sized(f, sent, &plain, 32768))
        sent++;
    unsigned resumed = f->network.resumed;
    assert_int_equal(raw_receive(f, &r), CONTROL);
    raw_control(f, SM_FRAME_CONFIGURED, r.number, 0);
    assert_true(raw_try_frame(f, 1, FRAME)); /* nor does the guest, */
    f->guest.refuses = true;
    sm_loop_turn(f->loop);
    assert_int_equal(f->guest.asked, 1);
    close(f->raw); /* and the guest waits for it */
    f->raw = -1;
    sm_loop_turn(f->loop);
    assert_true(f->network.resumed > resumed);
    assert_true(send_small(f, 1));
    assert_int_equal(sm_socket_backend_counters(f->near)->lost, 1);
    assert_int_equal(f->guest.asked, 1);
    f->near->ops->rx_ready(f->near);
    f->near->ops->configure(f->near, OFFLOADS);
    int ends[2];
    assert_int_equal(sm_frame_socket_pair(ends, NULL), 0);
    assert_int_equal(sm_socket_backend_replug(f->near, ends[0], NULL), 0);
    make_far(f, ends[1]);
    sm_loop_turn(f->loop);
    assert_int_equal(f->configured, 0); /* again not before the guest sends */
    assert_true(send_small(f, 9));
    flush(f);
    sm_loop_turn(f->loop);
    assert_int_equal(f->configured, 1);
    assert_int_equal(f->network.n, 1);
    assert_int_equal(f->network.number[0], 9);
    stop(f);
}

/* Nothing but records passes: the end of the pipe is seen, since nobody has its other end. */
static void descriptors_do_not_come_along(void **state)
{
    (void)state;
    struct fixture *f = start(true, false, true);
    int pipe_fds[2];
    assert_int_equal(pipe2(pipe_fds, O_CLOEXEC | O_NONBLOCK), 0);
    uint8_t frame[SM_NET_HDR + FRAME] = {0};
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    struct iovec iov = {.iov_base = frame, .iov_len = sizeof(frame)};
    struct msghdr msg = {.msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes)};
    struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(c), &pipe_fds[1], sizeof(int));
    assert_int_equal(sendmsg(f->raw, &msg, 0), sizeof(frame));
    close(pipe_fds[1]);
    sm_loop_turn(f->loop);
    char byte;
    assert_int_equal(read(pipe_fds[0], &byte, 1), 0);
    close(pipe_fds[0]);
    stop(f);
}

/* ---- the far end ----------------------------------------------------------------------------- */

static void a_hostile_machine_is_cut_off_or_not_heard(void **state)
{
    (void)state;
    const struct {
        struct record head;
        size_t len;
        enum { CUT, DROPPED, TAKEN } what;
    } rows[] = {
        {{.kind = SM_FRAME_CONFIGURED}, CONTROL, CUT},
        {{.kind = 77}, CONTROL, CUT},
        {{.kind = SM_FRAME_CONFIGURE}, CONTROL + 4, CUT},
        {{.hdr = {.flags = 0}}, SM_NET_HDR, CUT},
        {{.hdr = {.flags = 0}}, SM_NET_HDR + SM_NET_MAX_FRAME + 1, CUT},
        {{.hdr = {.flags = 1, .csum_start = FRAME}}, SM_NET_HDR + FRAME, DROPPED},
        {{.hdr = {.flags = 1, .csum_start = 0xffff, .csum_offset = 0xffff}}, SM_NET_HDR + FRAME,
            DROPPED},
        {{.hdr = {.gso_type = 1, .gso_size = 9}}, SM_NET_HDR + FRAME, DROPPED}, /* no checksum */
        {{.hdr = {.flags = 1, .gso_type = 1}}, SM_NET_HDR + FRAME, DROPPED},    /* no size */
        {{.hdr = {.flags = 1, .gso_type = 1, .gso_size = 9, .hdr_len = 999}}, SM_NET_HDR + FRAME,
            DROPPED},
        {{.hdr = {.flags = 1, .gso_type = 4, .gso_size = 9}}, SM_NET_HDR + FRAME, DROPPED}, /* v6 */
        {{.hdr = {.flags = 1, .gso_type = 3, .gso_size = 9}}, SM_NET_HDR + FRAME,
            DROPPED}, /* UFO */
        {{.hdr = {.flags = 0xfe, .csum_start = 0xffff, .num_buffers = 0xffff}}, SM_NET_HDR + FRAME,
            TAKEN},
        {{.hdr = {.flags = 0}}, SM_NET_HDR + 14, TAKEN},
        {{.hdr = {.flags = 0}}, SM_NET_HDR + SM_NET_MAX_FRAME, TAKEN},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        struct fixture *f = start(false, true, false);
        raw_control(f, SM_FRAME_CONFIGURE, 1, OFFLOADS);
        raw_send(f, &rows[i].head, rows[i].len);
        sm_loop_turn(f->loop);
        assert_int_equal(f->gone, rows[i].what == CUT);
        assert_int_equal(f->network.n, rows[i].what == TAKEN);
        if (rows[i].what == DROPPED)
            assert_int_equal(sm_socket_card_bad(f->far), 1);
        if (rows[i].what == TAKEN)
            assert_memory_equal(&f->network.hdr[0], &plain, sizeof(plain));
        stop(f);
    }
}

static void frames_before_a_configuration_go_nowhere(void **state)
{
    (void)state;
    static struct record r;
    struct fixture *f = start(false, true, false);
    assert_true(raw_try_frame(f, 1, FRAME));
    raw_control(f, SM_FRAME_CONFIGURE, 5, 0);
    assert_true(raw_try_frame(f, 2, FRAME));
    sm_loop_turn(f->loop);
    assert_int_equal(f->network.n, 1);
    assert_int_equal(f->network.number[0], 2);
    assert_int_equal(raw_receive(f, &r), CONTROL);
    assert_int_equal(r.kind, SM_FRAME_CONFIGURED);
    assert_int_equal(r.number, 5);
    /* What was made for the driver before is not sent any more. */
    uint8_t frame[FRAME] = {0};
    assert_true(sm_net_deliver(f->backend.card, &plain, frame, sizeof(frame)));
    raw_control(f, SM_FRAME_CONFIGURE, 6, 0);
    sm_loop_turn(f->loop);
    assert_int_equal(raw_receive(f, &r), CONTROL);
    assert_int_equal(r.number, 6);
    assert_int_equal(raw_receive(f, &r), -1);
    stop(f);
}

static void a_machine_that_does_not_read_costs_no_frame_in_order(void **state)
{
    (void)state;
    static struct record r;
    struct fixture *f = start(false, true, false);
    raw_control(f, SM_FRAME_CONFIGURE, 1, OFFLOADS);
    sm_loop_turn(f->loop);
    uint8_t frame[FRAME] = {0};
    uint32_t sent = 0;
    for (;; sent++) {
        assert_true(sent < 100000);
        sm_store_le32(frame, sent);
        if (!sm_net_deliver(f->backend.card, &plain, frame, sizeof(frame)))
            break;
    }
    sm_loop_turn(f->loop);
    assert_int_equal(f->guest.resumed, 0);
    assert_int_equal(raw_receive(f, &r), CONTROL);
    uint32_t seen = 0;
    while (raw_receive(f, &r) > 0 || (sm_loop_turn(f->loop), raw_receive(f, &r)) > 0)
        assert_int_equal(sm_load_le32(r.frame), seen++);
    assert_int_equal(seen, sent);
    assert_true(f->guest.resumed > 0);
    stop(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frames_keep_their_order_and_their_headers),
        cmocka_unit_test(a_network_that_is_busy_keeps_the_guest_waiting),
        cmocka_unit_test(a_guest_without_buffers_keeps_the_network_waiting),
        cmocka_unit_test(what_the_guest_sent_last_is_dealt_with_before_the_end),
        cmocka_unit_test(nothing_is_sent_before_the_guest_sends),
        cmocka_unit_test(a_driver_gets_only_what_was_made_for_it),
        cmocka_unit_test(a_hostile_network_is_cut_off_and_can_be_replaced),
        cmocka_unit_test(a_dead_network_holds_nobody_up_until_there_is_another),
        cmocka_unit_test(descriptors_do_not_come_along),
        cmocka_unit_test(a_hostile_machine_is_cut_off_or_not_heard),
        cmocka_unit_test(frames_before_a_configuration_go_nowhere),
        cmocka_unit_test(a_machine_that_does_not_read_costs_no_frame_in_order),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
