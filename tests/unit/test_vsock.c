/* The vsock device with a guest that is a few calls of the test: streams of both sides, credit,
 * what a hostile driver sends, pauses and resets of the transport. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "patience.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/wait.h"
#include "vsock_util.h"

#define PORT         1024u
#define TX_RETURN_MS 20 /* as in packet.c */

struct fixture {
    struct vg g;
    struct sm_loop *loop;
    struct sm_vsock *vsock;
    struct sm_bell irq;
    int accepted[600];
    unsigned n_accepted;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fg_init(&f->g.fg);
    f->irq = fg_bell();
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    struct sm_virtio_env env = {.loop = f->loop, .memory = &f->g.fg.gm, .irq = f->irq};
    assert_int_equal(sm_vsock_create(&env, NULL, &f->vsock, NULL), 0);
    vg_init(&f->g, sm_vsock_dev(f->vsock), 16, 4096);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sm_virtio_destroy(sm_vsock_dev(f->vsock));
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->irq);
    fg_fini(&f->g.fg);
    free(f);
    return 0;
}

static void turn(struct fixture *f)
{
    sm_loop_turn(f->loop);
}

static struct vg_packet expect(struct fixture *f, unsigned op)
{
    return vsock_expect(&f->g, f->loop, op);
}

static void expect_silence(struct fixture *f)
{
    vsock_expect_silence(&f->g, f->loop);
}

static unsigned streams(struct fixture *f)
{
    struct sm_vsock_stats stats;
    sm_vsock_get_stats(f->vsock, &stats);
    return (unsigned)stats.streams;
}

static void on_accept(void *arg, int fd, uint32_t guest_port)
{
    struct fixture *f = arg;
    (void)guest_port;
    f->accepted[f->n_accepted++] = fd;
}

/* A stream that the guest has opened from `port`; returns the host's end. */
static int open_from_guest(struct fixture *f, uint32_t port)
{
    unsigned n = f->n_accepted;
    if (n == 0)
        assert_int_equal(sm_vsock_listen(f->vsock, PORT, on_accept, f, NULL), 0);
    vg_send(&f->g, port, PORT, VG_REQUEST, 0, NULL, 0);
    struct vg_packet p = expect(f, VG_RESPONSE);
    assert_true(p.src_port == PORT && p.dst_port == port);
    assert_int_equal(p.buf_alloc, SM_VSOCK_BUF_ALLOC);
    assert_int_equal(f->n_accepted, n + 1);
    return f->accepted[n];
}

static void expect_read(int fd, const char *text)
{
    char buf[256];
    size_t len = strlen(text);
    assert_int_equal(recv(fd, buf, len, MSG_WAITALL), len);
    assert_memory_equal(buf, text, len);
}

static void expect_end(int fd)
{
    char c;
    assert_int_equal(recv(fd, &c, 1, MSG_DONTWAIT), 0);
}

/* ---- streams --------------------------------------------------------------------------------- */

static void guest_connects_and_both_talk(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "hello", 5);
    turn(f);
    expect_read(fd, "hello");
    assert_int_equal(write(fd, "world", 5), 5);
    struct vg_packet p = expect(f, VG_RW);
    assert_int_equal(p.len, 5);
    assert_int_equal(p.fwd_cnt, 5);
    assert_memory_equal(p.data, "world", 5);
    expect_silence(f);
    close(fd);
    p = expect(f, VG_SHUTDOWN);
    assert_int_equal(p.flags, 3);
    vg_send(&f->g, 7000, PORT, VG_RST, 0, NULL, 0);
    expect_silence(f);
    assert_int_equal(streams(f), 0);
}

static void unlistened_port_is_reset(void **state)
{
    struct fixture *f = *state;
    vg_send(&f->g, 7000, 4711, VG_REQUEST, 0, NULL, 0);
    struct vg_packet p = expect(f, VG_RST);
    assert_true(p.src_port == 4711 && p.dst_port == 7000);
    assert_int_equal(streams(f), 0);
    /* An RST is never answered by one. */
    vg_send(&f->g, 7000, 4711, VG_RST, 0, NULL, 0);
    expect_silence(f);
}

static void listeners_come_and_go(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(sm_vsock_listen(f->vsock, PORT, on_accept, f, NULL), 0);
    assert_int_equal(sm_vsock_listen(f->vsock, PORT, on_accept, f, NULL), -SM_EEXIST);
    assert_int_equal(sm_vsock_listen(f->vsock, PORT, NULL, NULL, NULL), 0);
    vg_send(&f->g, 7000, PORT, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST);
}

static void half_close_by_the_host(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    assert_int_equal(write(fd, "last", 4), 4);
    shutdown(fd, SHUT_WR);
    struct vg_packet p = expect(f, VG_RW);
    assert_memory_equal(p.data, "last", 4);
    p = expect(f, VG_SHUTDOWN);
    assert_int_equal(p.flags, 2);
    /* The guest may still talk, and then ends it all. */
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "answer", 6);
    turn(f);
    expect_read(fd, "answer");
    vg_send(&f->g, 7000, PORT, VG_SHUTDOWN, 3, NULL, 0);
    expect(f, VG_RST);
    expect_end(fd);
    assert_int_equal(streams(f), 0);
    close(fd);
}

static void half_close_by_the_guest(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "last", 4);
    vg_send(&f->g, 7000, PORT, VG_SHUTDOWN, 2, NULL, 0);
    turn(f);
    expect_read(fd, "last");
    expect_end(fd);
    assert_int_equal(write(fd, "answer", 6), 6);
    struct vg_packet p = expect(f, VG_RW);
    assert_memory_equal(p.data, "answer", 6);
    /* Data after its own SHUTDOWN is a broken promise. */
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "x", 1);
    expect(f, VG_RST);
    assert_int_equal(streams(f), 0);
    close(fd);
}

