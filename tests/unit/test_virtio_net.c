/* virtio-net against a driver that also lies: headers, merging, back-pressure, state. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <unistd.h>

#include "devices/virtio_net.h"
#include "fake_guest.h"

static const uint8_t mac[6] = {2, 1, 2, 3, 4, 5};

struct fake_backend {
    struct sm_net_backend base;
    bool busy;
    size_t answer; /* a frame of so many bytes is delivered while one is sent */
    unsigned sends, batches, ready, configured, pieces;
    uint64_t features;
    struct virtio_net_hdr_v1 hdr;
    uint8_t frame[SM_NET_MAX_FRAME];
    size_t len;
};

struct fixture {
    struct fg fg;
    struct sm_loop *loop;
    struct sm_virtio_env env;
    struct fake_backend *backend; /* owned by the device */
    struct sm_virtio_dev *dev;
    struct sm_net_card *card;
    struct fg_queue q[2];
};

static struct fake_backend *fake_of(struct sm_net_backend *b)
{
    return (struct fake_backend *)(void *)b;
}

static bool fake_send(
    struct sm_net_backend *b, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct fake_backend *fake = fake_of(b);
    if (fake->busy)
        return false;
    fake->sends++;
    fake->hdr = *hdr;
    memmove(fake->frame, frame, len);
    fake->len = len;
    if (fake->answer)
        assert_true(sm_net_deliver(b->card, hdr, fake->frame, fake->answer));
    return true;
}

static void fake_sent_all(struct sm_net_backend *b)
{
    fake_of(b)->batches++;
}

static void fake_rx_ready(struct sm_net_backend *b)
{
    fake_of(b)->ready++;
}

static void fake_configure(struct sm_net_backend *b, uint64_t features)
{
    fake_of(b)->configured++;
    fake_of(b)->features = features;
}

static void fake_destroy(struct sm_net_backend *b)
{
    free(b);
}

static bool fake_send_pieces(struct sm_net_backend *b, const struct virtio_net_hdr_v1 *hdr,
    const struct iovec *pieces, unsigned n, size_t len)
{
    struct fake_backend *fake = fake_of(b);
    fake->pieces = n;
    uint8_t *to = fake->frame;
    for (unsigned i = 0; i < n; i++)
        to = mempcpy(to, pieces[i].iov_base, pieces[i].iov_len);
    assert_int_equal(to - fake->frame, len);
    return fake_send(b, hdr, fake->frame, len);
}

static const struct sm_net_backend_ops passing_ops = {
    .send = fake_send,
    .send_pieces = fake_send_pieces,
    .sent_all = fake_sent_all,
    .rx_ready = fake_rx_ready,
    .configure = fake_configure,
    .destroy = fake_destroy,
};

static const struct sm_net_backend_ops fake_ops = {
    .send = fake_send,
    .sent_all = fake_sent_all,
    .rx_ready = fake_rx_ready,
    .configure = fake_configure,
    .destroy = fake_destroy,
};

/* The loop's thread does not run: the test is the loop's thread. Kicks go straight to the
 * device. */
static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    fg_init(&f->fg);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    f->env = (struct sm_virtio_env){.loop = f->loop, .memory = &f->fg.gm, .irq = fg_bell()};
    f->backend = calloc(1, sizeof(*f->backend));
    assert_non_null(f->backend);
    f->backend->base = (struct sm_net_backend){.ops = &fake_ops, .mtu = 1400, .link_up = true};
    assert_int_equal(sm_virtio_net_create(&f->env, mac, &f->backend->base, &f->dev, NULL), 0);
    f->card = f->backend->base.card;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sm_virtio_destroy(f->dev);
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->env.irq);
    fg_fini(&f->fg);
    free(f);
    return 0;
}

static void probe(struct fixture *f, uint64_t mask, unsigned size)
{
    fg_probe(&f->fg, f->dev, mask, f->q, 2, size);
}

static void notify(struct fixture *f, unsigned q)
{
    f->dev->ops->notify(f->dev, q);
}

