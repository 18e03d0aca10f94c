/*
 * Whose is the other end of a connection or datagram that came over this host's loopback?
 *
 * The kernel tells the user of a socket (sock_diag), or, where it cannot be asked, lists all of
 * them (/proc/net/tcp). Only a socket that is open counts: one that its program has closed has no
 * user any more, and is nobody's. Reading lists takes at most a fifth of the thread's time, 0.2 s
 * at once; who is not found in it is a stranger.
 *
 * Threads: one at a time.
 */
#ifndef SM_NET_PORTS_PEER_OWNER_H
#define SM_NET_PORTS_PEER_OWNER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

enum sm_peer_source { SM_PEER_UNTRIED, SM_PEER_IS_TOLD, SM_PEER_IS_LISTED };

struct sm_peer_owner {
    int fd;                        /* of sock_diag; -1: none */
    enum sm_peer_source source[2]; /* UDP, TCP */
    uint64_t cost_ns, paid_ns;     /* of lists: what is not paid off yet; when some was */
    uint32_t seq;
};

#define SM_PEER_OWNER_INIT ((struct sm_peer_owner){.fd = -1})

void sm_peer_owner_close(struct sm_peer_owner *o);

/* Has this user, or root, sent from `peer` (TCP: 6, UDP: 17) what came to `local`? Both of one
 * family; anything else than a loopback address of `peer` is a stranger's. */
bool sm_peer_owner_is_us(struct sm_peer_owner *o, uint8_t protocol,
    const struct sockaddr_storage *peer, const struct sockaddr_storage *local);

#endif
