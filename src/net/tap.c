/*
 * The tap backend. See tap.h.
 *
 * System calls: readv, writev, ioctl(TUNSETOFFLOAD).
 * System calls before a list: open, socket, ioctl.
 */
#include "net/tap.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

#define TUN_DEVICE      "/dev/net/tun"
#define TAP_SEND_BUFFER (1 << 20) /* bytes of the guest that the kernel holds at most */
#define BATCH           64        /* frames before the loop gets its turn */

#define F(bit) (1ULL << (bit))

struct tap {
    struct sm_net_backend base;
    int fd;
    struct sm_loop_watch *watch; /* NULL: the interface is gone */
    uint32_t interest;
    bool judged;
    struct sm_egress egress;
    uint64_t features; /* of the running driver */
    struct sm_tap_counters counters;

    size_t pending; /* bytes in rx that the guest has no buffers for yet; 0: none */
    struct virtio_net_hdr_v1 rx_hdr;
    uint8_t rx[SM_NET_MAX_FRAME];
};

static struct tap *tap_of(struct sm_net_backend *backend)
{
    return (struct tap *)(void *)backend;
}

static void count(atomic_ullong *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static void set_interest(struct tap *tap, uint32_t interest)
{
    if (tap->interest != interest && tap->watch)
        sm_loop_modify(tap->watch, interest);
    tap->interest = interest;
}

/* ---- to the guest -------------------------------------------------------------------------- */

/* Gives the guest what is in rx; false: it has no buffers. */
static bool deliver_pending(struct tap *tap)
{
    if (tap->pending == 0)
        return true;
    if (!sm_net_fits_driver(tap->features, &tap->rx_hdr, tap->pending))
        count(&tap->counters.stale);
    else if (!sm_net_deliver(tap->base.card, &tap->rx_hdr, tap->rx, tap->pending))
        return false;
    tap->pending = 0;
    return true;
}

/* The next frame into rx; false: there is none now. */
static bool receive(struct tap *tap)
{
    struct iovec iov[2] = {
        {.iov_base = &tap->rx_hdr, .iov_len = sizeof(tap->rx_hdr)},
        {.iov_base = tap->rx, .iov_len = sizeof(tap->rx)},
    };
    ssize_t n = readv(tap->fd, iov, 2);
    if (n <= (ssize_t)sizeof(tap->rx_hdr))
        return false;
    tap->pending = (size_t)n - sizeof(tap->rx_hdr);
    return true;
}

/* At most a batch: what is left is seen in the loop's next round. */
static void pull(struct tap *tap)
{
    unsigned n = 0;
    while (deliver_pending(tap) && n++ < BATCH && receive(tap))
        ;
    set_interest(tap, (tap->interest & SM_LOOP_OUT) | (tap->pending ? 0 : SM_LOOP_IN));
    sm_net_flush(tap->base.card);
}

static void tap_rx_ready(struct sm_net_backend *backend)
{
    pull(tap_of(backend));
}

/* ---- from the guest ------------------------------------------------------------------------ */

/* True: done with it. */
static bool transmit(
    struct tap *tap, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct virtio_net_hdr_v1 raw = *hdr; /* iovec is not const */
    struct iovec iov[2] = {
        {.iov_base = &raw, .iov_len = sizeof(raw)},
        {.iov_base = frame, .iov_len = len},
    };
    if (writev(tap->fd, iov, 2) >= 0)
        return true;
    if (errno == EAGAIN) {
        set_interest(tap, tap->interest | SM_LOOP_OUT);
        return false;
    }
    count(&tap->counters.refused); /* as a cable that is not plugged in loses it */
    return true;
}

/* The answer may be lost where the guest has no room for it, as any frame. */
static void reject(struct tap *tap, const uint8_t *frame, const struct sm_frame *f)
{
    static const struct virtio_net_hdr_v1 plain;
    uint8_t answer[SM_FRAME_REFUSAL_MAX];
    size_t n = sm_frame_refuse(answer, sizeof(answer), frame, f);
    if (n > 0 && tap->pending == 0)
        sm_net_deliver(tap->base.card, &plain, answer, n);
}

/* The kernel writes the checksum after we have judged: it must be that of the frame's own protocol,
 * or it would be a way to write into what was judged. */
static bool checksum_is_in_place(const struct virtio_net_hdr_v1 *hdr, const struct sm_frame *f)
{
    if (!hdr->flags)
        return true;
    if (f->kind != SM_FRAME_IP || f->fragment ||
        hdr->csum_start != f->l3 + (f->v6 ? SM_IPV6_HEADER : SM_IPV4_HEADER))
        return false;
    return (f->protocol == SM_IP_TCP && hdr->csum_offset == SM_TCP_CHECKSUM) ||
           (f->protocol == SM_IP_UDP && hdr->csum_offset == SM_UDP_CHECKSUM);
}

static bool tap_send(
    struct sm_net_backend *backend, const struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len)
{
    struct tap *tap = tap_of(backend);
    if (!tap->judged)
        return transmit(tap, hdr, frame, len);
    struct sm_frame f;
    switch (sm_egress_judge(&tap->egress, frame, len, (uint64_t)sm_now_ms(), &f)) {
    case SM_EGRESS_PASS:
        if (checksum_is_in_place(hdr, &f))
            return transmit(tap, hdr, frame, len);
        count(&tap->egress.counters.unsupported);
        return true;
    case SM_EGRESS_REJECT:
        reject(tap, frame, &f);
        return true;
    case SM_EGRESS_DNS: /* only of the user-mode network */
    case SM_EGRESS_DROP:
        break;
    }
    return true;
}

static void tap_sent_all(struct sm_net_backend *backend)
{
    if (tap_of(backend)->judged)
        sm_net_flush(backend->card); /* refusals */
}

static void on_event(void *arg, uint32_t events)
{
    struct tap *tap = arg;
    if (events & (SM_LOOP_ERR | SM_LOOP_HUP)) { /* the interface was deleted */
        sm_loop_remove(tap->watch);
        tap->watch = NULL;
        return;
    }
    if (events & SM_LOOP_OUT) {
        set_interest(tap, tap->interest & ~SM_LOOP_OUT);
        sm_net_tx_resume(tap->base.card);
    }
    if (events & SM_LOOP_IN)
        pull(tap);
}

/* ---- life ---------------------------------------------------------------------------------- */

/* What the kernel may leave to the driver. An old kernel that refuses leaves nothing to it, which
 * suits every driver. */
static void tap_configure(struct sm_net_backend *backend, uint64_t features)
{
    struct tap *tap = tap_of(backend);
    tap->features = features;
    tap->pending = 0;
    unsigned long offload = 0;
    if (features & F(VIRTIO_NET_F_GUEST_CSUM)) {
        offload = TUN_F_CSUM;
        if (features & F(VIRTIO_NET_F_GUEST_TSO4))
            offload |= TUN_F_TSO4;
        if (features & F(VIRTIO_NET_F_GUEST_TSO6))
            offload |= TUN_F_TSO6;
        if (features & F(VIRTIO_NET_F_GUEST_ECN) && offload != TUN_F_CSUM)
            offload |= TUN_F_TSO_ECN;
    }
    (void)ioctl(tap->fd, TUNSETOFFLOAD, offload);
    set_interest(tap, SM_LOOP_IN);
}

static void tap_destroy(struct sm_net_backend *backend)
{
    struct tap *tap = tap_of(backend);
    sm_loop_remove(tap->watch);
    sm_egress_clear(&tap->egress);
    sm_close(tap->fd);
    free(tap);
}

int sm_tap_create(struct sm_loop *loop, const struct sm_tap_config *config,
    struct sm_net_backend **backend, sm_error *err)
{
    auto_free struct tap *tap = calloc(1, sizeof(*tap));
    if (!tap)
        return sm_error_set(err, SM_ENOMEM, "no memory for the tap interface");
    SM_CLEANUP(sm_own_address_destroy_cleanup) struct sm_own_address *own = NULL;
    int rc;
    if (config->policy && (rc = sm_own_address_create(&own, err)))
        return rc;
    static const struct sm_net_backend_ops ops = {
        .send = tap_send,
        .sent_all = tap_sent_all,
        .rx_ready = tap_rx_ready,
        .configure = tap_configure,
        .destroy = tap_destroy,
    };
    /* The card can carry what it can in the user-mode network, so that a snapshot fits both; the
     * interface's own MTU is told to the guest by the agent. */
    tap->base = (struct sm_net_backend){.ops = &ops, .mtu = SM_NET_MTU, .link_up = true};
    tap->interest = SM_LOOP_IN;
    rc = sm_loop_add(loop, config->fd, tap->interest, on_event, tap, &tap->watch, err);
    if (rc)
        return rc;
    tap->fd = config->fd;
    tap->judged = config->policy != NULL;
    if (tap->judged)
        sm_egress_init(&tap->egress, config->policy, false, config->denied, config->denied_arg);
    tap->egress.own = sm_steal_ptr(&own);
    tap->egress.link = config->link;
    tap->egress.link_prefix = config->link_prefix;
    *backend = &sm_steal_ptr(&tap)->base;
    return 0;
}

const struct sm_tap_counters *sm_tap_counters(const struct sm_net_backend *backend)
{
    return &((const struct tap *)(const void *)backend)->counters;
}

/* ---- opening ------------------------------------------------------------------------------- */

/* Why TUNSETIFF failed: the kernel says little. */
static int cannot_attach(const char *ifname, bool there, int errnum, sm_error *err)
{
    switch (errnum) {
    case EBUSY:
        return sm_error_set(err, SM_EBUSY,
            "the interface '%s' is in use by another process; each VM needs its own", ifname);
    case EPERM:
    case EACCES:
        if (there)
            return sm_error_set(err, SM_EPERM,
                "no permission for the interface '%s': "
                "be its owner (ip tuntap add %s mode tap user NAME) or have CAP_NET_ADMIN",
                ifname, ifname);
        return sm_error_set(err, SM_ENOTFOUND,
            "there is no interface '%s', and making it needs CAP_NET_ADMIN; make it with: "
            "ip tuntap add %s mode tap user NAME",
            ifname, ifname);
    case EINVAL:
        if (there)
            return sm_error_set(err, SM_EINVAL,
                "the interface '%s' is no tap interface with one queue; make one with: "
                "ip tuntap add NAME mode tap",
                ifname);
        break;
    default:
        break;
    }
    return sm_error_errno(err, errnum, "cannot open the tap interface '%s'", ifname);
}

static int get_mtu(const char *ifname, uint16_t *mtu, sm_error *err)
{
    auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq req = {0};
    strncpy(req.ifr_name, ifname, sizeof(req.ifr_name) - 1);
    if (fd < 0 || ioctl(fd, SIOCGIFMTU, &req) != 0)
        return sm_error_errno(err, errno, "cannot tell the MTU of the interface '%s'", ifname);
    *mtu = (uint16_t)SM_MIN(req.ifr_mtu, SM_NET_MTU);
    return 0;
}

int sm_tap_open(const char *ifname, int *out, uint16_t *mtu, sm_error *err)
{
    auto_fd fd = open(TUN_DEVICE, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 && (errno == ENOENT || errno == ENXIO || errno == ENODEV))
        return sm_error_set(err, SM_EUNSUPPORTED,
            "this host has no " TUN_DEVICE
            ", so no tap interfaces; load the kernel's module: modprobe tun");
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot open " TUN_DEVICE);
    struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
    strncpy(req.ifr_name, ifname, sizeof(req.ifr_name) - 1);
    bool there = if_nametoindex(ifname) != 0;
    if (ioctl(fd, TUNSETIFF, &req) != 0)
        return cannot_attach(ifname, there, errno, err);
    int header = SM_NET_HDR;
    int little_endian = 1;
    int send_buffer = TAP_SEND_BUFFER;
    if (ioctl(fd, TUNSETVNETHDRSZ, &header) != 0 || ioctl(fd, TUNSETVNETLE, &little_endian) != 0 ||
        ioctl(fd, TUNSETSNDBUF, &send_buffer) != 0)
        return sm_error_errno(err, errno, "cannot set up the tap interface '%s'", ifname);
    int rc = get_mtu(ifname, mtu, err);
    if (!rc)
        *out = sm_steal_fd(&fd);
    return rc;
}
