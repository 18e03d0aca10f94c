/*
 * virtio-vsock (virtio 1.2, 5.10) with the host side in this process.
 *
 * Every stream is bridged to a socket: for us and our callers that is one end of an AF_UNIX stream
 * socketpair (connect, listen), for the front door the accepted or connected unix socket itself.
 * Closing that end closes the guest's, shutdown(2) is half close in both directions, a reset shows as
 * end of file and EPIPE. Back-pressure works both ways: the guest's credit, the rx buffers it posts, and
 * the socket's buffer bound what is under way; of a stream never more than SM_VSOCK_BUF_ALLOC bytes
 * wait in this process.
 */
#ifndef SM_DEVICES_VSOCK_VSOCK_H
#define SM_DEVICES_VSOCK_VSOCK_H

#include "devices/virtio_mmio.h"

#define SM_VSOCK_HOST_CID  2
#define SM_VSOCK_GUEST_CID 3       /* what every guest of ours gets: clones never notice a change */
#define SM_VSOCK_BUF_ALLOC 262144u /* our credit per stream, and so the bound on its memory */

struct sm_vsock_config {
    uint64_t guest_cid;   /* 0: SM_VSOCK_GUEST_CID */
    unsigned max_streams; /* 0: 4096; more are reset */
};

struct sm_vsock;
struct sm_wait; /* util/wait.h */

int sm_vsock_create(const struct sm_virtio_env *env, const struct sm_vsock_config *config,
    struct sm_vsock **vsock, sm_error *err);

/* The virtio device that it is: for the bus, save and load, and sm_virtio_destroy, which frees both. */
struct sm_virtio_dev *sm_vsock_dev(struct sm_vsock *vsock);

/* Connects to a port that the guest listens on; *fd is a blocking, close-on-exec stream socket, the
 * caller's. Waits for the guest's answer, and before that for the driver to be up and for the end of a
 * transport reset: no longer than `wait` allows. SM_ENOTFOUND: nobody listens (or the guest has no room);
 * SM_ETIMEOUT. Any thread but the loop's. */
int sm_vsock_connect(
    struct sm_vsock *vsock, uint32_t port, struct sm_wait *wait, int *fd, sm_error *err);

/* Called on the loop's thread when the guest has connected to the port; the callback owns fd (blocking,
 * close-on-exec) and must not block. */
typedef void sm_vsock_accept_fn(void *arg, int fd, uint32_t guest_port);

/* Lets the guest connect to `port` of the host. SM_EEXIST: taken. fn NULL: not any more. Any thread. */
int sm_vsock_listen(
    struct sm_vsock *vsock, uint32_t port, sm_vsock_accept_fn *fn, void *arg, sm_error *err);

/* Connects `fd`, a stream socket of whatever kind, to a port of the guest: what it receives goes to the
 * guest and the other way round, half close and back-pressure included, until both have ended. The guest
 * gets the `len` bytes at `first` (at most SM_VSOCK_FIRST) before anything else. fd is taken over in any
 * case, made non-blocking by the caller, and closed when the guest does not answer within a minute. False:
 * too many streams; `stranger`: strangers have half of them, so that the owner is not kept out. The loop's thread
 * only. */
#define SM_VSOCK_FIRST 8
bool sm_vsock_bridge(
    struct sm_vsock *vsock, uint32_t port, int fd, const void *first, size_t len, bool stranger);

/* Where a client of the front door is connected to: a vsock port, which gets the bytes at `first` first. */
struct sm_vsock_target {
    uint32_t port;
    uint8_t first[SM_VSOCK_FIRST], first_len;
};

enum sm_vsock_route {
    SM_VSOCK_NOWHERE, /* the client is sent away, with an ERR */
    SM_VSOCK_NOT_YET, /* asked again in a while, ten seconds at most */
    SM_VSOCK_THERE,
};

/* Asked on the loop's thread what a client wants that has named a port, or has not: it speaks to a service
 * right away, or waits for the service to speak. */
typedef enum sm_vsock_route sm_vsock_route_fn(
    void *arg, bool named, uint32_t port, struct sm_vsock_target *target);

/* Opens the front door, a unix socket at `path` (mode 0600; "@NAME": in the abstract namespace, for the same
 * user only). A client that sends "CONNECT PORT\n" is connected to where `route` says; so is one that begins
 * with anything else, or says nothing for half a second, without having named a port. After
 * "CONNECT vsock:PORT\n" it gets "OK HOSTPORT\n" and is connected to that vsock port of the guest. One that
 * says CONNECT and one word that is no port gets a line that begins with ERR.
 *
 * Where the directory is the caller's own with mode 0700, guest connections to a host port P without an
 * in-process listener go to the unix socket "PATH_P".
 *
 * A socket file whose owner is dead is replaced; ours is removed with the device. Any thread. */
int sm_vsock_front_door(
    struct sm_vsock *vsock, const char *path, sm_vsock_route_fn *route, void *arg, sm_error *err);
/* Closes it, if it is open: `route` is not called any more. Connections go on. The loop's thread only. */
void sm_vsock_shut_front_door(struct sm_vsock *vsock);

/* Must follow sm_virtio_load, before sm_virtio_wake and before the vCPUs run: tells the guest that all its
 * connections are gone (event queue, TRANSPORT_RESET), unless the loaded state says that there were
 * none. Until the guest has dealt with the event no new connection is made (connects wait, the guest's are
 * reset), because the guest would kill it. False: no reset was needed. */
bool sm_vsock_transport_reset(struct sm_vsock *vsock);

/* The guest has ended (vCPUs stopped, loop running): what it has sent is delivered, then all streams are
 * closed, so that their readers see the end of file. Connects that wait, and those to come, fail with
 * SM_EGUEST. A load revives the device. Any thread. */
void sm_vsock_end(struct sm_vsock *vsock);

/* Waits until the guest has acknowledged the end of every stream; false: some are open after timeout_ms.
 * For a bake: a snapshot without streams is restored without a transport reset. Any thread but the loop's. */
bool sm_vsock_wait_quiet(struct sm_vsock *vsock, int timeout_ms);

struct sm_vsock_stats {
    uint64_t streams; /* open now, in whatever state */
    uint64_t connects, accepts, resets_sent, resets_received;
    uint64_t bytes_to_guest, bytes_from_guest;
    uint64_t packets_to_guest, packets_from_guest;
};
void sm_vsock_get_stats(struct sm_vsock *vsock, struct sm_vsock_stats *stats);

#endif
