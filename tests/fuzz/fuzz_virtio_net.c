/*
 * A hostile driver at the network card: headers, chains, merged buffers, resets and kicks in any
 * order, in front of each backend. What reaches a backend must be what it may rely on; what leaves
 * through a tap interface with a policy must be allowed by it even after the kernel has filled the
 * checksum in.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "fuzz.h"
#include "fake_guest.h"
#include "net/frame.h"
#include "net/tap.h"
#include "net/user_net.h"
#include "util/error.h"

#define AREA  0x12000u /* what the driver fills and its buffers lie in */
#define QUEUE 16

struct checking {
    struct sm_net_backend base;
    uint64_t features;
    bool busy;
    uint32_t sum; /* of all that was sent: it can be read */
};

struct card {
    struct fg fg;
    struct sm_virtio_env env;
    struct sm_virtio_dev *dev;
    struct sm_net_backend *backend;
    struct fg_queue q[2];
    uint64_t area;
    struct checking *checking; /* NULL: another backend */
    int wire;                  /* the other end of a tap; or -1 */
    bool judged;
};

/* ---- a backend that believes nothing ------------------------------------------------------- */

static struct checking *checking_of(struct sm_net_backend *b)
{
    return (struct checking *)(void *)b;
}

static bool checking_send(
    struct sm_net_backend *b, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct checking *c = checking_of(b);
    unsigned gso = hdr->gso_type & ~VIRTIO_NET_HDR_GSO_ECN;
    if (c->busy)
        return false;
    fuzz_demand(len >= SM_ETH_HEADER && len <= SM_NET_MAX_FRAME);
    fuzz_demand(!(hdr->flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM));
    fuzz_demand(!hdr->flags || c->features & (1u << VIRTIO_NET_F_CSUM));
    fuzz_demand(!hdr->flags || (size_t)hdr->csum_start + hdr->csum_offset + 2 <= len);
    fuzz_demand(
        gso == VIRTIO_NET_HDR_GSO_NONE ||
        (gso == VIRTIO_NET_HDR_GSO_TCPV4 && (c->features & (1u << VIRTIO_NET_F_HOST_TSO4))) ||
        (gso == VIRTIO_NET_HDR_GSO_TCPV6 && (c->features & (1u << VIRTIO_NET_F_HOST_TSO6))));
    fuzz_demand(
        gso == VIRTIO_NET_HDR_GSO_NONE || (hdr->flags && hdr->gso_size && hdr->hdr_len <= len));
    sm_net_complete_checksum(hdr, frame, len);
    for (size_t i = 0; i < len; i++)
        c->sum += frame[i];
    return true;
}

static void checking_rx_ready(struct sm_net_backend *b)
{
    (void)b;
}

static void checking_configure(struct sm_net_backend *b, uint64_t features)
{
    checking_of(b)->features = features;
}

static void checking_destroy(struct sm_net_backend *b)
{
    free(b);
}

/* ---- set-up ---------------------------------------------------------------------------------- */

static struct sm_net_backend *make_checking(struct card *c)
{
    static const struct sm_net_backend_ops ops = {
        .send = checking_send,
        .rx_ready = checking_rx_ready,
        .configure = checking_configure,
        .destroy = checking_destroy,
    };
    c->checking = calloc(1, sizeof(*c->checking));
    fuzz_demand(c->checking != NULL);
    c->checking->base = (struct sm_net_backend){.ops = &ops, .mtu = SM_NET_MTU, .link_up = true};
    return &c->checking->base;
}

static struct sm_net_backend *make_backend(struct card *c, unsigned kind)
{
    static const char text[] = "layer none\nallow 192.0.2.0/24\nallow 2001:db8::/32\n";
    auto_policy policy = {0};
    struct sm_net_backend *backend = NULL;
    if (kind == 0)
        return make_checking(c);
    if (kind == 1) { /* without a rule nothing reaches a socket of this machine */
        fuzz_demand(sm_policy_parse(text, strlen("layer none"), &policy, NULL) == 0);
        fuzz_demand(sm_user_net_create(c->env.loop, &(struct sm_user_net_config){.policy = &policy},
                        &backend, NULL) == 0);
        return backend;
    }
    fuzz_demand(sm_policy_parse(text, sizeof(text) - 1, &policy, NULL) == 0);
    int pair[2];
    fuzz_demand(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) == 0);
    c->wire = pair[1];
    c->judged = kind == 2;
    fuzz_demand(sm_tap_create(c->env.loop,
                    &(struct sm_tap_config){.fd = pair[0], .policy = c->judged ? &policy : NULL},
                    &backend, NULL) == 0);
    return backend;
}

static void probe(struct card *c, unsigned features)
{
    static const unsigned bits[] = {VIRTIO_NET_F_CSUM, VIRTIO_NET_F_GUEST_CSUM,
        VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_HOST_TSO6,
        VIRTIO_NET_F_HOST_ECN, VIRTIO_NET_F_MRG_RXBUF, 29 /* event idx */};
    uint64_t mask = SM_VIRTIO_F_VERSION_1;
    for (unsigned i = 0; i < SM_ARRAY_LEN(bits); i++)
        if (features & (1u << i))
            mask |= 1ULL << bits[i];
    fg_probe(&c->fg, c->dev, mask, c->q, 2, QUEUE);
}

/* ---- steps ----------------------------------------------------------------------------------- */

