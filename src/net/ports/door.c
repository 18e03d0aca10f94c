/* The front door. See door.h. */
#include "net/ports/door.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/ports/door_socket.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "wire/wire.h"

#define HANDSHAKES   64
#define HANDSHAKE_MS 10000
#define SILENCE_MS   500
#define TICK_MS      500
#define LINE_BYTES   32 /* "CONNECT vsock:4294967295\r\n" has 26 */

struct handshake { /* a client before it is known what it wants */
    struct door *door;
    int fd; /* -1: slot is free */
    struct sm_loop_watch *watch;
    int64_t silent_ms, deadline_ms; /* until when it may say nothing; may take */
};

struct door {
    struct sm_ports *ports;
    struct sm_door_socket socket;
    struct sm_loop_watch *watch;
    bool full; /* no client is accepted until another is through */
    struct handshake handshakes[HANDSHAKES];
    struct sm_loop_timer *timer;
    bool ticking;
};

static void tick_later(struct door *door)
{
    if (!door->ticking)
        sm_loop_timer_arm(door->timer, TICK_MS);
    door->ticking = true;
}

/* The slot is free again; returns the socket. */
static int end_handshake(struct handshake *h)
{
    sm_loop_remove(sm_steal_ptr(&h->watch));
    struct door *door = h->door;
    if (door->full)
        sm_loop_modify(door->watch, SM_LOOP_IN);
    door->full = false;
    return sm_steal_fd(&h->fd);
}

/* ---- what a client says ---------------------------------------------------------------------- */

struct wish {
    enum { UNKNOWN, UNNAMED, NAMED, NAMED_VSOCK, WRONG } kind;
    uint32_t port;
    size_t len; /* of the line that says so */
};

/* The number between `at` and `stop`, which must be all of it. */
static bool read_port(const char *at, const char *stop, uint32_t *port)
{
    uint64_t value = 0;
    bool good = at < stop;
    for (; good && at < stop; at++) {
        value = value * 10 + (uint64_t)(*at - '0');
        good = *at >= '0' && *at <= '9' && value <= UINT32_MAX;
    }
    *port = (uint32_t)value;
    return good;
}

/* What the first bytes of a client say; ended: no more will come. */
static struct wish read_wish(const char *line, size_t have, bool ended)
{
    static const char word[] = "CONNECT ", vsock[] = "vsock:";
    const size_t word_len = sizeof(word) - 1, vsock_len = sizeof(vsock) - 1;
    if (memcmp(line, word, SM_MIN(have, word_len)) != 0)
        return (struct wish){.kind = UNNAMED};
    const char *end = memchr(line, '\n', have);
    if (!end || have < word_len)
        return (struct wish){.kind = ended || have == LINE_BYTES ? UNNAMED : UNKNOWN};
    struct wish wish = {.kind = NAMED, .len = (size_t)(end - line) + 1};
    const char *at = line + word_len, *stop = end;
    if (stop[-1] == '\r')
        stop--;
    if (stop - at > (ptrdiff_t)vsock_len && memcmp(at, vsock, vsock_len) == 0) {
        wish.kind = NAMED_VSOCK;
        at += vsock_len;
    }
    if (read_port(at, stop, &wish.port))
        return wish;
    /* More words are another protocol's: a request to an HTTP proxy begins so. */
    if (memchr(line + word_len, ' ', wish.len - word_len))
        return (struct wish){.kind = UNNAMED};
    wish.kind = WRONG;
    return wish;
}

/* ---- where it is connected to ---------------------------------------------------------------- */

/* The oldest of those that were asked for, else of those that were found; 0: there is none. */
static uint16_t first_port(const struct sm_ports *ports)
{
    uint16_t asked = 0, found = 0;
    for (const struct port *p = ports->list; p; p = p->next) {
        if (p->spec.protocol == SM_WIRE_PROXY_TCP)
            *(p->spec.found ? &found : &asked) = p->spec.guest_port;
    }
    return asked ? asked : found;
}