static uint64_t put(struct fixture *f, const void *hdr, size_t len)
{
    uint64_t gpa = fg_alloc(&f->fg, SM_NET_HDR + len + 1);
    memcpy(fg_ptr(&f->fg, gpa), hdr, SM_NET_HDR);
    for (size_t i = 0; i < len; i++)
        fg_ptr(&f->fg, gpa)[SM_NET_HDR + i] = (uint8_t)i;
    return gpa;
}

static void transmit(struct fixture *f, const void *hdr, size_t len)
{
    fg_send(&f->q[SM_NET_TX], put(f, hdr, len), (uint32_t)(SM_NET_HDR + len), 0, 0);
    notify(f, SM_NET_TX);
}

static const uint8_t plain[SM_NET_HDR];

static void test_config(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(fg_reg(f->dev, 0x100), 0x03020102);
    assert_int_equal(fg_reg(f->dev, 0x104), 0x00010504); /* rest of the MAC, link up */
    assert_int_equal(fg_reg(f->dev, 0x108), 1 | 1400 << 16);
}

static void test_transmit(void **state)
{
    struct fixture *f = *state;
    probe(f, UINT64_MAX, 16);
    assert_int_equal(f->backend->configured, 1);
    transmit(f, plain, 100);
    assert_int_equal(f->backend->sends, 1);
    assert_int_equal(f->backend->batches, 1);
    assert_int_equal(f->backend->len, 100);
    assert_int_equal(f->backend->frame[99], 99);
    uint32_t id;
    assert_true(fg_used(&f->q[SM_NET_TX], &id, NULL));
    assert_int_equal(sm_virtio_net_counters(f->dev)->tx_frames, 1);
}

static void test_bad_headers(void **state)
{
    static const uint8_t bad[][SM_NET_HDR] = {
        {1, 0, 0, 0, 0, 0, 99, 0, 0, 0},            /* checksum field over the end */
        {1, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff}, /* sum would wrap */
        {0, 1, 54, 0, 100, 0, 0, 0, 0, 0},          /* segments without a checksum */
        {1, 1, 54, 0, 0, 0, 34, 0, 16, 0},          /* segments of size 0 */
        {1, 1, 200, 0, 100, 0, 34, 0, 16, 0},       /* headers longer than the frame */
        {1, 3, 54, 0, 100, 0, 34, 0, 16, 0},        /* UFO was not offered */
        {1, 9, 54, 0, 100, 0, 34, 0, 16, 0},        /* no such type */
    };
    struct fixture *f = *state;
    probe(f, UINT64_MAX, 16);
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        transmit(f, bad[i], 100);
    assert_int_equal(f->backend->sends, 0);
    assert_int_equal(sm_virtio_net_counters(f->dev)->tx_bad, SM_ARRAY_LEN(bad));
    transmit(f, (uint8_t[SM_NET_HDR]){1, 1, 54, 0, 100, 0, 34, 0, 16, 0}, 100);
    transmit(f, (uint8_t[SM_NET_HDR]){1, 0x84, 54, 0, 100, 0, 34, 0, 16, 0}, 100);
    assert_int_equal(f->backend->sends, 2);
    transmit(f, (uint8_t[SM_NET_HDR]){0xfe, 0, 9, 9, 9, 9, 9, 9, 9, 9}, 100);
    assert_int_equal(f->backend->sends, 3);
    assert_int_equal(
        f->backend->hdr.flags | f->backend->hdr.csum_start | f->backend->hdr.gso_size, 0);
}

static void test_no_offload_without_negotiation(void **state)
{
    struct fixture *f = *state;
    probe(f, SM_VIRTIO_F_VERSION_1, 16);
    assert_int_equal(f->backend->features, 0);
    transmit(f, (uint8_t[SM_NET_HDR]){1, 0, 0, 0, 0, 0, 34, 0, 16, 0}, 100);
    transmit(f, (uint8_t[SM_NET_HDR]){1, 1, 54, 0, 100, 0, 34, 0, 16, 0}, 100);
    assert_int_equal(f->backend->sends, 0);
}

