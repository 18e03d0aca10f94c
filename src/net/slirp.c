/*
 * One libslirp, driven by the VM's event loop. See slirp.h.
 *
 * What it calls (4.7 and 4.8), whom it sends to being the policy's to judge; and glib for it, which
 * makes a seed of other things where it cannot read one. System calls: socket(AF_INET, AF_INET6),
 * bind, connect, shutdown, setsockopt, getsockopt, getsockname, getpeername, sendto(anything),
 * sendmsg, recvfrom, recvmsg, readv, writev, fcntl(F_GETFL, F_SETFL, F_GETFD, F_SETFD),
 * ioctl(FIONREAD, FIONBIO), openat(refused), getppid.
 */
#include "net/slirp.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtio_net.h"
#include "net/egress.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

#define HOSTNAME "supermachine"
#define IDLE_MS  1000
#define STALE_MS 50
/* What the guest is told to send at most in a TCP segment, with the headers: libslirp rounds its
 * two buffers of 128 KiB for each connection up to multiples of that, which here adds 80 bytes
 * (IPv4) or none. With the MTU it would be 64 KiB each. */
#define MRU (32768 + SM_IPV6_HEADER + 20)

/* One descriptor that libslirp wants polled. Its own allocation: the loop keeps the address. */
struct sm_slirp_slot {
    struct sm_slirp *s;
    struct sm_loop_watch *watch;
    int fd;
    uint32_t interest; /* SM_LOOP_* */
    uint32_t happened; /* since the last pump */
    uint64_t round;    /* the last fill that wanted it */
    struct sm_slirp_slot *next, **link;
};

/* ---- descriptors --------------------------------------------------------------------------- */

void sm_slirp_pump_soon(struct sm_slirp *s)
{
    if (s->pump_soon)
        return;
    s->pump_soon = true;
    sm_loop_timer_arm(s->timer, 0);
}

static void on_event(void *arg, uint32_t events)
{
    struct sm_slirp_slot *slot = arg;
    slot->happened |= events;
    sm_slirp_pump_soon(slot->s);
}

static void drop_slot(struct sm_slirp_slot *slot)
{
    sm_loop_remove(slot->watch);
    slot->s->slots[slot->fd] = NULL;
    *slot->link = slot->next;
    if (slot->next)
        slot->next->link = slot->link;
    free(slot);
}

static struct sm_slirp_slot *slot_of(const struct sm_slirp *s, int fd)
{
    return fd >= 0 && (size_t)fd < s->n_slots ? s->slots[fd] : NULL;
}

/* Room in the table; false: out of memory. */
static bool reach(struct sm_slirp *s, int fd)
{
    if ((size_t)fd < s->n_slots)
        return true;
    size_t n = ((size_t)fd + 64) & ~(size_t)63;
    struct sm_slirp_slot **grown = reallocarray(s->slots, n, sizeof(struct sm_slirp_slot *));
    if (!grown)
        return false;
    memset(grown + s->n_slots, 0, (n - s->n_slots) * sizeof(struct sm_slirp_slot *));
    s->slots = grown;
    s->n_slots = n;
    return true;
}

static struct sm_slirp_slot *make_slot(struct sm_slirp *s, int fd)
{
    struct sm_slirp_slot *slot = reach(s, fd) ? calloc(1, sizeof(*slot)) : NULL;
    if (!slot)
        return NULL;
    *slot = (struct sm_slirp_slot){.s = s, .fd = fd, .next = s->active, .link = &s->active};
    if (slot->next)
        slot->next->link = &slot->next;
    s->active = slot;
    s->slots[fd] = slot;
    return slot;
}

/* The index that libslirp keeps is the descriptor itself. */
static int add_poll(int fd, int events, void *opaque)
{
    uint32_t interest = 0;
    if (events & SLIRP_POLL_IN)
        interest |= SM_LOOP_IN;
    if (events & SLIRP_POLL_OUT)
        interest |= SM_LOOP_OUT;
    if (events & SLIRP_POLL_PRI)
        interest |= SM_LOOP_PRI;
    struct sm_slirp *s = opaque;
    struct sm_slirp_slot *slot = slot_of(s, fd);
    if (!slot)
        slot = make_slot(s, fd);
    if (!slot)
        return -1; /* out of memory: asked for again with the next fill */
    if (!slot->watch) {
        if (sm_loop_add(s->loop, fd, interest, on_event, slot, &slot->watch, NULL)) {
            drop_slot(slot);
            return -1;
        }
    } else if (slot->interest != interest) {
        sm_loop_modify(slot->watch, interest);
    }
    slot->interest = interest;
    slot->round = s->round;
    return fd;
}

static int get_revents(int idx, void *opaque)
{
    struct sm_slirp_slot *slot = slot_of(opaque, idx);
    if (!slot)
        return 0;
    uint32_t happened = slot->happened;
    slot->happened = 0;
    int events = 0;
    if (happened & SM_LOOP_IN)
        events |= SLIRP_POLL_IN;
    if (happened & SM_LOOP_OUT)
        events |= SLIRP_POLL_OUT;
    if (happened & SM_LOOP_PRI)
        events |= SLIRP_POLL_PRI;
    if (happened & SM_LOOP_ERR)
        events |= SLIRP_POLL_ERR;
    if (happened & SM_LOOP_HUP)
        events |= SLIRP_POLL_HUP;
    return events;
}