/* The last that a client hears that has asked for what is no port. */
static void refuse(int fd)
{
    static const char line[] =
        "ERR that is no port; write CONNECT PORT, from 1 to 65535, or CONNECT vsock:PORT\n";
    (void)!send(fd, line, sizeof(line) - 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    sm_close(fd);
}

enum route {
    NOWHERE, /* the client is sent away */
    NOT_YET, /* there is no port, or no way to it: it is asked again in a while */
    THERE,
};

static enum route find_route(
    struct sm_ports *ports, const struct wish *wish, struct sm_vsock_target *target)
{
    if (wish->kind == WRONG)
        return NOWHERE;
    if (!sm_ports_is_ready(ports))
        return NOT_YET;
    if (wish->kind == NAMED_VSOCK) {
        *target = (struct sm_vsock_target){.port = wish->port, .say_ok = true};
        return THERE;
    }
    bool named = wish->kind == NAMED;
    uint32_t port = named ? wish->port : first_port(ports);
    if (!named && !port)
        return NOT_YET;
    if (!port || port > UINT16_MAX)
        return NOWHERE;
    /* A client that named the port waits for an OK, which only the guest's end can give. */
    *target =
        sm_ports_target((uint16_t)port, SM_WIRE_PROXY_TCP | (named ? SM_WIRE_PROXY_SAY_OK : 0));
    ports->counters.connections++;
    sm_ports_log(ports, NULL, (uint16_t)port, SM_WIRE_PROXY_TCP);
    return THERE;
}

/* ---- handshakes ------------------------------------------------------------------------------ */

enum client {
    CLIENT_SPEAKS,
    CLIENT_SILENT, /* has had its time to say something */
    CLIENT_ENDED,  /* sends no more */
    CLIENT_GONE,   /* nor does it receive */
};

static void look_at(struct handshake *h, enum client client)
{
    char line[LINE_BYTES];
    ssize_t n = recv(h->fd, line, sizeof(line), MSG_PEEK | MSG_DONTWAIT);
    if ((n < 0 && errno != EAGAIN && errno != EINTR) || (n <= 0 && client == CLIENT_GONE)) {
        sm_close(end_handshake(h));
        return;
    }
    size_t have = n > 0 ? (size_t)n : 0;
    struct wish wish = read_wish(line, have, client >= CLIENT_ENDED);
    if (wish.kind == UNKNOWN && client == CLIENT_SILENT && have == 0)
        wish.kind = UNNAMED;
    if (wish.kind == UNKNOWN)
        return;
    struct door *door = h->door;
    struct sm_vsock_target target = {.port = 0};
    enum route route = find_route(door->ports, &wish, &target);
    if (route == NOT_YET)
        return;
    target.timeout_ms = (unsigned)SM_MAX(h->deadline_ms - sm_now_ms(), (int64_t)1);
    int fd = end_handshake(h);
    bool taken = wish.len == 0 || recv(fd, line, wish.len, MSG_DONTWAIT) == (ssize_t)wish.len;
    if (route == THERE && taken)
        sm_ports_bridge(door->ports, fd, &target);
    else
        refuse(fd);
}

static void on_handshake(void *arg, uint32_t events)
{
    look_at(arg, events & (SM_LOOP_HUP | SM_LOOP_ERR) ? CLIENT_GONE
                 : events & SM_LOOP_EOF               ? CLIENT_ENDED
                                                      : CLIENT_SPEAKS);
}

static void on_door(void *arg, uint32_t events)
{
    (void)events;
    struct door *door = arg;
    struct handshake *h = door->handshakes;
    while (h < door->handshakes + HANDSHAKES && h->fd >= 0)
        h++;
    if (h == door->handshakes + HANDSHAKES) {
        door->full = true;
        sm_loop_modify(door->watch, 0);
        return;
    }
    auto_fd fd = sm_door_socket_accept(&door->socket);
    if (fd < 0 && errno != EACCES && errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
        /* Out of descriptors, most likely: do not spin, look again later. */
        sm_loop_modify(door->watch, 0);
        tick_later(door);
    }
    if (fd < 0)
        return;
    h->deadline_ms = sm_deadline(HANDSHAKE_MS);
    h->silent_ms = sm_deadline(SILENCE_MS);
    if (sm_loop_add(door->ports->loop, fd, SM_LOOP_IN | SM_LOOP_EOF | SM_LOOP_EDGE, on_handshake, h,
            &h->watch, NULL) == 0)
        h->fd = sm_steal_fd(&fd);
    tick_later(door);
}

/* Ends handshakes that take too long, and stops waiting for those that say nothing. */
static void on_tick(void *arg)
{
    struct door *door = arg;
    door->ticking = false;
    if (!door->full)
        sm_loop_modify(door->watch, SM_LOOP_IN);
    int64_t now = sm_now_ms();
    for (unsigned i = 0; i < HANDSHAKES; i++) {
        struct handshake *h = &door->handshakes[i];
        if (h->fd >= 0 && h->deadline_ms <= now)
            sm_close(end_handshake(h));
        else if (h->fd >= 0 && h->silent_ms <= now)
            look_at(h, CLIENT_SILENT);
        if (h->fd >= 0)
            tick_later(door);
    }
}

/* ---- life ------------------------------------------------------------------------------------ */

static void destroy(struct door *door)
{
    for (unsigned i = 0; i < HANDSHAKES; i++)
        sm_close(end_handshake(&door->handshakes[i]));
    sm_loop_remove(door->watch);
    sm_loop_timer_destroy(door->timer);
    sm_door_socket_close(&door->socket);
    free(door);
}

/* A sm_guest_lead_fn. Nothing that it looks at changes while the door is open. */
static int lead_out(void *arg, uint32_t port)
{
    const struct door *door = arg;
    return sm_door_socket_lead_out(&door->socket, port);
}

struct request {
    struct door *door;
    sm_error *err;
    int rc;
};

/* The door is the ports' then, or gone. */
static void do_open(void *arg)
{
    struct request *r = arg;
    struct door *door = r->door;
    struct sm_ports *ports = door->ports;
    if (ports->door)
        r->rc =
            sm_error_set(r->err, SM_EEXIST, "the front door is open: %s", ports->door->socket.path);
    else
        r->rc = sm_loop_timer_create(ports->loop, on_tick, door, &door->timer, r->err);
    if (!r->rc)
        r->rc = sm_loop_add(
            ports->loop, door->socket.fd, SM_LOOP_IN, on_door, door, &door->watch, r->err);
    if (r->rc) {
        destroy(door);
        return;
    }
    if (door->socket.leads_out)
        ports->link.accept_any(ports->link.arg, lead_out, door);
    ports->door = door;
}

int sm_ports_front_door(struct sm_ports *ports, const char *path, sm_error *err)
{
    struct door *door = calloc(1, sizeof(*door));
    if (!door)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the front door");
    door->ports = ports;
    for (unsigned i = 0; i < HANDSHAKES; i++)
        door->handshakes[i] = (struct handshake){.door = door, .fd = -1};
    struct request r = {.door = door, .err = err};
    r.rc = sm_door_socket_open(&door->socket, path, err);
    if (r.rc)
        free(door);
    else
        sm_loop_run(ports->loop, do_open, &r);
    return r.rc;
}

void sm_ports_shut_door(struct sm_ports *ports)
{
    sm_loop_check_here(ports->loop);
    if (!ports->door)
        return;
    ports->link.accept_any(ports->link.arg, NULL, NULL);
    destroy(sm_steal_ptr(&ports->door));
}
