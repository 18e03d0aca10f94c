/* Published ports: listeners and TCP. See ports.h. */
#include "net/ports/ports.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>

#include "net/ports/door.h"
#include "net/ports/udp.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "wire/wire.h"

#define BACKLOG         4096 /* as many as vsock has streams; the kernel may allow less */
#define ACCEPT_BATCH    64
#define RETRY_MS        20
#define LOGGED_BURST    20
#define LOGGED_A_SECOND 10

/* Those that hold their clients in the backlog look again. */
static void listen_on(void *arg)
{
    struct sm_ports *ports = arg;
    for (struct port *p = ports->list; p; p = p->next) {
        if (p->spec.protocol == SM_WIRE_PROXY_TCP)
            sm_loop_modify(p->watch, SM_LOOP_IN);
    }
}

static void on_tick(void *arg)
{
    struct sm_ports *ports = arg;
    bool more = false;
    listen_on(ports);
    for (struct port *p = ports->list; p; p = p->next) {
        if (p->spec.protocol == SM_WIRE_PROXY_UDP)
            sm_ports_udp_expire(p, false);
        more = more || p->sessions;
    }
    if (more)
        sm_ports_tick_later(ports);
}

/* Hands a connection over to the guest's proxy. */
static void let_in(struct port *port, int fd, const struct sockaddr_storage *from)
{
    struct sm_ports *ports = port->ports;
    struct sockaddr_storage at = {0};
    socklen_t len = sizeof(at);
    bool stranger = getsockname(fd, (struct sockaddr *)&at, &len) != 0 ||
                    !sm_peer_owner_is_us(&ports->owner, SM_WIRE_PROXY_TCP, from, &at);
    if (!sm_ports_may_enter(ports, port, stranger)) {
        sm_close(fd);
        return;
    }
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    struct sm_vsock_target target = sm_ports_target(
        port->spec.guest_port, SM_WIRE_PROXY_TCP | (stranger ? SM_WIRE_PROXY_OUTSIDE : 0));
    if (sm_ports_bridge(ports, fd, &target))
        ports->counters.connections++;
    else
        ports->counters.refused++;
    sm_ports_log(ports, from, port->spec.guest_port, port->spec.protocol);
}

static void on_connection(void *arg, uint32_t events)
{
    (void)events;
    struct port *port = arg;
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        if (!sm_ports_is_ready(port->ports)) {
            sm_loop_modify(port->watch, 0);
            sm_loop_timer_arm(port->ports->retry, RETRY_MS);
            return;
        }
        struct sockaddr_storage from = {0};
        socklen_t len = sizeof(from);
        int fd = accept4(port->fd, (struct sockaddr *)&from, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
        if (fd < 0) {
            if (errno != EAGAIN && errno != ECONNABORTED && errno != EINTR) {
                /* Out of descriptors, most likely: the backlog holds them until there are some. */
                sm_loop_modify(port->watch, 0);
                sm_ports_tick_later(port->ports);
            }
            return;
        }
        let_in(port, fd, &from);
    }
}

/* ---- listeners ------------------------------------------------------------------------------- */

static int cannot_bind(const struct sm_port_spec *spec, int e, sm_error *err)
{
    char text[SM_IP_TEXT];
    sm_ip_format(&spec->ip, text);
    switch (e) {
    case EADDRINUSE:
        return sm_error_set(err, SM_EBUSY,
            "cannot publish on %s port %u: somebody listens there already; choose another port",
            text, spec->host_port);
    case EACCES:
        return sm_error_set(err, SM_EPERM,
            "cannot publish on %s port %u: ports this low are for root (the sysctl "
            "net.ipv4.ip_unprivileged_port_start says which); choose a higher one",
            text, spec->host_port);
    case EADDRNOTAVAIL:
        return sm_error_set(err, SM_EINVAL,
            "cannot publish on %s port %u: this host has no such address; 'ip address' tells "
            "which it has",
            text, spec->host_port);
    default:
        return sm_error_errno(err, e, "cannot publish on %s port %u", text, spec->host_port);
    }
}

