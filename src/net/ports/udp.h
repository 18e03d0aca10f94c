/* Inside of the ports: UDP. Loop's thread; see udp.c. */
#ifndef SM_NET_PORTS_UDP_H
#define SM_NET_PORTS_UDP_H

#include "net/ports/entry.h"

/* The port's socket has datagrams (a sm_loop_watch_fn). */
void sm_ports_udp_event(void *port, uint32_t events);
/* Closes sessions that were idle for SM_PORTS_IDLE_MS (all: every one). */
void sm_ports_udp_expire(struct port *port, bool all);

#endif
