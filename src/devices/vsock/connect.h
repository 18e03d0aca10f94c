/*
 * Who is connected on the host's side: threads that wait for a port of the guest, sockets that are
 * bridged to one, listeners for the guest's own connections, and somebody who says where all others
 * of these lead. While he is asked the guest's connection is a stream without a socket.
 *
 * A connect is put into `waiting` by its thread; the loop's thread takes it out when connections
 * can be made, makes the stream, and ends it when the guest has answered. Only the loop's thread
 * begins, ends or withdraws connects, so none of them meets another halfway.
 *
 * Threads: sm_vsock_connects_wait and sm_vsock_connects_listen are for any but the loop's, all else
 * is for the loop's.
 */
#ifndef SM_DEVICES_VSOCK_CONNECT_H
#define SM_DEVICES_VSOCK_CONNECT_H

#include <pthread.h>

#include "devices/vsock/packet.h"

struct vsock_connect;
struct vsock_listener;

struct vsock_asked {
    struct vsock_connects *all;
    struct vsock_stream *stream; /* NULL: slot is free */
    uint32_t ticket;
    int64_t deadline_ms;
};

struct vsock_connects {
    struct sm_loop *loop;
    struct vsock_streams *streams;
    struct vsock_packets *packets;
    bool (*open)(void *arg); /* can connections be made now? Else they wait */
    void *open_arg;
    bool ended; /* nor ever */

    uint32_t next_port; /* of ours */
    struct vsock_listener *listeners;
    sm_vsock_ask_fn *ask; /* where connections to other ports lead */
    void *ask_arg;
    struct vsock_asked asked[SM_VSOCK_ASKED];
    unsigned n_asked;
    uint32_t last_ticket;

    struct vsock_connect
        *bridges; /* waiting or begun; with the streams at most as many as may be */
    unsigned n_bridges;
    struct sm_loop_timer *timer;
    bool ticking;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a connect is done */
    struct vsock_connect *waiting, **waiting_tail;
};

/* The members before `ended` are filled in. */
int sm_vsock_connects_init(struct vsock_connects *all, sm_error *err);
void sm_vsock_connects_fini(struct vsock_connects *all);

/* Begins those that wait, if they can begin now. */
void sm_vsock_connects_begin(struct vsock_connects *all);
/* Those that wait fail, and those to come, until `ended` is taken back. */
void sm_vsock_connects_end(struct vsock_connects *all);
/* For struct vsock_packets. */
bool sm_vsock_connects_accept(void *connects, const struct vsock_header *request);

/* What vsock.h promises. */
int sm_vsock_connects_wait(
    struct vsock_connects *all, uint32_t port, struct sm_wait *wait, int *fd, sm_error *err);
bool sm_vsock_connects_bridge(
    struct vsock_connects *all, int fd, const struct sm_vsock_target *target);
void sm_vsock_connects_lead(struct vsock_connects *all, uint32_t ticket, int fd);
int sm_vsock_connects_listen(
    struct vsock_connects *all, uint32_t port, sm_vsock_accept_fn *fn, void *arg, sm_error *err);

#endif
