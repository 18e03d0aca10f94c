/*
 * Inside of the ports: the front door, a unix socket (door_socket.h) whose clients say where they
 * want to be connected to.
 *
 * A client that sends "CONNECT PORT\n" is connected to that TCP port of the guest by the guest's
 * proxy, which says "OK PORT\n" itself; one that begins with anything else, or says nothing for
 * half a second, to the first port that there is, and waits ten seconds for one. After "CONNECT
 * vsock:PORT\n" it gets "OK HOSTPORT\n" and is connected to that vsock port of the guest. One that
 * says CONNECT and one word that is no port gets a line that begins with ERR. Where the door's
 * socket is in a directory of the caller's own, what in the guest connects to a vsock port N of the
 * host without an in-process listener leads to "PATH_N".
 *
 * A client is looked at with MSG_PEEK until it is known whether it names a port. A whole CONNECT
 * line is taken out, and nothing else: all the rest is data for the guest. At most 64 clients are
 * looked at, the others wait in the socket's backlog.
 */
#ifndef SM_NET_PORTS_DOOR_H
#define SM_NET_PORTS_DOOR_H

#include "net/ports/entry.h"

/* Closes what sm_ports_front_door has opened, if it is open. Connections go on. The loop's
 * thread. */
void sm_ports_shut_door(struct sm_ports *ports);

#endif
