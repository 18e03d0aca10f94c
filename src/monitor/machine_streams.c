/*
 * Streams of a machine: sockets of the client's that are connected to the guest, and the guest's
 * own connections. All of it happens on the device thread, which reads SM_MACHINE_STREAMS itself;
 * so what comes while the machine stands still waits in that socket.
 *
 * System calls: sendto.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "devices/vsock/vsock.h"
#include "monitor/machine_host.h"
#include "net/socket_backend.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/loop.h"
#include "wire/wire.h"

#define AT_ONCE 16 /* records that are read before others of the device thread's work is done */

/* The agent of a guest that boots connects once, before anybody is asked; all others are led where
 * the client says. A client that does not come to read what it is asked loses the question. */
static void on_asked(void *arg, uint32_t ticket, uint32_t port)
{
    struct machine_host *h = arg;
    const struct sm_machine_stream ask = {.kind = SM_STREAM_ASK, .ticket = ticket, .port = port};
    if (port == SM_WIRE_PORT && h->fds[SM_START_AGENT] >= 0)
        sm_vsock_lead(sm_machine_vsock(h->machine), ticket, sm_steal_fd(&h->fds[SM_START_AGENT]));
    else if (!h->leads ||
             send(SM_MACHINE_STREAMS, &ask, sizeof(ask), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
        sm_vsock_lead(sm_machine_vsock(h->machine), ticket, -1);
}

static void deal_with(struct machine_host *h, const struct sm_machine_stream *s, int *fd)
{
    struct sm_vsock *vsock = sm_machine_vsock(h->machine);
    switch (s->kind) {
    case SM_STREAM_BRIDGE:
        if (*fd >= 0)
            sm_vsock_bridge(vsock, sm_steal_fd(fd), &s->target);
        break;
    case SM_STREAM_LEADS:
        h->leads = s->port;
        break;
    case SM_STREAM_LEAD:
        sm_vsock_lead(vsock, s->ticket, sm_steal_fd(fd));
        break;
    case SM_STREAM_REPLUG:
        if (h->backend && *fd >= 0 && sm_socket_backend_replug(h->backend, *fd, NULL) == 0)
            sm_steal_fd(fd);
        break;
    default:
        break;
    }
}

static void on_streams(void *arg, uint32_t events)
{
    struct machine_host *h = arg;
    struct sm_machine_stream s;
    (void)events;
    for (int i = 0; i < AT_ONCE; i++) {
        auto_fd fd = -1;
        unsigned n;
        ssize_t bytes = sm_record_take_now(SM_MACHINE_STREAMS, &s, sizeof(s), &fd, 1, &n);
        if (bytes == -EAGAIN)
            return;
        if (bytes == sizeof(s)) {
            deal_with(h, &s, &fd);
        } else if (bytes == 0) {
            sm_loop_remove(sm_steal_ptr(&h->streams));
            return;
        }
    }
}

int sm_machine_host_open_streams(struct machine_host *h, sm_error *err)
{
    sm_vsock_accept_any(sm_machine_vsock(h->machine), on_asked, h);
    return sm_loop_add(sm_machine_loop(h->machine), SM_MACHINE_STREAMS, SM_LOOP_IN, on_streams, h,
        &h->streams, err);
}