static void pump(void *arg)
{
    struct sm_slirp *s = arg;
    s->pump_soon = false;
    s->pumped_ms = sm_now_ms();
    s->api.pollfds_poll(s->slirp, 0, get_revents, s);
    s->round++;
    uint32_t timeout = UINT32_MAX;
    s->api.pollfds_fill(s->slirp, &timeout, add_poll, s);
    struct sm_slirp_slot *next;
    for (struct sm_slirp_slot *slot = s->active; slot; slot = next) {
        next = slot->next;
        if (slot->round != s->round)
            drop_slot(slot);
    }
    bool has_sockets = s->user->pumped(s->arg);
    if (!s->pump_soon && (timeout < IDLE_MS || has_sockets))
        sm_loop_timer_arm(s->timer, SM_MAX(timeout, 1u));
}

/* ---- libslirp's callbacks ------------------------------------------------------------------ */

static ssize_t cb_send_packet(const void *buf, size_t len, void *opaque)
{
    struct sm_slirp *s = opaque;
    s->user->send(s->arg, buf, len);
    return (ssize_t)len;
}

static void cb_guest_error(const char *message, void *opaque)
{
    (void)message;
    struct sm_slirp *s = opaque;
    s->user->nonsense(s->arg);
}

static int64_t cb_clock_get_ns(void *opaque)
{
    (void)opaque;
    return (int64_t)sm_now_ns();
}

static void *cb_timer_new(SlirpTimerId id, void *cb_opaque, void *opaque)
{
    (void)id, (void)cb_opaque;
    return opaque;
}

static void cb_timer_free(void *timer, void *opaque)
{
    (void)timer, (void)opaque;
}

static void cb_timer_mod(void *timer, int64_t expire_ms, void *opaque)
{
    (void)timer, (void)expire_ms, (void)opaque;
}

static void cb_register_fd(int fd, void *opaque)
{
    struct sm_slirp *s = opaque;
    s->user->opened(s->arg, fd);
}

static void cb_unregister_fd(int fd, void *opaque)
{
    struct sm_slirp *s = opaque;
    struct sm_slirp_slot *slot = slot_of(s, fd);
    if (slot)
        drop_slot(slot);
    s->user->closed(s->arg, fd);
}

static void cb_notify(void *opaque)
{
    sm_slirp_pump_soon(opaque);
}

static const SlirpCb callbacks = {
    .send_packet = cb_send_packet,
    .guest_error = cb_guest_error,
    .clock_get_ns = cb_clock_get_ns,
    .timer_new_opaque = cb_timer_new,
    .timer_free = cb_timer_free,
    .timer_mod = cb_timer_mod,
    .register_poll_fd = cb_register_fd,
    .unregister_poll_fd = cb_unregister_fd,
    .notify = cb_notify,
};

/* ---- life ---------------------------------------------------------------------------------- */

static struct in_addr v4_of(const struct sm_ip *ip)
{
    struct in_addr addr;
    memcpy(&addr, ip->b + 12, sizeof(addr));
    return addr;
}

static struct in6_addr v6_of(const struct sm_ip *ip)
{
    struct in6_addr addr;
    memcpy(&addr, ip->b, sizeof(addr));
    return addr;
}

int sm_slirp_start(struct sm_slirp *s, bool opens_host, sm_error *err)
{
    if (s->slirp)
        return 0;
    int rc = sm_slirp_load(&s->api, err);
    if (rc)
        return rc;
    SlirpConfig config = {
        .version = 4,
        .in_enabled = true,
        .vnetwork = v4_of(&sm_subnet_v4.net),
        .vnetmask.s_addr = htobe32(UINT32_MAX << (128 - sm_subnet_v4.prefix)),
        .vhost = v4_of(&sm_subnet_v4.gateway),
        .vnameserver = v4_of(&sm_subnet_v4.dns),
        .in6_enabled = true,
        .vprefix_addr6 = v6_of(&sm_subnet_v6.net),
        .vprefix_len = (uint8_t)sm_subnet_v6.prefix,
        .vhost6 = v6_of(&sm_subnet_v6.gateway),
        .vnameserver6 = v6_of(&sm_subnet_v6.dns),
        .vhostname = HOSTNAME,
        .vdhcp_start = v4_of(&sm_subnet_v4.guest),
        .if_mtu = SM_NET_MTU,
        .if_mru = MRU,
        .disable_host_loopback = !opens_host,
        .disable_dns = true,
        .disable_dhcp = true,
    };
    s->slirp = s->api.create(&config, &callbacks, s);
    if (!s->slirp)
        return sm_error_set(
            err, SM_EUNSUPPORTED, "libslirp refused the guest network's configuration");
    return 0;
}

void sm_slirp_stop(struct sm_slirp *s)
{
    if (s->slirp)
        s->api.cleanup(s->slirp);
    s->slirp = NULL;
    s->pumped_ms = 0;
    while (s->active)
        drop_slot(s->active);
    sm_loop_timer_disarm(s->timer);
    s->pump_soon = false;
}

void sm_slirp_input(struct sm_slirp *s, const uint8_t *frame, size_t len)
{
    s->api.input(s->slirp, frame, (int)len);
}

void sm_slirp_catch_up(struct sm_slirp *s)
{
    if (sm_now_ms() - s->pumped_ms > STALE_MS)
        pump(s);
}

int sm_slirp_init(struct sm_slirp *s, struct sm_loop *loop, const struct sm_slirp_user *user,
    void *arg, sm_error *err)
{
    *s = (struct sm_slirp){.loop = loop, .user = user, .arg = arg};
    return sm_loop_timer_create(loop, pump, s, &s->timer, err);
}

void sm_slirp_fini(struct sm_slirp *s)
{
    sm_slirp_stop(s);
    sm_loop_timer_destroy(s->timer);
    free(s->slots);
}
