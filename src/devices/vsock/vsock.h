/*
 * virtio-vsock (virtio 1.2, 5.10) with the host side in this process.
 *
 * Every stream is bridged to a socket: to one end of an AF_UNIX stream socketpair (connect,
 * listen), or to one that the caller has, whatever it leads to (bridge, accept_any). Closing that
 * end closes the guest's, shutdown(2) is half close in both directions, a reset shows as end of
 * file and EPIPE. Back-pressure works both ways: the guest's credit, the rx buffers it posts, and
 * the socket's buffer bound what is under way; of a stream never more than SM_VSOCK_BUF_ALLOC bytes
 * wait in this process.
 */
#ifndef SM_DEVICES_VSOCK_VSOCK_H
#define SM_DEVICES_VSOCK_VSOCK_H

#include "devices/virtio_mmio.h"
#include "devices/vsock/target.h"

#define SM_VSOCK_BUF_ALLOC 262144u /* our credit per stream, and so the bound on its memory */

struct sm_vsock_config {
    uint64_t guest_cid;   /* 0: SM_VSOCK_GUEST_CID */
    unsigned max_streams; /* 0: 4096; more are reset */
};

struct sm_vsock;
struct sm_wait; /* util/wait.h */

int sm_vsock_create(const struct sm_virtio_env *env, const struct sm_vsock_config *config,
    struct sm_vsock **vsock, sm_error *err);

/* The virtio device that it is: for the bus, save and load, and sm_virtio_destroy, which frees
 * both. */
struct sm_virtio_dev *sm_vsock_dev(struct sm_vsock *vsock);

/* Connects to a port that the guest listens on; *fd is a blocking, close-on-exec stream socket, the
 * caller's. Waits for the guest's answer, and before that for the driver to be up and for the end
 * of a transport reset: no longer than `wait` allows. SM_ENOTFOUND: nobody listens (or the guest
 * has no room); SM_ETIMEOUT. Any thread but the loop's. */
int sm_vsock_connect(
    struct sm_vsock *vsock, uint32_t port, struct sm_wait *wait, int *fd, sm_error *err);

/* Called on the loop's thread when the guest has connected to the port; the callback owns fd
 * (blocking, close-on-exec) and must not block. */
typedef void sm_vsock_accept_fn(void *arg, int fd, uint32_t guest_port);

/* Lets the guest connect to `port` of the host. SM_EEXIST: taken. fn NULL: not any more. Any
 * thread. */
int sm_vsock_listen(
    struct sm_vsock *vsock, uint32_t port, sm_vsock_accept_fn *fn, void *arg, sm_error *err);

/* Connects `fd`, a stream socket of whatever kind, to a port of the guest: what it receives goes to
 * the guest and the other way round, half close and back-pressure included, until both have ended.
 * fd is taken over in any case, and closed when the guest refuses or does not answer in time.
 * False: too many streams, or the guest has ended. The loop's thread only. */
bool sm_vsock_bridge(struct sm_vsock *vsock, int fd, const struct sm_vsock_target *target);

#define SM_VSOCK_ASKED    64
#define SM_VSOCK_ASKED_MS 5000

/* The guest wants to be connected to a port of the host on which nobody of this process listens.
 * sm_vsock_lead is the answer to `ticket`, within this call or later: somebody in another process
 * may have to say it. At most SM_VSOCK_ASKED answers are waited for, each for SM_VSOCK_ASKED_MS;
 * what is beyond that is reset. Called on the loop's thread; must not block. */
typedef void sm_vsock_ask_fn(void *arg, uint32_t ticket, uint32_t port);

/* Asks fn where such connections lead; NULL: nowhere (any more). The loop's thread only. */
void sm_vsock_accept_any(struct sm_vsock *vsock, sm_vsock_ask_fn *fn, void *arg);

/* Connects the guest to `fd`, a stream socket, as sm_vsock_bridge does; -1: it is reset. fd is
 * taken over, and closed when nobody waits for it any more. The loop's thread only. */
void sm_vsock_lead(struct sm_vsock *vsock, uint32_t ticket, int fd);

/* Must follow sm_virtio_load, before sm_virtio_wake and before the vCPUs run: tells the guest that
 * all its connections are gone (event queue, TRANSPORT_RESET), unless the loaded state says that
 * there were none. Until the guest has dealt with the event no new connection is made (connects
 * wait, the guest's are reset), because the guest would kill it. False: no reset was needed. */
bool sm_vsock_transport_reset(struct sm_vsock *vsock);

/* The guest has ended (vCPUs stopped, loop running): what it has sent is delivered, then all
 * streams are closed, so that their readers see the end of file. Connects that wait, and those to
 * come, fail with SM_EGUEST. A load revives the device. Any thread. */
void sm_vsock_end(struct sm_vsock *vsock);

/* Waits until the guest has acknowledged the end of every stream; false: some are open after
 * timeout_ms. For a bake: a snapshot without streams is restored without a transport reset. Any
 * thread but the loop's. */
bool sm_vsock_wait_quiet(struct sm_vsock *vsock, int timeout_ms);

struct sm_vsock_stats {
    uint64_t streams; /* open now, in whatever state */
    uint64_t connects, accepts, resets_sent, resets_received;
    uint64_t bytes_to_guest, bytes_from_guest;
    uint64_t packets_to_guest, packets_from_guest;
};
void sm_vsock_get_stats(struct sm_vsock *vsock, struct sm_vsock_stats *stats);

#endif
