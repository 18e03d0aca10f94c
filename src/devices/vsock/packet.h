/*
 * The packets of a vsock device: from its tx queue to the streams, and from the streams into its rx
 * queue.
 *
 * To the guest: streams that have something to send (a control packet, or data in their socket and
 * credit from the guest) stand in the ready list. pump takes them in turn, a few packets each, and
 * reads data from the socket straight into the rx buffers that the guest has posted. Without
 * buffers it asks for a kick of the rx queue and stops: then the sockets fill up and their writers
 * wait.
 *
 * From the guest: every packet of the tx queue is looked at once; data goes from the guest's
 * buffers straight into the socket, and only what that does not take is buffered. The guest may
 * have at most SM_VSOCK_BUF_ALLOC bytes of a stream with us that have not reached the socket.
 *
 * Packets that belong to no stream are answered by an RST. Such answers wait in a small array;
 * beyond that there are none: a flood costs no memory, and the tx queue never waits for the rx
 * queue. A guest whose rx queue waits for its tx queue (Linux, with as many answers to send as the
 * queue has buffers) would otherwise stand still with us for ever.
 *
 * Threads: the loop's alone.
 */
#ifndef SM_DEVICES_VSOCK_PACKET_H
#define SM_DEVICES_VSOCK_PACKET_H

#include "devices/virtio_mmio.h"
#include "devices/vsock/stream.h"

enum { VSOCK_Q_RX = 0, VSOCK_Q_TX = 1, VSOCK_Q_EVENT = 2 };

struct vsock_reset { /* an RST for packets that belong to no stream */
    uint64_t cid;
    uint32_t host_port, guest_port;
    uint16_t type;
};

#define VSOCK_RESETS 64u

struct vsock_packets {
    struct sm_virtio_dev *dev;
    uint64_t guest_cid;
    struct vsock_streams *streams;
    /* The guest wants to be connected (a REQUEST): false if it is to be reset, else its stream is
     * there. */
    bool (*accept)(void *arg, const struct vsock_header *request);
    void *accept_arg;
    struct vsock_reset resets[VSOCK_RESETS];
    unsigned n_resets;
    struct sm_loop_timer *tx_timer; /* for tx buffers that the guest has not got back yet */
    struct sm_vsock_stats stats;
};

/* The members before `resets` are filled in. */
int sm_vsock_packets_init(struct vsock_packets *p, sm_error *err);
void sm_vsock_packets_fini(struct vsock_packets *p);

/* Takes what the guest has sent, then pumps. */
void sm_vsock_serve_tx(struct vsock_packets *p);
/* Sends what is ready as far as the guest has buffers, and publishes. */
void sm_vsock_pump(struct vsock_packets *p);
/* Has sm_vsock_pump run soon, for callers that must not touch guest memory now. */
void sm_vsock_pump_later(struct vsock_packets *p);
/* The guest waits for nothing of ours any more. */
void sm_vsock_packets_forget(struct vsock_packets *p);

#endif
