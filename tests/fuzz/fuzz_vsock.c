/*
 * Packets of a hostile guest, and a host that writes, reads and closes meanwhile. What the device
 * sends is checked by vsock_guest.h; beyond that nothing may be left over at the end.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "vsock_guest.h"

#define MAX_FDS 16

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct host {
    int fds[MAX_FDS];
    unsigned n;
};

static void on_accept(void *arg, int fd, uint32_t guest_port)
{
    struct host *host = arg;
    (void)guest_port;
    fcntl(fd, F_SETFL, O_NONBLOCK);
    if (host->n == MAX_FDS)
        close(fd);
    else
        host->fds[host->n++] = fd;
}

static void host_acts(struct host *host, unsigned what, unsigned which)
{
    static uint8_t buf[30000];
    if (host->n == 0)
        return;
    int *fd = &host->fds[which % host->n];
    switch (what % 5) {
    case 0:
        (void)!send(*fd, buf, 1 + which * 100, MSG_NOSIGNAL);
        break;
    case 1:
        (void)!recv(*fd, buf, sizeof(buf), 0);
        break;
    case 2:
        shutdown(*fd, SHUT_WR);
        break;
    case 3:
        shutdown(*fd, SHUT_RD);
        break;
    default:
        close(*fd);
        *fd = host->fds[--host->n];
        break;
    }
}

struct world {
    struct vg g;
    struct host host;
    struct sm_loop *loop;
    struct sm_vsock *vsock;
};

static void save_and_load(struct world *w, bool load)
{
    struct sm_virtio_dev *dev = sm_vsock_dev(w->vsock);
    struct sm_virtio_state state;
    sm_virtio_save(dev, &state);
    if (!load)
        return;
    if (sm_virtio_load(dev, &state, NULL))
        abort();
    sm_vsock_transport_reset(w->vsock);
    sm_virtio_wake(dev);
}

/* A packet whose strange fields come from the high bits of the kind. */
static void guest_sends(struct world *w, uint8_t kind, uint8_t a, uint8_t op, uint8_t flags)
{
    static uint8_t payload[65536];
    uint32_t len = op == VG_RW ? flags * 257u : 0;
    struct vg_packet p = {.src_cid = 3 + ((kind & 0xe0) == 0x20),
        .dst_cid = 2 + ((kind & 0xe0) == 0x40),
        .src_port = 100 + a % 16u,
        .dst_port = 1 + (a > 250),
        .len = kind & 0x10 ? flags * 0x01010101u : len,
        .type = (uint16_t)(1 + ((kind & 0xe0) == 0x60)),
        .op = op,
        .flags = flags,
        .buf_alloc = w->g.buf_alloc,
        .fwd_cnt = w->g.fwd_cnt};
    if (!vg_tx_room(&w->g))
        sm_loop_turn(w->loop);
    if (vg_tx_room(&w->g))
        vg_send_raw(&w->g, &p, payload, len);
}

static void step(struct world *w, uint8_t kind, uint8_t a, uint8_t b, uint8_t flags)
{
    struct vg_packet p;
    switch (kind % 16) {
    case 0:
        host_acts(&w->host, a, b);
        break;
    case 1:
        w->g.refill = !w->g.refill;
        vg_refill(&w->g);
        break;
    case 2:
        w->g.fwd_cnt += a * 300u;
        w->g.buf_alloc = (b + 1u) << (flags % 16);
        break;
    case 3:
        vg_return_event(&w->g);
        break;
    case 4:
        save_and_load(w, flags & 1);
        break;
    case 5:
        sm_loop_turn(w->loop);
        while (vg_recv(&w->g, &p) && w->g.n_held < 16)
            ;
        break;
    default:
        guest_sends(w, kind, a, b, flags);
        break;
    }
    if (flags & 0x40)
        sm_loop_turn(w->loop);
}

/* Input: steps of four bytes: kind, two small operands, flags. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct world w = {.host = {.n = 0}};
    const struct sm_vsock_config config = {.max_streams = 12};
    fg_init(&w.g.fg);
    struct sm_virtio_env env = {.memory = &w.g.fg.gm, .irq = fg_bell()};
    if (sm_loop_create(&w.loop, NULL))
        abort();
    env.loop = w.loop;
    if (sm_vsock_create(&env, &config, &w.vsock, NULL) ||
        sm_vsock_listen(w.vsock, 1, on_accept, &w.host, NULL))
        abort();
    vg_init(&w.g, sm_vsock_dev(w.vsock), 16, 4096);
    for (size_t at = 0; at + 4 <= size && at < 4000; at += 4) {
        step(&w, data[at], data[at + 1], data[at + 2], data[at + 3]);
        struct sm_vsock_stats stats;
        sm_vsock_get_stats(w.vsock, &stats);
        if (stats.streams > config.max_streams)
            abort();
    }
    sm_vsock_end(w.vsock);
    while (w.host.n > 0)
        close(w.host.fds[--w.host.n]);
    sm_loop_turn(w.loop);
    sm_virtio_destroy(sm_vsock_dev(w.vsock));
    sm_loop_destroy(w.loop);
    sm_bell_close(&env.irq);
    fg_fini(&w.g.fg);
    return 0;
}
