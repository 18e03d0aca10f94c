/* Listeners that are found by themselves. See found.h. */
#include "net/ports/found.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/ports/entry.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/loop.h"

/* The longest answer that we read. */
#define ROOM (SM_WIRE_HEADER + 4 + SM_WIRE_MAX_WATCHED * SM_WIRE_SOCKET_SIZE)

struct sm_listeners {
    struct sm_loop *loop;
    struct sm_ports *ports;
    struct sm_card_addresses card;
    sm_listeners_fn *found;
    void *found_arg;
    struct sm_loop_timer *timer; /* to open the connection, or to read on */
    bool waiting;                /* for the timer */
    atomic_bool asked;           /* to watch: from then on it does not end */
    bool begun;                  /* the post that does it has run */
    bool gone;                   /* destroyed before: what that post finds is its to free */
    int fd;                      /* to the agent; -1: none */
    struct sm_loop_watch *watch;
    uint8_t in[ROOM];
    size_t len;
};

/* ---- what counts ----------------------------------------------------------------------------- */

static struct sm_ip address_of(const struct sm_wire_socket *s)
{
    struct sm_ip ip = sm_ip_from_v4(sm_load_be32(s->address));
    if (s->family == 6)
        memcpy(ip.b, s->address, sizeof(ip.b));
    return ip;
}

/* Offered to others than the guest itself: bound to any address, or to the card's. What is bound to
 * its loopback has said that it is not. */
static bool is_offered(const struct sm_wire_socket *s, const struct sm_card_addresses *card)
{
    if (s->protocol == SM_WIRE_PROXY_UDP && s->port >= SM_LISTENERS_CLIENT_PORTS)
        return false;
    if (s->port == 0 || (s->protocol != SM_WIRE_PROXY_TCP && s->protocol != SM_WIRE_PROXY_UDP))
        return false;
    if (s->family != 4 && s->family != 6)
        return false;
    const struct sm_ip ip = address_of(s), any4 = sm_ip_from_v4(0), any6 = {{0}};
    return sm_ip_equal(&ip, &any4) || sm_ip_equal(&ip, &any6) || sm_ip_equal(&ip, &card->v4) ||
           sm_ip_equal(&ip, &card->v6);
}

static int compare(const void *a, const void *b)
{
    const struct sm_listener *x = a, *y = b;
    if (x->protocol != y->protocol)
        return x->protocol < y->protocol ? -1 : 1;
    return x->port < y->port ? -1 : x->port > y->port;
}

size_t sm_listeners_pick(const struct sm_wire_sockets *sockets,
    const struct sm_card_addresses *card, struct sm_listener found[SM_LISTENERS_MAX])
{
    struct sm_wire_socket s;
    size_t n = 0;
    for (uint32_t at = 0; n < SM_LISTENERS_MAX && sm_wire_sockets_get(sockets, at, &s); at++) {
        if (!is_offered(&s, card))
            continue;
        const struct sm_listener l = {
            .port = s.port, .protocol = (uint8_t)s.protocol, .family = (uint8_t)s.family};
        size_t i = 0;
        while (i < n && compare(&found[i], &l) != 0)
            i++;
        if (i == n)
            found[n++] = l;
    }
    qsort(found, n, sizeof(found[0]), compare);
    return n;
}

static bool leads_to(const struct sm_port_spec *spec, const struct sm_listener *l)
{
    return spec->guest_port == l->port && spec->protocol == l->protocol;
}

/* Makes the ports that were found those of this set. */
static void adopt(struct sm_listeners *l, const struct sm_listener *set, size_t n)
{
    struct sm_port_spec specs[2 * SM_PORTS_MAX];
    size_t have = sm_ports_list(l->ports, specs, SM_ARRAY_LEN(specs));
    for (size_t k = 0; k < have; k++) {
        size_t i = 0;
        while (i < n && !leads_to(&specs[k], &set[i]))
            i++;
        if (i == n && specs[k].found)
            sm_ports_withdraw(l->ports, &specs[k]);
    }
    for (size_t i = 0; i < n; i++) {
        size_t k = 0;
        while (k < have && !leads_to(&specs[k], &set[i]))
            k++;
        struct sm_port_spec spec = {.ip = sm_ip_from_v4(0x7f000001),
            .guest_port = set[i].port,
            .protocol = set[i].protocol,
            .found = true};
        /* Without a descriptor for it the service just has no port by itself. */
        if (k == have && sm_ports_publish(l->ports, &spec, NULL) == 0 && l->found)
            l->found(l->found_arg, &spec);
    }
}

/* ---- the agent's word ------------------------------------------------------------------------ */

static void wait_for(struct sm_listeners *l, unsigned ms)
{
    l->waiting = true;
    sm_loop_timer_arm(l->timer, ms);
}

static void end_watch(struct sm_listeners *l)
{
    sm_loop_remove(l->watch);
    sm_close(l->fd);
    l->watch = NULL;
    l->fd = -1;
    l->len = 0;
}

