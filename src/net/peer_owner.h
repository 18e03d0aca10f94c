/*
 * Whose is the other end of a connection or datagram that came over this host's loopback?
 *
 * The kernel tells the user of a socket (sock_diag), or, where it cannot be asked, lists all of them
 * (/proc/net/tcp). Only a socket that is open counts: one that its program has closed has no user any more, and
 * is nobody's.
 *
 * Threads: one at a time.
 */
#ifndef SM_NET_PEER_OWNER_H
#define SM_NET_PEER_OWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

struct sm_peer_owner {
    int fd;     /* of sock_diag; 0: not opened yet, -1: cannot be had */
    bool works; /* it has told of a socket once */
    bool lists; /* for tests: do not ask, read the list */
    uint32_t seq;
};

void sm_peer_owner_close(struct sm_peer_owner *o);

/* Has this user, or root, sent from `peer` (TCP: 6, UDP: 17) what came to `local`? Both of one family; anything
 * else than a loopback address of `peer` is a stranger's. */
bool sm_peer_owner_is_us(struct sm_peer_owner *o, uint8_t protocol,
    const struct sockaddr_storage *peer, const struct sockaddr_storage *local);

#endif