static void guest_that_receives_no_more(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    vg_send(&f->g, 7000, PORT, VG_SHUTDOWN, 1, NULL, 0);
    turn(f);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(errno, EPIPE);
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "still here", 10);
    turn(f);
    expect_read(fd, "still here");
    close(fd);
    struct vg_packet p = expect(f, VG_SHUTDOWN);
    assert_int_equal(p.flags, 3);
}

static void host_that_receives_no_more(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    shutdown(fd, SHUT_RD);
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "dropped", 7);
    struct vg_packet p = expect(f, VG_SHUTDOWN);
    assert_int_equal(p.flags, 1);
    assert_int_equal(p.fwd_cnt, 7);
    assert_int_equal(write(fd, "still here", 10), 10);
    expect(f, VG_RW);
    close(fd);
}

static void reset_by_the_guest_ends_the_socket(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    vg_send(&f->g, 7000, PORT, VG_RST, 0, NULL, 0);
    turn(f);
    expect_end(fd);
    assert_int_equal(send(fd, "x", 1, MSG_NOSIGNAL), -1);
    assert_int_equal(streams(f), 0);
    close(fd);
}

/* ---- credit ---------------------------------------------------------------------------------- */

static void guest_credit_bounds_what_we_send(void **state)
{
    struct fixture *f = *state;
    f->g.buf_alloc = 1000;
    int fd = open_from_guest(f, 7000);
    char data[1500];
    memset(data, 'd', sizeof(data));
    assert_int_equal(write(fd, data, sizeof(data)), sizeof(data));
    struct vg_packet p = expect(f, VG_RW);
    assert_int_equal(p.len, 1000);
    expect(f, VG_CREDIT_REQUEST);
    expect_silence(f);
    f->g.fwd_cnt = 300;
    vg_send(&f->g, 7000, PORT, VG_CREDIT_UPDATE, 0, NULL, 0);
    p = expect(f, VG_RW);
    assert_int_equal(p.len, 300);
    expect(f, VG_CREDIT_REQUEST);
    f->g.fwd_cnt = 1300;
    vg_send(&f->g, 7000, PORT, VG_CREDIT_UPDATE, 0, NULL, 0);
    p = expect(f, VG_RW);
    assert_int_equal(p.len, 200);
    /* A guest that takes back credit, or claims more than we sent, only hurts itself. */
    f->g.fwd_cnt = 4000000000u;
    vg_send(&f->g, 7000, PORT, VG_CREDIT_UPDATE, 0, NULL, 0);
    assert_int_equal(write(fd, data, 10), 10);
    expect_silence(f);
    close(fd);
}

static void slow_host_reader_holds_the_guest_back(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    static uint8_t piece[32768];
    uint32_t sent = 0, told = 0;
    /* The guest sends all that its credit allows; nobody reads. */
    for (int i = 0; i < 1000 && sent - told + sizeof(piece) <= SM_VSOCK_BUF_ALLOC; i++) {
        for (size_t b = 0; b < sizeof(piece); b++)
            piece[b] = (uint8_t)((sent + b) * 31 >> 3);
        vg_send(&f->g, 7000, PORT, VG_RW, 0, piece, sizeof(piece));
        sent += sizeof(piece);
        turn(f);
        struct vg_packet p;
        while (vg_recv(&f->g, &p))
            told = p.fwd_cnt;
    }
    assert_true(sent >= SM_VSOCK_BUF_ALLOC); /* ... and some of it is in the socket */
    assert_true(sent <= 3 * SM_VSOCK_BUF_ALLOC);
    /* It closes; its RST comes while we still hold bytes. All of them arrive. */
    vg_send(&f->g, 7000, PORT, VG_SHUTDOWN, 3, NULL, 0);
    vg_send(&f->g, 7000, PORT, VG_RST, 0, NULL, 0);
    turn(f);
    assert_int_equal(streams(f), 1);
    uint32_t got = 0;
    for (;;) {
        uint8_t buf[10000];
        ssize_t n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT);
        if (n == 0)
            break;
        if (n < 0)
            assert_int_equal(errno, EAGAIN);
        for (ssize_t b = 0; b < n; b++)
            assert_int_equal(buf[b], (uint8_t)((got + (uint32_t)b) * 31 >> 3));
        got += n > 0 ? (uint32_t)n : 0;
        turn(f);
    }
    assert_int_equal(got, sent);
    assert_int_equal(streams(f), 0);
    close(fd);
}

static void credit_is_given_back_as_the_host_reads(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    static uint8_t piece[16384], sink[16384];
    uint32_t sent = 0, told = 0, updates = 0;
    while (sent < 4 * SM_VSOCK_BUF_ALLOC) {
        assert_true(sent - told + sizeof(piece) <= SM_VSOCK_BUF_ALLOC);
        vg_send(&f->g, 7000, PORT, VG_RW, 0, piece, sizeof(piece));
        sent += sizeof(piece);
        turn(f);
        assert_int_equal(recv(fd, sink, sizeof(sink), MSG_WAITALL), sizeof(sink));
        turn(f);
        struct vg_packet p;
        while (vg_recv(&f->g, &p)) {
            assert_int_equal(p.op, VG_CREDIT_UPDATE);
            told = p.fwd_cnt;
            updates++;
        }
    }
    assert_in_range(updates, 8, 20); /* not one for each packet */
    vg_send(&f->g, 7000, PORT, VG_CREDIT_REQUEST, 0, NULL, 0);
    struct vg_packet p = expect(f, VG_CREDIT_UPDATE);
    assert_int_equal(p.fwd_cnt, sent);
    close(fd);
}