static void lose_watch(struct sm_listeners *l)
{
    end_watch(l);
    adopt(l, NULL, 0);
    wait_for(l, SM_LISTENERS_RETRY_MS);
}

/* The frame at the front, if it is whole. False: it is none that we take. */
static bool take_frame(struct sm_listeners *l)
{
    struct sm_wire_frame frame = {.len = 0};
    int rc = sm_wire_parse(l->in, l->len, &frame);
    if (rc == 0)
        return SM_WIRE_HEADER + frame.len <= sizeof(l->in);
    struct sm_wire_sockets sockets;
    if (rc < 0 || !sm_wire_get_sockets(&frame, &sockets))
        return false;
    struct sm_listener found[SM_LISTENERS_MAX];
    adopt(l, found, sm_listeners_pick(&sockets, &l->card, found));
    l->len -= SM_WIRE_HEADER + frame.len;
    memmove(l->in, l->in + SM_WIRE_HEADER + frame.len, l->len);
    sm_loop_modify(l->watch, 0);
    wait_for(l, SM_LISTENERS_REST_MS);
    return true;
}

static void on_agent(void *arg, uint32_t events)
{
    struct sm_listeners *l = arg;
    ssize_t n = 0;
    /* While we rest only the end of the connection comes through. */
    if (!l->waiting)
        n = recv(l->fd, l->in + l->len, sizeof(l->in) - l->len, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n > 0)
        l->len += (size_t)n;
    if (n <= 0 || !take_frame(l))
        lose_watch(l);
}

static void open_watch(struct sm_listeners *l)
{
    int pair[2];
    if (!sm_ports_is_ready(l->ports) ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair)) {
        wait_for(l, SM_LISTENERS_RETRY_MS);
        return;
    }
    l->fd = pair[0];
    struct sm_vsock_target agent = {.port = SM_WIRE_PORT, .first_len = SM_WIRE_HEADER};
    sm_wire_data_header(agent.first, SM_WIRE_WATCH, 0);
    _Static_assert(SM_WIRE_HEADER <= SM_VSOCK_FIRST, "the request fits");
    if (!sm_ports_bridge(l->ports, pair[1], &agent) ||
        sm_loop_add(l->loop, l->fd, SM_LOOP_IN, on_agent, l, &l->watch, NULL)) {
        end_watch(l); /* there are too many streams, or the guest has ended */
        wait_for(l, SM_LISTENERS_RETRY_MS);
    }
}

static void on_timer(void *arg)
{
    struct sm_listeners *l = arg;
    l->waiting = false;
    if (l->fd < 0) {
        open_watch(l);
        return;
    }
    sm_loop_modify(l->watch, SM_LOOP_IN);
    if (l->len > 0 && !take_frame(l))
        lose_watch(l);
}

/* ---- for other threads ----------------------------------------------------------------------- */

struct request {
    struct sm_listeners *listeners;
    const struct sm_listener *found;
    size_t n;
};

static void do_set(void *arg)
{
    const struct request *r = arg;
    adopt(r->listeners, r->found, r->n);
}

void sm_listeners_set(struct sm_listeners *listeners, const struct sm_listener *found, size_t n)
{
    struct request r = {
        .listeners = listeners, .found = found, .n = SM_MIN(n, (size_t)SM_LISTENERS_MAX)};
    sm_loop_run(listeners->loop, do_set, &r);
}

static void do_watch(void *arg)
{
    struct sm_listeners *l = arg;
    l->begun = true;
    if (l->gone)
        free(l);
    else
        wait_for(l, SM_LISTENERS_DELAY_MS);
}

/* It is asked at the start of each command, and only the first one has to wake the loop. */
void sm_listeners_watch(struct sm_listeners *l)
{
    if (!atomic_exchange(&l->asked, true) && sm_loop_post(l->loop, do_watch, l, NULL))
        atomic_store(&l->asked, false);
}

/* ---- life ------------------------------------------------------------------------------------ */

int sm_listeners_create(struct sm_ports *ports, const struct sm_card_addresses *card,
    sm_listeners_fn *found, void *arg, struct sm_listeners **out, sm_error *err)
{
    struct sm_listeners *l = calloc(1, sizeof(*l));
    if (!l)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the VM's listeners");
    *l = (struct sm_listeners){.loop = ports->loop,
        .ports = ports,
        .card = *card,
        .found = found,
        .found_arg = arg,
        .fd = -1};
    int rc = sm_loop_timer_create(l->loop, on_timer, l, &l->timer, err);
    if (rc) {
        free(l);
        return rc;
    }
    *out = l;
    return 0;
}

static void do_destroy(void *arg)
{
    struct sm_listeners *l = arg;
    end_watch(l);
    sm_loop_timer_destroy(l->timer);
    l->gone = atomic_load(&l->asked) && !l->begun; /* calls overtake posts */
    if (!l->gone)
        free(l);
}

void sm_listeners_destroy(struct sm_listeners *listeners)
{
    if (listeners)
        sm_loop_run(listeners->loop, do_destroy, listeners);
}
