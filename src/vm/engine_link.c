/* How ports reach the guest of an engine (net/ports/guest_link.h): their sockets go down to the
 * machine's process, and what the guest wants to be connected to comes up as a question. */
#include <errno.h>
#include <poll.h>

#include "net/ports/guest_link.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/loop.h"
#include "vm/engine_impl.h"

#define AT_ONCE 16 /* questions before the loop gets its turn */

/* The socket is full while the machine stands still. */
static bool is_ready(void *arg)
{
    const struct sm_engine *e = arg;
    struct pollfd room = {.fd = e->streams, .events = POLLOUT};
    return poll(&room, 1, 0) == 1 && room.revents & POLLOUT;
}

static bool bridge(void *arg, int fd, const struct sm_vsock_target *target)
{
    const struct sm_engine *e = arg;
    const struct sm_machine_stream s = {.kind = SM_STREAM_BRIDGE, .target = *target};
    bool sent = sm_record_send_now(e->streams, &s, sizeof(s), &fd, 1) == 0;
    sm_close(fd);
    return sent;
}

/* One question too many is answered as one that leads nowhere. */
static void answer(struct sm_engine *e, const struct sm_machine_stream *ask)
{
    const struct sm_machine_stream s = {.kind = SM_STREAM_LEAD, .ticket = ask->ticket};
    uint64_t suppressed;
    bool may = sm_rate_take(&e->ask_rate, (uint64_t)sm_now_ms(), &suppressed);
    auto_fd fd = may ? e->lead(e->lead_arg, ask->port) : -1;
    sm_record_send_now(e->streams, &s, sizeof(s), &fd, fd >= 0);
}

static void on_ask(void *arg, uint32_t events)
{
    struct sm_engine *e = arg;
    struct sm_machine_stream ask;
    (void)events;
    for (int i = 0; i < AT_ONCE; i++) {
        ssize_t n = sm_record_take_now(e->streams, &ask, sizeof(ask), NULL, 0, NULL);
        if (n == -EAGAIN)
            return;
        if (n == 0) { /* the machine is gone */
            sm_loop_remove(e->asks);
            e->asks = NULL;
            return;
        }
        if (n == sizeof(ask) && ask.kind == SM_STREAM_ASK)
            answer(e, &ask);
    }
}

/* On the loop's thread. Where it cannot be watched nobody is asked, and the guest is refused. */
static void accept_any(void *arg, sm_guest_lead_fn *lead, void *lead_arg)
{
    struct sm_engine *e = arg;
    struct sm_machine_stream s = {.kind = SM_STREAM_LEADS, .port = lead != NULL};
    sm_loop_remove(e->asks);
    e->asks = NULL;
    e->lead = lead;
    e->lead_arg = lead_arg;
    if (lead && sm_loop_add(e->asks_loop, e->streams, SM_LOOP_IN, on_ask, e, &e->asks, NULL))
        return;
    sm_record_send_now(e->streams, &s, sizeof(s), NULL, 0);
}

void sm_engine_link(struct sm_engine *e, struct sm_loop *loop, struct sm_guest_link *link)
{
    e->asks_loop = loop;
    *link = (struct sm_guest_link){
        .arg = e, .is_ready = is_ready, .bridge = bridge, .accept_any = accept_any};
}