static void credit_violation_is_reset(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    static uint8_t piece[65536];
    struct vg_packet p = {0};
    unsigned i;
    for (i = 0; i < 20 && p.op != VG_RST; i++) {
        vg_send(&f->g, 7000, PORT, VG_RW, 0, piece, sizeof(piece));
        turn(f);
        while (p.op != VG_RST && vg_recv(&f->g, &p))
            ;
    }
    assert_int_equal(p.op, VG_RST);
    assert_in_range(i, 5, 12);
    assert_int_equal(streams(f), 0);
    close(fd);
}

static void without_rx_buffers_everything_waits(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    f->g.refill = false;
    char data[4096];
    memset(data, 'x', sizeof(data));
    size_t written = 0;
    ssize_t n;
    for (;;) {
        n = send(fd, data, sizeof(data), MSG_DONTWAIT);
        turn(f);
        if (n < 0)
            break;
        written += (size_t)n;
    }
    assert_int_equal(errno, EAGAIN); /* back-pressure reaches the writer */
    f->g.refill = true;
    f->g.buf_alloc = 100u << 20;
    vg_send(&f->g, 7000, PORT, VG_CREDIT_UPDATE, 0, NULL, 0);
    size_t got = 0;
    struct vg_packet p;
    for (int i = 0; i < 100000 && got < written; i++) {
        turn(f);
        while (vg_recv(&f->g, &p))
            got += p.op == VG_RW ? p.len : 0;
    }
    assert_int_equal(got, written);
    close(fd);
}

static unsigned tx_returned(struct fixture *f)
{
    return fg_load16(&f->g.fg, f->g.q[1].used + 2);
}

/* Asks for an interrupt for the buffer that is returned as `index`, as the driver does. */
static void ask_for_interrupt(struct fixture *f, unsigned q, unsigned index)
{
    fg_store16(&f->g.fg, f->g.q[q].avail + 4 + 2 * 16, (uint16_t)index);
}

/* A packet of the guest's, served but with no buffer returned. The functions below are false when
 * the host was so busy that the time at whose end they come back was over before we had looked. */
static bool one_is_kept(struct fixture *f, int64_t begin, unsigned returned_before)
{
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "x", 1);
    turn(f);
    unsigned returned = tx_returned(f);
    if (sm_now_ms() - begin >= TX_RETURN_MS)
        return false;
    assert_int_equal(returned, returned_before);
    return true;
}

static bool tx_buffers_go_with_received_ones(struct fixture *f, int fd)
{
    struct sm_virtio_dev *dev = sm_vsock_dev(f->vsock);
    unsigned before = tx_returned(f), interrupts;
    int64_t begin = sm_now_ms();
    ask_for_interrupt(f, 1, before);
    for (int i = 0; i < 3; i++) {
        if (!one_is_kept(f, begin, before))
            return false;
        interrupts = fg_interrupts(dev);
        if (sm_now_ms() - begin >= TX_RETURN_MS)
            return false;
        assert_int_equal(interrupts, 0);
    }
    ask_for_interrupt(f, 0, f->g.q[0].last_used);
    assert_int_equal(write(fd, "y", 1), 1);
    expect(f, VG_RW);
    interrupts = fg_interrupts(dev);
    if (sm_now_ms() - begin >= TX_RETURN_MS)
        return false;
    assert_int_equal(interrupts, 1);
    assert_int_equal(tx_returned(f), before + 3);
    return true;
}

static bool tx_buffers_come_back_after_a_time_or_when_many_wait(struct fixture *f)
{
    struct sm_virtio_dev *dev = sm_vsock_dev(f->vsock);
    unsigned before = tx_returned(f);
    ask_for_interrupt(f, 1, before);
    if (!one_is_kept(f, sm_now_ms(), before))
        return false;
    usleep(30000);
    turn(f);
    assert_int_equal(tx_returned(f), before + 1);
    assert_int_equal(fg_interrupts(dev), 1);
    ask_for_interrupt(f, 1, before + 1);
    for (int i = 0; i < 4; i++)
        vg_send(&f->g, 7000, PORT, VG_RW, 0, "x", 1);
    turn(f);
    assert_int_equal(tx_returned(f), before + 5);
    assert_int_equal(fg_interrupts(dev), 1);
    return true;
}

/* A capture in between loses none, nor the interrupt. */
static bool tx_buffers_outlive_a_capture(struct fixture *f)
{
    struct sm_virtio_dev *dev = sm_vsock_dev(f->vsock);
    unsigned before = tx_returned(f);
    struct sm_virtio_state s;
    ask_for_interrupt(f, 1, before);
    if (!one_is_kept(f, sm_now_ms(), before))
        return false;
    sm_virtio_save(dev, &s);
    assert_int_equal(s.queues[1].next_used_idx, before + 1);
    assert_int_equal(sm_virtio_load(dev, &s, NULL), 0);
    sm_vsock_transport_reset(f->vsock);
    fg_interrupts(dev);
    sm_virtio_wake(dev);
    turn(f);
    usleep(30000);
    turn(f);
    assert_int_equal(tx_returned(f), before + 1);
    assert_int_equal(fg_interrupts(dev), 1);
    return true;
}

static bool tx_buffers_come_back(struct fixture *f, int fd)
{
    return tx_buffers_go_with_received_ones(f, fd) &&
           tx_buffers_come_back_after_a_time_or_when_many_wait(f) &&
           tx_buffers_outlive_a_capture(f);
}

static void tx_buffers_come_back_without_an_interrupt_of_their_own(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    struct vg_packet p;
    unsigned tries = 0;
    fg_interrupts(sm_vsock_dev(f->vsock));
    while (!tx_buffers_come_back(f, fd)) {
        assert_int_not_equal(++tries, 1000);
        usleep(30000);
        turn(f);
        while (vg_recv(&f->g, &p))
            ;
        fg_interrupts(sm_vsock_dev(f->vsock));
    }
    close(fd);
}

/* ---- hostile packets ------------------------------------------------------------------------- */