/* A chain of descriptors as the input has them; only their addresses tend to lie in memory. */
static void offer(struct card *c, struct fuzz_input *in, unsigned q)
{
    unsigned n = 1 + fuzz_take(in, 1) % 4, head = c->q[q].next_desc % QUEUE;
    for (unsigned i = 0; i < n; i++) {
        uint64_t addr = c->area + fuzz_take(in, 2);
        uint32_t len = fuzz_take(in, 2), how = fuzz_take(in, 1);
        unsigned at = (head + i) % QUEUE;
        unsigned flags = (q == SM_NET_RX ? FG_WRITE : 0) | (i + 1 < n ? FG_NEXT : 0);
        if (how & 0x80)
            addr ^= (uint64_t)how << 40;
        fg_desc(&c->q[q], at, addr, len, flags ^ (how & 7), (at + 1 + (how >> 3 & 7)) % QUEUE);
    }
    c->q[q].next_desc = (uint16_t)(c->q[q].next_desc + n);
    fg_offer(&c->q[q], head);
}

static void to_guest(struct card *c, struct fuzz_input *in)
{
    uint8_t raw[SM_NET_HDR + 3000] = {0};
    struct virtio_net_hdr_v1 hdr = {
        .flags = (uint8_t)fuzz_take(in, 1), .gso_type = (uint8_t)fuzz_take(in, 1)};
    size_t len = 1 + fuzz_take(in, 2) % 3000;
    memcpy(raw, &hdr, sizeof(hdr));
    if (c->wire >= 0)
        (void)!send(c->wire, raw, sizeof(hdr) + len, MSG_DONTWAIT);
    else if (c->checking && sm_net_deliver(c->backend->card, &hdr, raw + sizeof(hdr), len))
        sm_net_flush(c->backend->card);
}

/* What the kernel would send on. */
static void look_at_wire(struct card *c)
{
    struct sm_ip v4;
    sm_ip_parse("192.0.2.0", &v4);
    struct sm_ip v6;
    sm_ip_parse("2001:db8::", &v6);
    static uint8_t raw[SM_NET_HDR + SM_NET_MAX_FRAME];
    struct virtio_net_hdr_v1 hdr;
    struct sm_frame f;
    ssize_t n;
    while (c->wire >= 0 && (n = recv(c->wire, raw, sizeof(raw), MSG_DONTWAIT)) > 0) {
        fuzz_demand((size_t)n >= SM_NET_HDR + SM_ETH_HEADER);
        memcpy(&hdr, raw, sizeof(hdr));
        sm_net_complete_checksum(&hdr, raw + SM_NET_HDR, (size_t)n - SM_NET_HDR);
        if (!c->judged)
            continue;
        sm_frame_parse(raw + SM_NET_HDR, (size_t)n - SM_NET_HDR, &f);
        fuzz_demand(f.kind != SM_FRAME_BAD);
        if (f.kind == SM_FRAME_IP && f.protocol != SM_IP_ICMPV6)
            fuzz_demand(sm_ip_in_prefix(&f.dst, &v4, 120) || sm_ip_in_prefix(&f.dst, &v6, 32));
    }
}

static void save_and_load(struct card *c, struct fuzz_input *in)
{
    struct sm_virtio_state state = {0};
    sm_virtio_save(c->dev, &state);
    state.extra[0] ^= fuzz_take(in, 1);
    state.queues[SM_NET_RX].last_avail_idx ^= (uint16_t)fuzz_take(in, 1);
    if (sm_virtio_load(c->dev, &state, NULL) == 0)
        sm_virtio_wake(c->dev);
}

static void step(struct card *c, struct fuzz_input *in)
{
    unsigned kind = fuzz_take(in, 1);
    unsigned at;
    switch (kind % 10) {
    case 0:
        offer(c, in, SM_NET_TX);
        break;
    case 1:
        c->dev->ops->notify(c->dev, SM_NET_TX);
        break;
    case 2:
        offer(c, in, SM_NET_RX);
        break;
    case 3:
        c->dev->ops->notify(c->dev, SM_NET_RX);
        break;
    case 4:
        at = fuzz_take(in, 2);
        for (unsigned n = fuzz_take(in, 1); n > 0 && in->left > 0; n--)
            fg_ptr(&c->fg, c->area)[at++ % AREA] = (uint8_t)fuzz_take(in, 1);
        break;
    case 5:
        to_guest(c, in);
        break;
    case 6:
        if (c->checking)
            c->checking->busy = !c->checking->busy;
        sm_net_tx_resume(c->backend->card);
        break;
    case 7:
        sm_loop_turn(c->env.loop);
        look_at_wire(c);
        break;
    case 8:
        probe(c, fuzz_take(in, 1));
        break;
    default:
        save_and_load(c, in);
        break;
    }
}

/* Input: backend, features, then steps. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
    struct fuzz_input in = {data, size};
    struct card c = {.wire = -1};
    fg_init(&c.fg);
    c.area = fg_alloc(&c.fg, AREA);
    c.env = (struct sm_virtio_env){.memory = &c.fg.gm, .irq = fg_bell()};
    fuzz_demand(sm_loop_create(&c.env.loop, NULL) == 0);
    c.backend = make_backend(&c, fuzz_take(&in, 1) % 4);
    fuzz_demand(sm_virtio_net_create(&c.env, mac, c.backend, &c.dev, NULL) == 0);
    probe(&c, fuzz_take(&in, 1));
    for (unsigned steps = 0; in.left > 0 && steps < 300; steps++)
        step(&c, &in);
    sm_loop_turn(c.env.loop);
    look_at_wire(&c);
    sm_virtio_destroy(c.dev);
    sm_loop_destroy(c.env.loop);
    sm_bell_close(&c.env.irq);
    if (c.wire >= 0)
        close(c.wire);
    fg_fini(&c.fg);
    return 0;
}
