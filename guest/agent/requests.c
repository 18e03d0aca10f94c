/*
 * What the host can ask for: a table of the requests, each with who answers it. Between two of them
 * this is the user of a conn; a request may make somebody else its user.
 */
#include "requests.h"

#include <poll.h>
#include <time.h>

#include "exec.h"
#include "file.h"
#include "identity.h"
#include "pause.h"
#include "probe.h"
#include "restore.h"
#include "util/bytes.h"
#include "watch.h"

#define POWER_OFF_LINGER_MS 1000

static uint64_t ticks; /* requests that were looked at */

/* ---- small ones --------------------------------------------------------------------------- */

static uint64_t realtime_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void ping(struct conn *c, const struct sm_wire_ping *m)
{
    struct sm_wire_pong pong = {
        .cookie = m->cookie,
        .boot_nonce = identity_nonce(),
        .monotonic_ns = loop_now_ns(),
        .realtime_ns = realtime_ns(),
        .ticks = ticks,
    };
    conn_put(c, SM_WIRE_PONG, &pong);
}

static void thaw(struct conn *c)
{
    const char *what = "";
    int e = pause_end(&what);
    exec_outlive(false);
    conn_answer(c, e, what);
}

static void run(struct conn *c, const struct sm_wire_exec *m)
{
    if (pause_is_on())
        conn_error(c, SM_WIRE_E_INTERNAL, 0,
            "the guest's processes stand still for a snapshot: a command can begin after it", NULL);
    else if (exec_start(c, m))
        watch_soon();
}

/* What was sent is on its way only when the host has seen it; it answers by closing. */
static void answer_is_out(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLRDHUP};
    poll(&p, 1, POWER_OFF_LINGER_MS);
    loop_stop();
}

static void power_off_request(struct conn *c)
{
    conn_put(c, SM_WIRE_OK, NULL);
    conn_end_then(c, answer_is_out);
}

/* ---- the table ---------------------------------------------------------------------------- */

/* Type, message, who answers. They are looked for in this order: first what starts wait for. */
#define REQUESTS(X)                                                                                \
    X(RESTORE, restore, restore_all)                                                               \
    X(EXEC, exec, run)                                                                             \
    X(SET_NETWORK, set_network, restore_network)                                                   \
    X(PING, ping, ping)                                                                            \
    X(ATTACH, attach, exec_attach)                                                                 \
    X(WRITE_FILE, write_file, file_write)                                                          \
    X(READ_FILE, read_file, file_read)                                                             \
    X(SET_CLOCK, set_clock, restore_clock)                                                         \
    X(ADD_ENTROPY, add_entropy, restore_entropy)                                                   \
    X(SET_IDENTITY, set_identity, restore_identity)                                                \
    X(WAIT_LISTEN, wait_listen, probe_wait_listen)                                                 \
    X(WAIT_IDLE, wait_idle, probe_wait_idle)                                                       \
    X(FREEZE, freeze, pause_begin)

/* Those that carry nothing. */
#define EMPTY_REQUESTS(X)                                                                          \
    X(LISTENERS, probe_listeners)                                                                  \
    X(THAW, thaw)                                                                                  \
    X(WATCH, watch_start)                                                                          \
    X(POWER_OFF, power_off_request)

/* Each answerer with the one type that the table can hold. */
#define ANSWER(TYPE, name, answerer)                                                               \
    static void answer_##TYPE(struct conn *c, const void *message)                                 \
    {                                                                                              \
        const struct sm_wire_##name *m = message;                                                  \
        answerer(c, m);                                                                            \
    }
#define ANSWER_EMPTY(TYPE, answerer)                                                               \
    static void answer_##TYPE(struct conn *c, const void *message)                                 \
    {                                                                                              \
        answerer(c);                                                                               \
    }
REQUESTS(ANSWER)
EMPTY_REQUESTS(ANSWER_EMPTY)

#define MEMBER(TYPE, name, answerer) struct sm_wire_##name name;
#define ROW(TYPE, name, answerer)    {SM_WIRE_##TYPE, true, answer_##TYPE},
#define ROW_EMPTY(TYPE, answerer)    {SM_WIRE_##TYPE, false, answer_##TYPE},

union message {
    REQUESTS(MEMBER)
};

static const struct request {
    uint16_t type;
    bool decode;
    void (*answer)(struct conn *c, const void *message);
} table[] = {REQUESTS(ROW) EMPTY_REQUESTS(ROW_EMPTY)};

/* False: no request, or not a well-formed one. */
static bool request(struct conn *c, const struct sm_wire_frame *f)
{
    union message m;
    ticks++;
    for (size_t i = 0; i < SM_ARRAY_LEN(table); i++) {
        const struct request *r = &table[i];
        if (r->type != f->type)
            continue;
        if (r->decode && !sm_wire_get(f, (enum sm_wire_type)r->type, &m))
            return false;
        r->answer(c, &m);
        return true;
    }
    return false;
}

static const struct conn_user requests = {.frame = request};

int requests_init(void)
{
    conn_init(&requests);
    return loop_init(exec_reap);
}