static void wrong_addresses_and_types_are_reset(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    struct vg_packet bad = {.src_cid = 99,
                         .dst_cid = 2,
                         .src_port = 7000,
                         .dst_port = PORT,
                         .type = 1,
                         .op = VG_RW,
                         .len = 1},
                     p;
    vg_send_raw(&f->g, &bad, "x", 1);
    turn(f);
    assert_true(vg_recv(&f->g, &p));
    assert_int_equal(p.op, VG_RST);
    bad.src_cid = 3;
    bad.dst_cid = 1234567890123ULL;
    vg_send_raw(&f->g, &bad, "x", 1);
    turn(f);
    assert_true(vg_recv(&f->g, &p));
    assert_int_equal(p.op, VG_RST);
    assert_true(p.src_cid == 1234567890123ULL); /* so that the guest finds whom it is for */
    bad.dst_cid = 2;
    bad.type = 2;
    vg_send_raw(&f->g, &bad, "x", 1);
    turn(f);
    assert_true(vg_recv(&f->g, &p));
    assert_true(p.op == VG_RST && p.type == 2);
    /* The stream of that name did not suffer. */
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "ok", 2);
    turn(f);
    expect_read(fd, "ok");
    close(fd);
}

static void broken_packets_reset_their_stream(void **state)
{
    struct fixture *f = *state;
    for (int kind = 0; kind < 5; kind++) {
        uint32_t port = 7000 + (uint32_t)kind;
        int fd = open_from_guest(f, port);
        struct vg_packet bad = {.src_cid = 3,
            .dst_cid = 2,
            .src_port = port,
            .dst_port = PORT,
            .type = 1,
            .op = VG_RW,
            .len = 4,
            .buf_alloc = 65536};
        switch (kind) {
        case 0:
            bad.len = 5; /* longer than the chain */
            break;
        case 1:
            bad.len = UINT32_MAX;
            break;
        case 2:
            bad.op = 77;
            break;
        case 3:
            bad.op = VG_REQUEST; /* a second time */
            break;
        default:
            bad.op = VG_RESPONSE; /* to nothing */
            break;
        }
        vg_send_raw(&f->g, &bad, "data", 4);
        struct vg_packet p = expect(f, VG_RST);
        assert_int_equal(p.dst_port, port);
        expect_end(fd);
        close(fd);
    }
    assert_int_equal(streams(f), 0);
}

static void short_header_is_ignored(void **state)
{
    struct fixture *f = *state;
    vg_send_bytes(&f->g, "short", 5);
    expect_silence(f);
    int fd = open_from_guest(f, 7000);
    close(fd);
}

/* The guest takes nothing before all that it has to say is taken, as Linux may. */
static void flood_of_unknown_packets_is_bounded_and_holds_up_nothing(void **state)
{
    enum { FLOOD = 400 };
    struct fixture *f = *state;
    f->g.refill = false;
    unsigned sent = 0, answered = 0;
    struct vg_packet p;
    for (int round = 0; round < 10 * FLOOD && sent < FLOOD; round++) {
        if (vg_tx_room(&f->g)) {
            vg_send(&f->g, 9000 + sent, 1, VG_RW, 0, "x", 1);
            sent++;
        }
        turn(f);
    }
    assert_int_equal(sent, FLOOD);
    f->g.refill = true;
    for (int round = 0; round < 1000; round++) {
        while (vg_recv(&f->g, &p)) {
            assert_int_equal(p.op, VG_RST);
            answered++;
        }
        vg_refill(&f->g);
        turn(f);
    }
    assert_true(answered > 0 && answered < FLOOD);
    vg_send(&f->g, 7000, 4711, VG_REQUEST, 0, NULL, 0); /* room for answers again */
    expect(f, VG_RST);
}

static void a_late_response_is_not_answered(void **state)
{
    struct fixture *f = *state;
    vg_send(&f->g, 52, 1u << 30, VG_RESPONSE, 0, NULL, 0);
    expect_silence(f);
}

static void tiny_rx_buffers_break_the_device(void **state)
{
    struct fixture *f = *state;
    vg_init(&f->g, sm_vsock_dev(f->vsock), 16, 44);
    vg_send(&f->g, 7000, 1, VG_REQUEST, 0, NULL, 0);
    turn(f);
    assert_int_equal(fg_reg(sm_vsock_dev(f->vsock), 0x70), 15 | SM_VIRTIO_STATUS_NEEDS_RESET);
    vg_init(&f->g, sm_vsock_dev(f->vsock), 16, 4096);
    int fd = open_from_guest(f, 7000);
    close(fd);
}

static void five_hundred_streams(void **state)
{
    struct fixture *f = *state;
    enum { N = 480 }; /* two descriptors each: below the usual 1024 */
    static uint32_t got[N];
    memset(got, 0, sizeof(got));
    for (uint32_t i = 0; i < N; i++)
        open_from_guest(f, 10000 + i);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(write(f->accepted[i], &i, 4), 4);
    unsigned packets = 0;
    struct vg_packet p;
    for (int round = 0; round < 1000 && packets < N; round++) {
        turn(f);
        while (vg_recv(&f->g, &p)) {
            assert_int_equal(p.op, VG_RW);
            uint32_t i;
            memcpy(&i, p.data, 4);
            assert_int_equal(p.dst_port, 10000 + i);
            got[i]++;
            packets++;
        }
    }
    for (uint32_t i = 0; i < N; i++) {
        assert_int_equal(got[i], 1);
        vg_send(&f->g, 10000 + i, PORT, VG_RW, 0, &i, 4);
        turn(f);
        uint32_t back;
        assert_int_equal(recv(f->accepted[i], &back, 4, MSG_DONTWAIT), 4);
        assert_int_equal(back, i);
    }
    assert_int_equal(streams(f), N);
    /* The driver resets the device: all of them end. */
    fg_set_reg(sm_vsock_dev(f->vsock), 0x70, 0);
    for (uint32_t i = 0; i < N; i++) {
        expect_end(f->accepted[i]);
        close(f->accepted[i]);
    }
    assert_int_equal(streams(f), 0);
}

