/*
 * Ports of the host that lead into the guest.
 *
 * TCP: a connection to the host's listener is bridged to a vsock stream of the agent's port proxy.
 * Half close and back-pressure are those of the stream; the bytes are moved by the vsock device
 * itself.
 *
 * Who comes: the owner (this user or root, over the host's loopback: peer_owner.h) is led to the
 * port on the guest's loopback, so services that are bound to 127.0.0.1 are reached. Anybody else
 * is a stranger, and so is who has closed his end before he can be told: led to the port at the
 * card's address, and from there, so that no service of the loopback is reached and none takes him
 * for its own machine's; and sent away from a port that nobody has asked for. Strangers have half
 * of the streams.
 *
 * UDP: each sender (address and port) is a session, one stream with framed datagrams; at most
 * SM_PORTS_SESSIONS of them (three quarters for strangers), closed after a minute without traffic.
 * A datagram for which there is no room is dropped.
 *
 * Threads: the listeners live on the loop's thread; the functions may be called from any other.
 */
#ifndef SM_NET_PORTS_PORTS_H
#define SM_NET_PORTS_PORTS_H

#include "net/ports/guest_link.h"
#include "net/ports/spec.h"

struct sm_loop; /* util/loop.h */

#define SM_PORTS_MAX      256 /* listeners that were asked for, and as many that were found */
#define SM_PORTS_SESSIONS 256 /* UDP senders of one port */
#define SM_PORTS_IDLE_MS  60000

struct sm_ports;

/* Told of connections, or the first datagram of a UDP sender, at a bounded rate, on the loop's
 * thread. */
struct sm_port_connection {
    const struct sm_ip *source; /* NULL: through the front door */
    uint16_t source_port, guest_port;
    uint8_t protocol;
    uint64_t suppressed; /* since the last one that was told */
};
typedef void sm_ports_log_fn(void *arg, const struct sm_port_connection *connection);

/* The link must work until destroy; log may be NULL. */
int sm_ports_create(struct sm_loop *loop, const struct sm_guest_link *link, sm_ports_log_fn *log,
    void *log_arg, struct sm_ports **ports, sm_error *err);
/* Closes all listeners, UDP sessions and the front door; TCP connections belong to the vsock
 * device. */
void sm_ports_destroy(struct sm_ports *ports);

/* Whether all of them (SM_PORTS_MAX at most) can be had now, together; says why not as
 * sm_ports_publish does. */
int sm_ports_try(const struct sm_port_spec *specs, size_t n, sm_error *err);

/* Binds and listens. *spec gets the host port. SM_EBUSY: taken. */
int sm_ports_publish(struct sm_ports *ports, struct sm_port_spec *spec, sm_error *err);
/* Stops listening; connections go on. */
void sm_ports_withdraw(struct sm_ports *ports, const struct sm_port_spec *spec);

/* Opens the VM's front door, a unix socket at `path` (mode 0600), or "@NAME" in the abstract
 * namespace for the same user and root: a client is connected to the port of the guest that it
 * names, or else to the first TCP port that there is: the one published first, else the first of
 * those found (door.h has the protocol). A socket file whose owner is dead is replaced; ours is
 * removed with the ports. SM_EEXIST: there is one; SM_EBUSY: the path is taken. */
int sm_ports_front_door(struct sm_ports *ports, const char *path, sm_error *err);

/* Copies at most `max` of what is published, the newest first; returns how many there are. */
size_t sm_ports_list(struct sm_ports *ports, struct sm_port_spec *specs, size_t max);

struct sm_ports_counters {
    uint64_t connections, sessions, datagrams_dropped, refused;
    uint64_t strangers; /* sent away from ports that were found: connections, datagrams */
};
void sm_ports_get_counters(struct sm_ports *ports, struct sm_ports_counters *counters);

#endif