static void test_lengths(void **state)
{
    struct fixture *f = *state;
    probe(f, UINT64_MAX, 16);
    transmit(f, plain, 0);
    transmit(f, plain, 13);
    transmit(f, plain, SM_NET_MAX_FRAME + 1);
    assert_int_equal(f->backend->sends, 0);
    transmit(f, plain, 14);
    transmit(f, plain, SM_NET_MAX_FRAME);
    assert_int_equal(f->backend->sends, 2);
    for (int i = 0; i < 5; i++)
        assert_true(fg_used(&f->q[SM_NET_TX], NULL, NULL));
}

static void test_transmit_pressure(void **state)
{
    struct fixture *f = *state;
    probe(f, UINT64_MAX, 16);
    f->backend->busy = true;
    transmit(f, plain, 60);
    transmit(f, plain, 61);
    assert_false(fg_used(&f->q[SM_NET_TX], NULL, NULL));
    f->backend->busy = false;
    notify(f, SM_NET_TX); /* the backend has not said that it can */
    assert_int_equal(f->backend->sends, 0);
    sm_net_tx_resume(f->card);
    assert_int_equal(f->backend->sends, 2);
    assert_int_equal(f->backend->len, 61);
    assert_true(fg_used(&f->q[SM_NET_TX], NULL, NULL));
    assert_true(fg_used(&f->q[SM_NET_TX], NULL, NULL));
}

static void offer(struct fixture *f, uint64_t *gpa, uint32_t len)
{
    *gpa = fg_alloc(&f->fg, len);
    memset(fg_ptr(&f->fg, *gpa), 0xee, len);
    fg_send(&f->q[SM_NET_RX], 0, 0, *gpa, len);
}

static void test_receive_merged(void **state)
{
    struct fixture *f = *state;
    const struct virtio_net_hdr_v1 hdr = {.flags = VIRTIO_NET_HDR_F_DATA_VALID};
    uint8_t frame[250];
    for (size_t i = 0; i < sizeof(frame); i++)
        frame[i] = (uint8_t)i;
    probe(f, UINT64_MAX, 16);
    assert_false(sm_net_deliver(f->card, &hdr, frame, sizeof(frame)));
    uint64_t gpa[3];
    offer(f, &gpa[0], 100);
    offer(f, &gpa[1], 100);
    notify(f, SM_NET_RX);
    assert_int_equal(f->backend->ready, 1);
    assert_false(sm_net_deliver(f->card, &hdr, frame, sizeof(frame))); /* not enough */
    assert_false(sm_net_deliver(f->card, &hdr, frame, 10));            /* frames keep their order */
    /* the guest is asked to kick for what comes behind the two that it has already given */
    assert_int_equal(fg_load16(&f->fg, f->q[SM_NET_RX].used + 4 + 8 * 16), 2);
    offer(f, &gpa[2], 100);
    notify(f, SM_NET_RX);
    assert_int_equal(f->backend->ready, 2);
    assert_true(sm_net_deliver(f->card, &hdr, frame, sizeof(frame)));
    uint32_t id;
    uint32_t len;
    assert_false(fg_used(&f->q[SM_NET_RX], &id, &len)); /* not shown yet */
    sm_net_flush(f->card);
    assert_true(fg_used(&f->q[SM_NET_RX], &id, &len));
    assert_int_equal(len, 100);
    assert_true(fg_used(&f->q[SM_NET_RX], &id, &len));
    assert_int_equal(len, 100);
    assert_true(fg_used(&f->q[SM_NET_RX], &id, &len));
    assert_int_equal(len, 62);
    assert_memory_equal(fg_ptr(&f->fg, gpa[0]), "\2\0\0\0\0\0\0\0\0\0\3\0", 12);
    assert_memory_equal(fg_ptr(&f->fg, gpa[0]) + 12, frame, 88);
    assert_memory_equal(fg_ptr(&f->fg, gpa[1]), frame + 88, 100);
    assert_memory_equal(fg_ptr(&f->fg, gpa[2]), frame + 188, 62);
    assert_int_equal(fg_ptr(&f->fg, gpa[2])[62], 0xee);
}