static void too_many_streams_are_reset(void **state)
{
    struct fixture *f = *state;
    struct sm_vsock *small;
    struct sm_vsock_config config = {.max_streams = 3};
    struct sm_virtio_env env = sm_vsock_dev(f->vsock)->env;
    sm_virtio_destroy(sm_vsock_dev(f->vsock));
    assert_int_equal(sm_vsock_create(&env, &config, &small, NULL), 0);
    f->vsock = small;
    vg_init(&f->g, sm_vsock_dev(small), 16, 4096);
    for (uint32_t i = 0; i < 3; i++)
        open_from_guest(f, 10000 + i);
    vg_send(&f->g, 10003, PORT, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST);
    vg_send(&f->g, 10000, PORT, VG_RST, 0, NULL, 0);
    open_from_guest(f, 10003);
    for (unsigned i = 0; i < f->n_accepted; i++)
        close(f->accepted[i]);
}

/* ---- connecting from the host ---------------------------------------------------------------- */

struct connector {
    struct fixture *f;
    int timeout_ms, rc, fd;
    uint32_t port;
    sm_error err;
    pthread_t thread;
};

static void *connect_thread(void *arg)
{
    struct connector *c = arg;
    struct sm_wait wait = sm_wait_ms(c->timeout_ms);
    c->rc = sm_vsock_connect(c->f->vsock, c->port, &wait, &c->fd, &c->err);
    return NULL;
}

static void start_connect(struct connector *c, struct fixture *f, uint32_t port, int timeout_ms)
{
    *c = (struct connector){.f = f, .port = port, .timeout_ms = timeout_ms, .fd = -1};
    assert_int_equal(pthread_create(&c->thread, NULL, connect_thread, c), 0);
}

/* The guest's next packet, with the loop's thread running. */
static struct vg_packet await(struct fixture *f, unsigned op)
{
    struct vg_packet p;
    for (int i = 0; i < PATIENCE_MS; i++) {
        if (vg_recv(&f->g, &p)) {
            assert_int_equal(p.op, op);
            return p;
        }
        usleep(1000);
    }
    fail_msg("no packet of type %u came", op);
    return p;
}

static void host_connects(void **state)
{
    struct fixture *f = *state;
    struct connector c;
    assert_int_equal(sm_loop_start(f->loop, "devices", NULL), 0);
    start_connect(&c, f, 52, PATIENCE_MS);
    struct vg_packet p = await(f, VG_REQUEST);
    assert_int_equal(p.dst_port, 52);
    assert_true(p.src_port >= 1u << 30);
    vg_send(&f->g, 52, p.src_port, VG_RESPONSE, 0, NULL, 0);
    pthread_join(c.thread, NULL);
    assert_int_equal(c.rc, 0);
    assert_int_equal(write(c.fd, "ping", 4), 4);
    struct vg_packet data = await(f, VG_RW);
    assert_memory_equal(data.data, "ping", 4);
    vg_send(&f->g, 52, p.src_port, VG_RW, 0, "pong", 4);
    expect_read(c.fd, "pong"); /* the caller's end blocks */
    close(c.fd);
    await(f, VG_SHUTDOWN);
}

static void host_connect_is_refused_or_times_out(void **state)
{
    struct fixture *f = *state;
    struct connector c;
    assert_int_equal(sm_loop_start(f->loop, "devices", NULL), 0);
    start_connect(&c, f, 52, PATIENCE_MS);
    struct vg_packet p = await(f, VG_REQUEST);
    vg_send(&f->g, 52, p.src_port, VG_RST, 0, NULL, 0);
    pthread_join(c.thread, NULL);
    assert_int_equal(c.rc, -SM_ENOTFOUND);
    assert_int_equal(c.fd, -1);
    start_connect(&c, f, 53, 2000);
    await(f, VG_REQUEST);
    pthread_join(c.thread, NULL);
    assert_int_equal(c.rc, -SM_ETIMEOUT);
    await(f, VG_RST);
    assert_int_equal(streams(f), 0);
}

static void connect_waits_for_the_driver(void **state)
{
    struct fixture *f = *state;
    struct connector c;
    struct sm_virtio_dev *dev = sm_vsock_dev(f->vsock);
    assert_int_equal(sm_loop_start(f->loop, "devices", NULL), 0);
    fg_set_reg(dev, 0x70, 0);
    assert_int_equal(
        sm_vsock_connect(f->vsock, 52, &(struct sm_wait){0}, &c.fd, &c.err), -SM_ETIMEOUT);
    start_connect(&c, f, 52, PATIENCE_MS);
    usleep(20000);
    vg_init(&f->g, dev, 16, 4096);
    struct vg_packet p = await(f, VG_REQUEST);
    vg_send(&f->g, 52, p.src_port, VG_RESPONSE, 0, NULL, 0);
    pthread_join(c.thread, NULL);
    assert_int_equal(c.rc, 0);
    close(c.fd);
    /* The end of the guest ends everything. */
    struct connector late;
    await(f, VG_SHUTDOWN);
    start_connect(&late, f, 53, PATIENCE_MS);
    await(f, VG_REQUEST);
    sm_vsock_end(f->vsock);
    pthread_join(late.thread, NULL);
    assert_int_equal(late.rc, -SM_EGUEST);
    assert_int_equal(sm_vsock_connect(f->vsock, 52, &(struct sm_wait){.deadline = SM_NO_DEADLINE},
                         &c.fd, &c.err),
        -SM_EGUEST);
}

