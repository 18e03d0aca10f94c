/*
 * What a machine's network card is plugged into when its network is in another process: a socket
 * (frame_socket.h) whose other end is a card to the real backend there (socket_card.h). Nothing is
 * judged here; what comes is only checked to be what the guest's driver may be given.
 *
 * The other end may never come, or die: frames are lost then, the card and its link stay as they
 * are, until there is a new socket. It is started when the guest first sends, so nothing is sent
 * before that, configuration included, unless others are to speak first.
 */
#ifndef SM_NET_SOCKET_BACKEND_H
#define SM_NET_SOCKET_BACKEND_H

#include "devices/virtio_net.h"

/* `fd`: one of sm_frame_socket_pair, taken over on success. `speaks_first`: the other end is there,
 * and may have frames before the guest has sent any. */
int sm_socket_backend_create(struct sm_loop *loop, int fd, bool speaks_first,
    struct sm_net_backend **backend, sm_error *err);

/* Another socket in the place of the one before, or none (-1); what that held is lost. The
 * descriptor is taken over on success. On the loop's thread. */
int sm_socket_backend_replug(struct sm_net_backend *backend, int fd, sm_error *err);

struct sm_socket_backend_counters {
    atomic_ullong lost;  /* frames of the guest's that nobody was there for */
    atomic_ullong stale; /* frames for the guest that its driver cannot take (any more) */
};
const struct sm_socket_backend_counters *sm_socket_backend_counters(
    const struct sm_net_backend *backend);

#endif