/* What is sent goes back into the used ring, whatever was received in the middle of it. */
static void test_answer_while_sending(void **state)
{
    struct fixture *f = *state;
    probe(f, UINT64_MAX, 16);
    uint64_t gpa[4];
    for (unsigned i = 0; i < 4; i++)
        offer(f, &gpa[i], 100);
    f->backend->answer = 250;
    unsigned head = fg_send(&f->q[SM_NET_TX], put(f, plain, 60), SM_NET_HDR + 60, 0, 0);
    notify(f, SM_NET_TX);
    uint32_t id;
    assert_true(fg_used(&f->q[SM_NET_TX], &id, NULL));
    assert_int_equal(id, head);
    sm_net_flush(f->card);
    for (unsigned i = 0; i < 3; i++)
        assert_true(fg_used(&f->q[SM_NET_RX], &id, NULL));
    assert_false(fg_used(&f->q[SM_NET_RX], &id, NULL));
}

static void test_receive_unmerged(void **state)
{
    struct fixture *f = *state;
    const struct virtio_net_hdr_v1 hdr = {.flags = 0};
    uint8_t frame[250] = {1};
    probe(f, SM_VIRTIO_F_VERSION_1, 16);
    uint64_t gpa;
    offer(f, &gpa, 100);
    offer(f, &gpa, 300);
    assert_true(sm_net_deliver(f->card, &hdr, frame, sizeof(frame))); /* will never fit */
    assert_int_equal(sm_virtio_net_counters(f->dev)->rx_dropped, 1);
    assert_true(sm_net_deliver(f->card, &hdr, frame, 80));
    sm_net_flush(f->card);
    assert_true(fg_used(&f->q[SM_NET_RX], NULL, NULL));
    assert_false(fg_used(&f->q[SM_NET_RX], NULL, NULL));
}

static void test_useless_buffers(void **state)
{
    struct fixture *f = *state;
    const struct virtio_net_hdr_v1 hdr = {.flags = 0};
    uint8_t frame[60] = {1};
    probe(f, UINT64_MAX, 16);
    uint64_t gpa;
    offer(f, &gpa, 12);
    assert_true(sm_net_deliver(f->card, &hdr, frame, sizeof(frame)));
    assert_int_equal(sm_virtio_net_counters(f->dev)->rx_dropped, 1);
    assert_true(fg_reg(f->dev, 0x70) & SM_VIRTIO_STATUS_NEEDS_RESET);
}

static void test_tiny_buffers_are_bounded(void **state)
{
    struct fixture *f = *state;
    const struct virtio_net_hdr_v1 hdr = {.flags = 0};
    uint8_t frame[1000] = {1};
    probe(f, UINT64_MAX, 256);
    uint64_t gpa;
    offer(f, &gpa, 13);
    for (int i = 0; i < 200; i++)
        offer(f, &gpa, 1);
    assert_true(sm_net_deliver(f->card, &hdr, frame, sizeof(frame)));
    assert_int_equal(sm_virtio_net_counters(f->dev)->rx_dropped, 1);
    assert_true(sm_net_deliver(f->card, &hdr, frame, SM_NET_MAX_MERGE));
    assert_int_equal(sm_virtio_net_counters(f->dev)->rx_frames, 1);
}

static void test_save_and_load(void **state)
{
    struct fixture *f = *state;
    struct fixture other = {.fg = f->fg, .loop = f->loop, .env = f->env};
    struct sm_virtio_state saved = {0};
    const uint8_t new_mac[6] = {2, 9, 9, 9, 9, 9};
    probe(f, UINT64_MAX, 16);
    transmit(f, plain, 60);
    sm_virtio_save(f->dev, &saved);

    other.backend = calloc(1, sizeof(*other.backend));
    assert_non_null(other.backend);
    other.backend->base = (struct sm_net_backend){.ops = &fake_ops};
    assert_int_equal(
        sm_virtio_net_create(&other.env, new_mac, &other.backend->base, &other.dev, NULL), 0);
    assert_int_equal(sm_virtio_load(other.dev, &saved, NULL), 0);
    assert_int_equal(other.backend->configured, 1);
    assert_int_equal(other.backend->features, f->backend->features);
    assert_int_equal(fg_reg(other.dev, 0x60), SM_VIRTIO_INT_CONFIG | (fg_reg(other.dev, 0x60) & 1));
    assert_int_equal(fg_reg(other.dev, 0x100), 0x09090902); /* the address is that of this VM, */
    assert_int_equal(fg_reg(other.dev, 0x104), 0x00000909); /* and this backend has no link */
    other.q[1] = f->q[1];
    fg_send(&other.q[1], put(f, plain, 70), SM_NET_HDR + 70, 0, 0);
    notify(&other, SM_NET_TX);
    assert_int_equal(other.backend->sends, 1);
    assert_int_equal(other.backend->len, 70);
    sm_virtio_destroy(other.dev);
}