static void connect_during_a_pause_writes_nothing_into_the_guest(void **state)
{
    struct fixture *f = *state;
    struct connector c;
    struct vg_packet p;
    assert_int_equal(sm_loop_start(f->loop, "devices", NULL), 0);
    sm_loop_pause(f->loop);
    start_connect(&c, f, 52, PATIENCE_MS);
    usleep(30000);
    assert_false(vg_recv(&f->g, &p));
    sm_loop_resume(f->loop);
    p = await(f, VG_REQUEST);
    vg_send(&f->g, 52, p.src_port, VG_RESPONSE, 0, NULL, 0);
    pthread_join(c.thread, NULL);
    assert_int_equal(c.rc, 0);
    close(c.fd);
}

static void end_of_the_guest_delivers_what_it_sent(void **state)
{
    struct fixture *f = *state;
    int fd = open_from_guest(f, 7000);
    vg_send(&f->g, 7000, PORT, VG_RW, 0, "last words", 10);
    sm_vsock_end(f->vsock); /* the kick was not even seen */
    expect_read(fd, "last words");
    turn(f);
    expect_end(fd);
    close(fd);
}

static void quiet_when_the_guest_has_acknowledged(void **state)
{
    struct fixture *f = *state;
    assert_true(sm_vsock_wait_quiet(f->vsock, 0));
    int fd = open_from_guest(f, 7000);
    assert_false(sm_vsock_wait_quiet(f->vsock, 10));
    close(fd);
    expect(f, VG_SHUTDOWN);
    assert_false(sm_vsock_wait_quiet(f->vsock, 10));
    assert_int_equal(sm_loop_start(f->loop, "devices", NULL), 0);
    vg_send(&f->g, 7000, PORT, VG_RST, 0, NULL, 0);
    assert_true(sm_vsock_wait_quiet(f->vsock, PATIENCE_MS));
}

/* ---- snapshot -------------------------------------------------------------------------------- */

static void transport_reset_only_if_streams_were_open(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = sm_vsock_dev(f->vsock);
    struct sm_virtio_state clean, dirty;
    struct vg_packet p;
    int fd = open_from_guest(f, 7000);
    sm_virtio_save(dev, &dirty);

    /* The guest's memory is where it was; only the device goes back. */
    assert_int_equal(sm_virtio_load(dev, &dirty, NULL), 0);
    expect_end(fd);
    close(fd);
    assert_true(sm_vsock_transport_reset(f->vsock));
    sm_virtio_wake(dev);
    turn(f);
    assert_int_equal(vg_event(&f->g), 0);
    /* Before the guest has dealt with it nothing can be opened... */
    vg_send(&f->g, 7001, PORT, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST);
    assert_int_equal(sm_vsock_connect(f->vsock, 52, &(struct sm_wait){0}, &fd, NULL), -SM_ETIMEOUT);
    expect_silence(f);
    /* ... and a save says that a reset is still due. */
    struct sm_virtio_state again;
    sm_virtio_save(dev, &again);
    assert_true(again.extra[0] > 1);
    vg_return_event(&f->g);
    turn(f);
    fd = open_from_guest(f, 7001);
    close(fd);
    expect(f, VG_SHUTDOWN);
    vg_send(&f->g, 7001, PORT, VG_RST, 0, NULL, 0);
    turn(f);

    sm_virtio_save(dev, &clean);
    assert_int_equal(sm_virtio_load(dev, &clean, NULL), 0);
    vg_send(&f->g, 7002, PORT, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST); /* held until it is said how to go on */
    sm_virtio_save(dev, &clean);
    assert_int_equal(clean.extra[0], 1);
    assert_false(sm_vsock_transport_reset(f->vsock));
    assert_int_equal(vg_event(&f->g), -1);
    fd = open_from_guest(f, 7003);
    close(fd);
    assert_false(vg_recv(&f->g, &p));
}

static void unknown_history_means_reset(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = sm_vsock_dev(f->vsock);
    struct sm_virtio_state s;
    sm_virtio_save(dev, &s);
    memset(s.extra, 0, sizeof(s.extra));
    assert_int_equal(sm_virtio_load(dev, &s, NULL), 0);
    assert_true(sm_vsock_transport_reset(f->vsock));
    assert_int_equal(vg_event(&f->g), 0);
}

static void wake_device(void *arg)
{
    sm_virtio_wake(arg);
}

static void connects_wait_for_the_end_of_a_transport_reset(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = sm_vsock_dev(f->vsock);
    struct sm_virtio_state s;
    struct connector c;
    struct vg_packet p;
    int fd = open_from_guest(f, 7000);
    assert_int_equal(sm_loop_start(f->loop, "devices", NULL), 0);
    sm_loop_pause(f->loop);
    sm_virtio_save(dev, &s);
    assert_int_equal(sm_virtio_load(dev, &s, NULL), 0);
    start_connect(&c, f, 52, PATIENCE_MS);
    assert_true(sm_vsock_transport_reset(f->vsock));
    sm_loop_run(f->loop, wake_device, dev);
    sm_loop_resume(f->loop);
    int event;
    for (int ms = 0; (event = vg_event(&f->g)) < 0 && ms < PATIENCE_MS; ms++)
        usleep(1000);
    assert_int_equal(event, 0);
    usleep(20000);
    assert_false(vg_recv(&f->g, &p));
    vg_return_event(&f->g);
    p = await(f, VG_REQUEST);
    vg_send(&f->g, 52, p.src_port, VG_RESPONSE, 0, NULL, 0);
    pthread_join(c.thread, NULL);
    assert_int_equal(c.rc, 0);
    close(c.fd);
    close(fd);
}

/* ---- bridges --------------------------------------------------------------------------------- */

/* One end of a pair; the other is bridged to the target. */
static int bridge(struct fixture *f, const struct sm_vsock_target *target)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, pair), 0);
    assert_true(sm_vsock_bridge(f->vsock, pair[1], target));
    return pair[0];
}

