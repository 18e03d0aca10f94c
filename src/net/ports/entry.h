/*
 * Inside of the ports: what all ways in share, which are published TCP ports (publish.c), UDP ports
 * (udp.c) and the front door (door.c): who may come in, what the guest's proxy is told first, what
 * is logged, and what counts.
 *
 * The order of the files: spec, peer_owner, door_socket < entry < udp, door < publish < found.
 *
 * Threads: the loop's alone.
 */
#ifndef SM_NET_PORTS_ENTRY_H
#define SM_NET_PORTS_ENTRY_H

#include <sys/socket.h>

#include "net/ports/peer_owner.h"
#include "net/ports/ports.h"
#include "util/loop.h"
#include "util/rate.h"

struct udp_session;
struct door;

struct port {
    struct sm_ports *ports;
    struct port *next;
    struct sm_port_spec spec;
    int fd;
    struct sm_loop_watch *watch;
    struct udp_session *sessions;     /* UDP, the last used first */
    unsigned n_sessions, n_strangers; /* of them */
};

struct sm_ports {
    struct sm_loop *loop;
    struct sm_guest_link link;
    struct port *list;
    unsigned n[2]; /* asked for, found */
    struct door *door;
    sm_ports_log_fn *log;
    void *log_arg;
    struct sm_rate log_rate;
    struct sm_loop_timer *timer; /* listeners that had no descriptor left; idle sessions */
    struct sm_loop_timer *retry; /* listeners that had to wait for the link */
    struct sm_ports_counters counters;
    struct sm_peer_owner owner;
    uint8_t datagram[2 + 65536];
};

/* A port of the guest's, through its proxy; `how`: SM_WIRE_PROXY_*, the protocol among them. */
struct sm_vsock_target sm_ports_target(uint16_t guest_port, uint16_t how);
/* A stranger may not come in at a port that nobody has published. */
bool sm_ports_may_enter(struct sm_ports *ports, const struct port *port, bool stranger);
/* The host's end as the socket interface has it; returns its length. */
socklen_t sm_ports_sockaddr(const struct sm_port_spec *spec, struct sockaddr_storage *addr);
uint16_t sm_ports_port_of(const struct sockaddr_storage *addr);
/* Tells the log; from: NULL for the front door. */
void sm_ports_log(struct sm_ports *ports, const struct sockaddr_storage *from, uint16_t guest_port,
    uint8_t protocol);
/* As the link has it. fd is taken over. */
bool sm_ports_bridge(struct sm_ports *ports, int fd, const struct sm_vsock_target *target);
/* Whether somebody can be let in now. */
bool sm_ports_is_ready(const struct sm_ports *ports);
/* Has the timer look at things in a while. */
void sm_ports_tick_later(struct sm_ports *ports);

#endif
