/*
 * A network card whose device is in another process: what a backend is plugged into at the far end
 * of a socket (frame_socket.h). All that comes is hostile, as the machine that sends it may be a
 * guest's: frames are checked as the device checks a driver's (sm_net_header_is_sane), by the
 * features that CONFIGURE has named, before the backend sees them.
 *
 * The end of the socket is the end of the machine, after what it sent last.
 */
#ifndef SM_NET_SOCKET_CARD_H
#define SM_NET_SOCKET_CARD_H

#include "devices/virtio_net.h"

struct sm_socket_card;

struct sm_socket_card_config {
    int fd;                         /* taken over on success */
    struct sm_net_backend *backend; /* likewise */
    void (*gone)(void *arg);        /* the other end is, once; may destroy the card */
    void *arg;
};

int sm_socket_card_create(struct sm_loop *loop, const struct sm_socket_card_config *config,
    struct sm_socket_card **card, sm_error *err);
void sm_socket_card_destroy(struct sm_socket_card *card); /* NULL: nothing */

/* Frames that were dropped since no driver may send such. */
uint64_t sm_socket_card_bad(const struct sm_socket_card *card);

#endif