static void a_socket_is_bridged(void **state)
{
    struct fixture *f = *state;
    const struct sm_vsock_target target = {
        .port = 52, .first = "abc", .first_len = 3, .say_ok = true};
    char ok_late[32];
    int fd = bridge(f, &target);
    assert_int_equal(write(fd, "early", 5), 5);
    struct vg_packet p = expect(f, VG_REQUEST);
    assert_int_equal(p.dst_port, 52);
    vg_send(&f->g, 52, p.src_port, VG_RESPONSE, 0, NULL, 0);
    vg_send(&f->g, 52, p.src_port, VG_RW, 0, "late", 4);
    struct vg_packet first = expect(f, VG_RW);
    assert_int_equal(first.len, 3);
    assert_memory_equal(first.data, "abc", 3);
    assert_memory_equal(expect(f, VG_RW).data, "early", 5);
    snprintf(ok_late, sizeof(ok_late), "OK %u\nlate", p.src_port);
    expect_read(fd, ok_late); /* who was told to say it speaks first */
    close(fd);
    expect(f, VG_SHUTDOWN);
}

static void a_bridge_is_refused_or_given_up(void **state)
{
    struct fixture *f = *state;
    const struct sm_vsock_target refused = {.port = 9, .say_ok = true},
                                 silent = {.port = 10, .timeout_ms = 1};
    int fd = bridge(f, &refused);
    struct vg_packet p = expect(f, VG_REQUEST);
    vg_send(&f->g, 9, p.src_port, VG_RST, 0, NULL, 0);
    turn(f);
    expect_end(fd);
    close(fd);
    fd = bridge(f, &silent);
    expect(f, VG_REQUEST);
    assert_int_equal(streams(f), 1);
    usleep(600000); /* a tick */
    expect(f, VG_RST);
    expect_end(fd);
    close(fd);
    assert_int_equal(streams(f), 0);
}

/* ---- where the guest's connections lead ------------------------------------------------------ */

struct asked {
    struct fixture *f;
    unsigned n;
    uint32_t ticket[SM_VSOCK_ASKED + 1], port;
    int answer; /* -2: none yet */
};

static void on_ask(void *arg, uint32_t ticket, uint32_t port)
{
    struct asked *a = arg;
    a->ticket[a->n++] = ticket;
    a->port = port;
    if (a->answer != -2)
        sm_vsock_lead(a->f->vsock, ticket, a->answer);
}

static void be_asked(struct fixture *f, struct asked *a)
{
    *a = (struct asked){.f = f, .answer = -2};
    sm_vsock_accept_any(f->vsock, on_ask, a);
}

/* Our end of a pair; the guest is led to the other. */
static int lead(struct fixture *f, uint32_t ticket)
{
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    sm_vsock_lead(f->vsock, ticket, pair[1]);
    return pair[0];
}

static void expect_stream(struct fixture *f, uint32_t guest_port, uint32_t port, int fd)
{
    struct vg_packet p = expect(f, VG_RESPONSE);
    assert_true(p.src_port == port && p.dst_port == guest_port);
    vg_send(&f->g, guest_port, port, VG_RW, 0, "hi", 2);
    turn(f);
    expect_read(fd, "hi");
    assert_int_equal(write(fd, "ho", 2), 2);
    assert_memory_equal(expect(f, VG_RW).data, "ho", 2);
}

static void any_port_leads_where_it_is_said_at_once(void **state)
{
    struct fixture *f = *state;
    struct asked a;
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
    be_asked(f, &a);
    close(open_from_guest(f, 7000)); /* a listener of ours is asked first */
    expect(f, VG_SHUTDOWN);
    assert_int_equal(a.n, 0);
    a.answer = pair[1];
    vg_send(&f->g, 7001, 77, VG_REQUEST, 0, NULL, 0);
    expect_stream(f, 7001, 77, pair[0]);
    assert_true(a.n == 1 && a.port == 77);
    close(pair[0]);
    expect(f, VG_SHUTDOWN);
    a.answer = -1;
    vg_send(&f->g, 7002, 78, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST);
    sm_vsock_accept_any(f->vsock, NULL, NULL);
    vg_send(&f->g, 7003, 77, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST);
    assert_int_equal(a.n, 2);
}

static void any_port_leads_where_it_is_said_later(void **state)
{
    struct fixture *f = *state;
    struct asked a;
    be_asked(f, &a);
    vg_send(&f->g, 7000, 77, VG_REQUEST, 0, NULL, 0);
    vg_send(&f->g, 7001, 78, VG_REQUEST, 0, NULL, 0);
    expect_silence(f);
    assert_int_equal(a.n, 2);
    int second = lead(f, a.ticket[1]); /* in another order than asked */
    expect_stream(f, 7001, 78, second);
    int first = lead(f, a.ticket[0]);
    expect_stream(f, 7000, 77, first);
    vg_send(&f->g, 7002, 77, VG_REQUEST, 0, NULL, 0);
    expect_silence(f);
    sm_vsock_lead(f->vsock, a.ticket[2], -1);
    struct vg_packet p = expect(f, VG_RST);
    assert_true(p.src_port == 77 && p.dst_port == 7002);
    assert_int_equal(streams(f), 2);
    close(first);
    close(second);
}

/* An answer to nothing is closed, and what became of the question is not touched by it. */
static void expect_no_use_for(struct fixture *f, uint32_t ticket)
{
    int fd = lead(f, ticket);
    expect_silence(f);
    expect_end(fd);
    close(fd);
}