static int open_socket(struct sm_port_spec *spec, int *out, sm_error *err)
{
    bool tcp = spec->protocol == SM_WIRE_PROXY_TCP;
    struct sockaddr_storage addr;
    socklen_t len = sm_ports_sockaddr(spec, &addr);
    auto_fd fd =
        socket(addr.ss_family, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot make a socket for a published port");
    int one = 1;
    if (tcp)
        (void)setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (addr.ss_family == AF_INET6)
        (void)setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (bind(fd, (const struct sockaddr *)&addr, len) || (tcp && listen(fd, BACKLOG)))
        return cannot_bind(spec, errno, err);
    len = sizeof(addr);
    if (getsockname(fd, (struct sockaddr *)&addr, &len))
        return sm_error_errno(err, errno, "cannot tell the port that was published");
    spec->host_port = sm_ports_port_of(&addr);
    *out = sm_steal_fd(&fd);
    return 0;
}

/* Each stays open until the last has been tried: two may want what only one can have. */
int sm_ports_try(const struct sm_port_spec *specs, size_t n, sm_error *err)
{
    int fds[SM_PORTS_MAX], rc = 0;
    size_t opened = 0;
    while (opened < n && !rc) {
        struct sm_port_spec copy = specs[opened];
        rc = open_socket(&copy, &fds[opened], err);
        opened += !rc;
    }
    while (opened > 0)
        sm_close(fds[--opened]);
    return rc;
}

static void close_port(struct port *port)
{
    sm_ports_udp_expire(port, true);
    sm_loop_remove(port->watch);
    sm_close(port->fd);
    free(port);
}

struct request {
    struct sm_ports *ports;
    struct port *port;
    struct sm_port_spec *specs;
    struct sm_ports_counters *counters;
    size_t n;
    int rc;
    sm_error *err;
};

static void do_publish(void *arg)
{
    struct request *r = arg;
    struct sm_ports *ports = r->ports;
    struct port *port = r->port;
    if (ports->n[port->spec.found] == SM_PORTS_MAX) {
        r->rc = sm_error_set(r->err, SM_ELIMIT, "at most %d ports can be published", SM_PORTS_MAX);
        return;
    }
    bool tcp = port->spec.protocol == SM_WIRE_PROXY_TCP;
    r->rc = sm_loop_add(ports->loop, port->fd, SM_LOOP_IN, tcp ? on_connection : sm_ports_udp_event,
        port, &port->watch, r->err);
    if (r->rc)
        return;
    port->next = ports->list;
    ports->list = port;
    ports->n[port->spec.found]++;
    r->port = NULL;
}

int sm_ports_publish(struct sm_ports *ports, struct sm_port_spec *spec, sm_error *err)
{
    struct sm_port_spec result = *spec;
    int fd = -1;
    int rc = open_socket(&result, &fd, err);
    if (rc)
        return rc;
    struct port *port = calloc(1, sizeof(*port));
    if (!port) {
        sm_close(fd);
        return sm_error_set(err, SM_ENOMEM, "out of memory for a published port");
    }
    *port = (struct port){.ports = ports, .spec = result, .fd = fd};
    struct request r = {.ports = ports, .port = port, .err = err};
    sm_loop_run(ports->loop, do_publish, &r);
    if (r.rc) {
        close_port(port);
        return r.rc;
    }
    *spec = result;
    return 0;
}

static void do_withdraw(void *arg)
{
    struct request *r = arg;
    for (struct port **link = &r->ports->list; *link; link = &(*link)->next) {
        struct port *port = *link;
        if (port->spec.host_port == r->specs->host_port &&
            port->spec.protocol == r->specs->protocol &&
            sm_ip_equal(&port->spec.ip, &r->specs->ip)) {
            *link = port->next;
            r->ports->n[port->spec.found]--;
            close_port(port);
            return;
        }
    }
}

void sm_ports_withdraw(struct sm_ports *ports, const struct sm_port_spec *spec)
{
    struct sm_port_spec copy = *spec;
    struct request r = {.ports = ports, .specs = &copy};
    sm_loop_run(ports->loop, do_withdraw, &r);
}

static void do_list(void *arg)
{
    struct request *r = arg;
    size_t max = r->n;
    r->n = 0;
    for (const struct port *p = r->ports->list; p; p = p->next, r->n++) {
        if (r->n < max)
            r->specs[r->n] = p->spec;
    }
    if (r->counters)
        *r->counters = r->ports->counters;
}

size_t sm_ports_list(struct sm_ports *ports, struct sm_port_spec *specs, size_t max)
{
    struct request r = {.ports = ports, .specs = specs, .n = max};
    sm_loop_run(ports->loop, do_list, &r);
    return r.n;
}

void sm_ports_get_counters(struct sm_ports *ports, struct sm_ports_counters *counters)
{
    *counters = (struct sm_ports_counters){0};
    struct request r = {.ports = ports, .counters = counters};
    sm_loop_run(ports->loop, do_list, &r);
}

/* ---- life ---------------------------------------------------------------------------------- */

int sm_ports_create(struct sm_loop *loop, const struct sm_guest_link *link, sm_ports_log_fn *log,
    void *log_arg, struct sm_ports **out, sm_error *err)
{
    struct sm_ports *ports = calloc(1, sizeof(*ports));
    if (!ports)
        return sm_error_set(err, SM_ENOMEM, "out of memory for published ports");
    ports->loop = loop;
    ports->link = *link;
    ports->owner = SM_PEER_OWNER_INIT;
    ports->log = log;
    ports->log_arg = log_arg;
    ports->log_rate = sm_rate_make(LOGGED_A_SECOND, LOGGED_BURST);
    int rc = sm_loop_timer_create(loop, on_tick, ports, &ports->timer, err);
    if (!rc)
        rc = sm_loop_timer_create(loop, listen_on, ports, &ports->retry, err);
    if (rc) {
        sm_loop_timer_destroy(ports->timer);
        free(ports);
        return rc;
    }
    *out = ports;
    return 0;
}

static void do_destroy(void *arg)
{
    struct sm_ports *ports = arg;
    sm_ports_shut_door(ports);
    while (ports->list) {
        struct port *port = ports->list;
        ports->list = port->next;
        close_port(port);
    }
    sm_loop_timer_destroy(ports->timer);
    sm_loop_timer_destroy(ports->retry);
    sm_peer_owner_close(&ports->owner);
    free(ports);
}

void sm_ports_destroy(struct sm_ports *ports)
{
    if (ports)
        sm_loop_run(ports->loop, do_destroy, ports);
}
