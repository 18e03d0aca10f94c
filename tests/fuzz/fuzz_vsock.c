/*
 * Packets of a hostile guest, and a host that writes, reads and closes meanwhile. What the device sends is
 * checked by vsock_guest.h; beyond that nothing may be left over at the end.
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

/* Input: steps of four bytes: kind, two small operands, flags; a packet's strange fields come from the
 * high bits of the kind. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t payload[65536];
    struct vg g = {0};
    struct host host = {.n = 0};
    struct sm_loop *loop;
    struct sm_vsock *vsock;
    struct sm_virtio_state state;
    const struct sm_vsock_config config = {.max_streams = 12};
    fg_init(&g.fg);
    struct sm_virtio_env env = {.memory = &g.fg.gm, .irq_fd = eventfd(0, EFD_NONBLOCK)};
    if (sm_loop_create(&loop, NULL))
        abort();
    env.loop = loop;
    if (sm_vsock_create(&env, &config, &vsock, NULL) ||
        sm_vsock_listen(vsock, 1, on_accept, &host, NULL))
        abort();
    vg_init(&g, sm_vsock_dev(vsock), 16, 4096);
    for (size_t at = 0; at + 4 <= size && at < 4000; at += 4) {
        uint8_t kind = data[at], a = data[at + 1], b = data[at + 2], flags = data[at + 3];
        struct vg_packet p = {.src_cid = 3,
            .dst_cid = 2,
            .src_port = 100 + a % 16u,
            .dst_port = 1 + (a > 250),
            .type = 1,
            .op = b,
            .flags = flags,
            .buf_alloc = g.buf_alloc,
            .fwd_cnt = g.fwd_cnt};
        uint32_t len = b == VG_RW ? flags * 257u : 0;
        switch (kind % 16) {
        case 0:
            host_acts(&host, a, b);
            break;
        case 1:
            g.refill = !g.refill;
            vg_refill(&g);
            break;
        case 2:
            g.fwd_cnt += a * 300u;
            g.buf_alloc = (b + 1u) << (flags % 16);
            break;
        case 3:
            vg_return_event(&g);
            break;
        case 4:
            sm_virtio_save(sm_vsock_dev(vsock), &state);
            if (flags & 1) {
                if (sm_virtio_load(sm_vsock_dev(vsock), &state, NULL))
                    abort();
                sm_vsock_transport_reset(vsock);
                sm_virtio_wake(sm_vsock_dev(vsock));
            }
            break;
        case 5:
            sm_loop_turn(loop);
            while (vg_recv(&g, &p) && g.n_held < 16)
                ;
            break;
        default:
            p.len = kind & 0x10 ? flags * 0x01010101u : len;
            p.src_cid += (kind & 0xe0) == 0x20;
            p.dst_cid += (kind & 0xe0) == 0x40;
            p.type = (uint16_t)(p.type + ((kind & 0xe0) == 0x60));
            if (!vg_tx_room(&g))
                sm_loop_turn(loop);
            if (vg_tx_room(&g))
                vg_send_raw(&g, &p, payload, len);
            break;
        }
        if (flags & 0x40)
            sm_loop_turn(loop);
        struct sm_vsock_stats stats;
        sm_vsock_get_stats(vsock, &stats);
        if (stats.streams > config.max_streams)
            abort();
    }
    sm_vsock_end(vsock);
    while (host.n > 0)
        close(host.fds[--host.n]);
    sm_loop_turn(loop);
    sm_virtio_destroy(sm_vsock_dev(vsock));
    sm_loop_destroy(loop);
    close(env.irq_fd);
    fg_fini(&g.fg);
    return 0;
}
