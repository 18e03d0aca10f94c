/* Inside of published ports: what TCP (publish.c) and UDP (udp.c) share. Loop's thread. */
#ifndef SM_NET_PORTS_IMPL_H
#define SM_NET_PORTS_IMPL_H

#include <sys/socket.h>

#include "net/ports/peer_owner.h"
#include "net/ports/ports.h"
#include "util/loop.h"
#include "util/rate.h"

struct udp_session;

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
    struct sm_vsock *vsock;
    struct port *list;
    unsigned n[2]; /* asked for, found */
    sm_ports_log_fn *log;
    void *log_arg;
    struct sm_rate log_rate;
    struct sm_loop_timer *timer; /* listeners that had no descriptor left; idle sessions */
    struct sm_ports_counters counters;
    struct sm_peer_owner owner;
    uint8_t datagram[2 + 65536];
};

/* What the guest's proxy reads first; protocol: with SM_WIRE_PROXY_*. */
void sm_ports_first(uint16_t guest_port, uint16_t protocol, uint8_t first[4]);
/* A stranger may not come in at a port that nobody has published. */
bool sm_ports_may_enter(struct sm_ports *ports, const struct port *port, bool stranger);
/* The host's end as the socket interface has it; returns its length. */
socklen_t sm_ports_sockaddr(const struct sm_port_spec *spec, struct sockaddr_storage *addr);
/* Tells the log; from: NULL for the front door. */
void sm_ports_log(struct sm_ports *ports, const struct sockaddr_storage *from, uint16_t guest_port,
    uint8_t protocol);
/* Has the timer look at things in a while. */
void sm_ports_tick_later(struct sm_ports *ports);

void sm_ports_udp_event(void *port, uint32_t events);
/* Closes sessions that were idle for SM_PORTS_IDLE_MS (all: every one). */
void sm_ports_udp_expire(struct port *port, bool all);

#endif