static void a_late_or_wrong_answer_is_closed(void **state)
{
    struct fixture *f = *state;
    struct asked a;
    be_asked(f, &a);
    vg_send(&f->g, 7000, 77, VG_REQUEST, 0, NULL, 0);
    expect_silence(f);
    expect_no_use_for(f, a.ticket[0] + 1);
    usleep((SM_VSOCK_ASKED_MS + 600) * 1000); /* and a tick */
    struct vg_packet p = expect(f, VG_RST);
    assert_true(p.src_port == 77 && p.dst_port == 7000);
    assert_int_equal(streams(f), 0);
    expect_no_use_for(f, a.ticket[0]);

    /* The guest gives up; and asks again from the same port. */
    vg_send(&f->g, 7001, 77, VG_REQUEST, 0, NULL, 0);
    vg_send(&f->g, 7001, 77, VG_RST, 0, NULL, 0);
    expect_silence(f);
    assert_int_equal(streams(f), 0);
    vg_send(&f->g, 7001, 77, VG_REQUEST, 0, NULL, 0);
    expect_silence(f);
    expect_no_use_for(f, a.ticket[1]);
    int fd = lead(f, a.ticket[2]);
    expect_stream(f, 7001, 77, fd);
    expect_no_use_for(f, a.ticket[2]); /* twice */
    close(fd);
}

static void only_so_many_answers_are_waited_for(void **state)
{
    struct fixture *f = *state;
    struct asked a;
    be_asked(f, &a);
    for (uint32_t i = 0; i < SM_VSOCK_ASKED; i++) {
        vg_send(&f->g, 7000 + i, 77, VG_REQUEST, 0, NULL, 0);
        expect_silence(f);
    }
    assert_int_equal(a.n, SM_VSOCK_ASKED);
    vg_send(&f->g, 9000, 77, VG_REQUEST, 0, NULL, 0);
    assert_int_equal(expect(f, VG_RST).dst_port, 9000);
    assert_int_equal(a.n, SM_VSOCK_ASKED);
    sm_vsock_lead(f->vsock, a.ticket[5], -1);
    expect(f, VG_RST);
    vg_send(&f->g, 9000, 77, VG_REQUEST, 0, NULL, 0);
    expect_silence(f);
    assert_int_equal(a.n, SM_VSOCK_ASKED + 1);
    int fd = lead(f, a.ticket[SM_VSOCK_ASKED]);
    expect_stream(f, 9000, 77, fd);
    close(fd);
}

/* Before the answer there is nothing to say: a guest that does is reset. */
static void a_guest_that_does_not_wait_for_the_answer(void **state)
{
    static const unsigned ops[] = {VG_RW, VG_SHUTDOWN, VG_RESPONSE, VG_REQUEST};
    struct fixture *f = *state;
    struct asked a;
    be_asked(f, &a);
    for (unsigned i = 0; i < SM_ARRAY_LEN(ops); i++) {
        vg_send(&f->g, 7000 + i, 77, VG_REQUEST, 0, NULL, 0);
        vg_send(&f->g, 7000 + i, 77, ops[i], 3, "x", 1);
        expect(f, VG_RST);
        expect_no_use_for(f, a.ticket[i]);
    }
    assert_int_equal(streams(f), 0);
}

/* The driver resets the device, the guest ends, the device goes: nobody waits any more. */
static void who_is_asked_may_outlive_the_question(void **state)
{
    struct fixture *f = *state;
    struct asked a;
    struct sm_virtio_state s;
    be_asked(f, &a);
    vg_send(&f->g, 7000, 77, VG_REQUEST, 0, NULL, 0);
    expect_silence(f);
    sm_virtio_save(sm_vsock_dev(f->vsock), &s);
    assert_true(s.extra[0] > 1); /* the guest believes in it */
    fg_set_reg(sm_vsock_dev(f->vsock), 0x70, 0);
    assert_int_equal(streams(f), 0);
    expect_no_use_for(f, a.ticket[0]);
    vg_init(&f->g, sm_vsock_dev(f->vsock), 16, 4096);
    vg_send(&f->g, 7000, 77, VG_REQUEST, 0, NULL, 0);
    expect_silence(f);
    sm_vsock_end(f->vsock);
    assert_int_equal(streams(f), 0);
    expect_no_use_for(f, a.ticket[1]);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(guest_connects_and_both_talk),
        T(unlistened_port_is_reset),
        T(listeners_come_and_go),
        T(half_close_by_the_host),
        T(half_close_by_the_guest),
        T(guest_that_receives_no_more),
        T(host_that_receives_no_more),
        T(reset_by_the_guest_ends_the_socket),
        T(guest_credit_bounds_what_we_send),
        T(slow_host_reader_holds_the_guest_back),
        T(credit_is_given_back_as_the_host_reads),
        T(credit_violation_is_reset),
        T(without_rx_buffers_everything_waits),
        T(tx_buffers_come_back_without_an_interrupt_of_their_own),
        T(wrong_addresses_and_types_are_reset),
        T(broken_packets_reset_their_stream),
        T(short_header_is_ignored),
        T(flood_of_unknown_packets_is_bounded_and_holds_up_nothing),
        T(a_late_response_is_not_answered),
        T(tiny_rx_buffers_break_the_device),
        T(five_hundred_streams),
        T(too_many_streams_are_reset),
        T(host_connects),
        T(host_connect_is_refused_or_times_out),
        T(connect_waits_for_the_driver),
        T(connect_during_a_pause_writes_nothing_into_the_guest),
        T(end_of_the_guest_delivers_what_it_sent),
        T(quiet_when_the_guest_has_acknowledged),
        T(transport_reset_only_if_streams_were_open),
        T(unknown_history_means_reset),
        T(connects_wait_for_the_end_of_a_transport_reset),
        T(a_socket_is_bridged),
        T(a_bridge_is_refused_or_given_up),
        T(any_port_leads_where_it_is_said_at_once),
        T(any_port_leads_where_it_is_said_later),
        T(a_late_or_wrong_answer_is_closed),
        T(only_so_many_answers_are_waited_for),
        T(a_guest_that_does_not_wait_for_the_answer),
        T(who_is_asked_may_outlive_the_question),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
