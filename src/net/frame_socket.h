/*
 * The frames of a network card over a socket: what both ends of it share (socket_backend.h in the
 * machine, socket_card.h in the network process).
 *
 * Records. The socket is one end of a SOCK_SEQPACKET pair: a record comes whole or not at all. A
 * frame is one record, its struct virtio_net_hdr_v1 in front (in the host's byte order, both ends
 * are on one host), so checksums and segmentation that are left to be done travel along and 64 KiB
 * of TCP are one record. A record shorter than header and Ethernet header is control; anything else
 * is nonsense and ends the socket, as its other end's closing does. Neither end believes the other.
 *
 * Configuration. The machine's end says by CONFIGURE what its driver can take, and counts: frames
 * that come before CONFIGURED with the same number were made for an older driver.
 *
 * Batches. Small frames are gathered and leave by one sendmmsg at the end of the batch; a large one
 * leaves at once, from where it is, guest memory included. Frames come by recvmmsg.
 *
 * Back-pressure. Where the socket is full, put says no until `room`; what was gathered waits here.
 * The kernel lets go when three quarters of the buffer are free again, so both work in batches. A
 * frame that its taker refuses stays, and nothing more is read until resume.
 *
 * Memory: half a MiB of address space, of which only what frames have touched is there.
 *
 * Threads: the loop's alone. Nothing blocks.
 *
 * System calls: sendmmsg, recvmmsg, close.
 * System calls elsewhere: socketpair, setsockopt.
 */
#ifndef SM_NET_FRAME_SOCKET_H
#define SM_NET_FRAME_SOCKET_H

#include "devices/virtio_net.h"

struct sm_frame_socket;

enum sm_frame_control {
    SM_FRAME_CONFIGURE = 1, /* to the far end: number, features (0: was reset) */
    SM_FRAME_CONFIGURED,    /* its answer: number */
};

struct sm_frame_socket_user {
    /* A frame; its header is not checked. False: not now, see sm_frame_socket_resume. */
    bool (*frame)(void *arg, struct virtio_net_hdr_v1 *hdr, uint8_t *frame, size_t len);
    /* False: that is nonsense. */
    bool (*control)(void *arg, enum sm_frame_control kind, uint32_t number, uint64_t features);
    void (*received)(void *arg); /* end of a batch of frames */
    void (*room)(void *arg);     /* put may be called again after it said no */
    void (*gone)(void *arg);     /* the other end is; nothing else is called. May destroy it. */
};

/* Both ends, with buffers as large as this user may make them. */
int sm_frame_socket_pair(int ends[2], sm_error *err);

/* Takes the descriptor over, on success. */
int sm_frame_socket_create(struct sm_loop *loop, int fd, const struct sm_frame_socket_user *user,
    void *arg, struct sm_frame_socket **socket, sm_error *err);
void sm_frame_socket_destroy(struct sm_frame_socket *socket); /* NULL: nothing */

/* False: not now, `room` will be called. True: it goes out at the latest with the next flush, or is
 * lost. */
bool sm_frame_socket_put(struct sm_frame_socket *socket, const struct virtio_net_hdr_v1 *hdr,
    const void *frame, size_t len);
/* The same of a frame in pieces, SM_NET_MAX_PIECES at most. */
bool sm_frame_socket_put_pieces(struct sm_frame_socket *socket, const struct virtio_net_hdr_v1 *hdr,
    const struct iovec *pieces, unsigned n, size_t len);
void sm_frame_socket_flush(struct sm_frame_socket *socket);
/* Drops the frames that are gathered, and puts a control record in their place. */
void sm_frame_socket_control(
    struct sm_frame_socket *socket, enum sm_frame_control kind, uint32_t number, uint64_t features);
/* Reads on after a refusal. Not from within `frame`. */
void sm_frame_socket_resume(struct sm_frame_socket *socket);
/* Drops what was received and not taken. Not from within `frame`. */
void sm_frame_socket_forget(struct sm_frame_socket *socket);

#endif