static void test_a_link_that_comes_or_stays(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_state saved = {0};
    probe(f, UINT64_MAX, 16);
    for (uint64_t had_link = 0; had_link <= 1; had_link++) {
        fg_interrupts(f->dev);
        sm_virtio_save(f->dev, &saved);
        assert_int_equal(saved.extra[0], 1);
        saved.extra[0] = had_link;
        saved.interrupt_status = 0;
        assert_int_equal(sm_virtio_load(f->dev, &saved, NULL), 0);
        assert_int_equal(
            fg_reg(f->dev, 0x60) & SM_VIRTIO_INT_CONFIG, had_link ? 0 : SM_VIRTIO_INT_CONFIG);
    }
}

static void test_checksum(void **state)
{
    (void)state;
    struct virtio_net_hdr_v1 hdr = {.flags = 1, .csum_start = 1, .csum_offset = 2};
    uint8_t frame[8] = {9, 1, 2, 0, 4, 5, 6, 7};
    /* 0102 + 0004 + 0506 + 07(00) = 0d0c; not of it: f2f3 */
    sm_net_complete_checksum(&hdr, frame, sizeof(frame));
    assert_memory_equal(frame, "\x09\x01\x02\xf2\xf3\x05\x06\x07", 8);
}

/* A backend that only passes frames on gets them where they lie, unless in too many pieces. */
static void test_pieces(void **state)
{
    struct fixture *f = *state;
    static const unsigned cuts[] = {1, 2, 7, SM_NET_MAX_PIECES, SM_NET_MAX_PIECES + 1};
    f->backend->base.ops = &passing_ops;
    probe(f, UINT64_MAX, 128);
    for (size_t i = 0; i < SM_ARRAY_LEN(cuts); i++) {
        unsigned n = cuts[i], len = SM_NET_HDR + 300, head = f->q[SM_NET_TX].next_desc % 128;
        uint64_t gpa = put(f, plain, len - SM_NET_HDR);
        for (unsigned d = 0; d < n; d++) { /* the first one begins with the header */
            unsigned from = d ? SM_NET_HDR + 1 + d : 0;
            unsigned end = d + 1 == n ? len : SM_NET_HDR + 2 + d;
            fg_desc(&f->q[SM_NET_TX], (head + d) % 128, gpa + from, end - from,
                d + 1 < n ? FG_NEXT : 0, (head + d + 1) % 128);
        }
        f->q[SM_NET_TX].next_desc = (uint16_t)(f->q[SM_NET_TX].next_desc + n);
        fg_offer(&f->q[SM_NET_TX], head);
        f->backend->pieces = 0;
        notify(f, SM_NET_TX);
        assert_int_equal(f->backend->sends, i + 1);
        assert_int_equal(f->backend->pieces, n <= SM_NET_MAX_PIECES ? n : 0);
        assert_int_equal(f->backend->len, 300);
        for (unsigned b = 0; b < 300; b++)
            assert_int_equal(f->backend->frame[b], (uint8_t)b);
    }
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(test_config),
        T(test_transmit),
        T(test_bad_headers),
        T(test_no_offload_without_negotiation),
        T(test_lengths),
        T(test_transmit_pressure),
        T(test_receive_merged),
        T(test_answer_while_sending),
        T(test_receive_unmerged),
        T(test_useless_buffers),
        T(test_tiny_buffers_are_bounded),
        T(test_save_and_load),
        T(test_a_link_that_comes_or_stays),
        cmocka_unit_test(test_checksum),
        T(test_pieces),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
