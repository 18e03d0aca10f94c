/* The network process, as its client has it. See network_process.h. */
#include "vm/network_process.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "net/frame_socket.h"
#include "net/process_message.h"
#include "net/tap.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/locate.h"
#include "util/rate.h"
#include "util/spawn.h"
#include "vm/network.h"
#include "vm/notices.h"

#define STARTS_A_SECOND 1
#define RETRY_MS        1000 /* after a start that was one too many, or failed */
#define LEAVE_MS        500  /* for what the guest sent last */
/* What it says: as egress.h has it, once more for who does not keep to that. */
#define NOTICES_A_SECOND 5
#define NOTICES_BURST    25
#define ASKED_A_SECOND   4  /* likewise, as monitor/network.c has it */
#define REPORTS_AT_ONCE  64 /* before the loop gets its turn */

struct sm_network_process {
    struct sm_loop *loop;
    struct sm_network_process_config config;
    struct sm_vm_network *network;
    char *program, *policy; /* policy NULL: none */
    struct sm_resolv_file resolv;
    int tap; /* -1: none. Kept for the next start */
    bool speaks_first;
    struct sm_rate starts, notices, asked;
    bool complained; /* of a start or a pair that failed: once until a start works */
    struct sm_loop_timer *retry;

    /* Until it is started: its end of the frames' pair; -1: there is none, a new one is due. */
    int frames;
    struct sm_loop_watch *first_frame;
    /* While it runs: */
    int pidfd, control;
    struct sm_loop_watch *end, *reports;
    bool done; /* it has said that the machine's end was closed */
};

static void wait_for_guest(void *arg);

/* ---- what it says ---------------------------------------------------------------------------- */

static void notice(const struct sm_network_process *p, const char *line)
{
    const struct sm_vm_events *events = &p->network->events;
    if (events->notice)
        events->notice(events->notice_arg, line);
}

static void send_order(int control, const struct sm_network_order *order)
{
    auto_free uint8_t *record = NULL;
    size_t len;
    if (sm_network_order_encode(order, &record, &len, NULL) == 0)
        (void)!send(control, record, len, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static void look_at_resolv_conf(struct sm_network_process *p)
{
    auto_free char *text = sm_resolv_file_read(&p->resolv);
    const struct sm_network_order order = {
        .kind = SM_NETWORK_RESOLV, .resolv_conf = text, .resolv_conf_len = text ? strlen(text) : 0};
    if (text)
        send_order(p->control, &order);
}

static void hear(struct sm_network_process *p, struct sm_network_report *report)
{
    uint64_t suppressed;
    if (report->kind == SM_NETWORK_ASKED) {
        if (sm_rate_take(&p->asked, (uint64_t)sm_now_ms(), &suppressed))
            look_at_resolv_conf(p);
    } else if (report->kind == SM_NETWORK_DONE) {
        p->done = true;
    } else if (p->network->events.notice &&
               sm_rate_take(&p->notices, (uint64_t)sm_now_ms(), &suppressed)) {
        report->denial.suppressed += suppressed;
        if (report->kind == SM_NETWORK_DENIED)
            sm_notice_denial(&p->network->events, &report->denial);
        else
            notice(p, report->text);
    }
}

static void kill_it(const struct sm_network_process *p)
{
    (void)syscall(SYS_pidfd_send_signal, p->pidfd, SIGKILL, NULL, 0);
}

/* False: there is nothing more. */
static bool hear_one(struct sm_network_process *p)
{
    uint8_t record[SM_NETWORK_MAX_REPORT];
    struct sm_network_report report;
    ssize_t n = recv(p->control, record, sizeof(record), MSG_DONTWAIT | MSG_TRUNC);
    if (n <= 0)
        return false;
    if ((size_t)n <= sizeof(record) && sm_network_report_decode(record, (size_t)n, &report)) {
        hear(p, &report);
        return true;
    }
    notice(p, "the network process talks nonsense and is ended");
    kill_it(p);
    return false;
}

static void on_reports(void *arg, uint32_t events)
{
    struct sm_network_process *p = arg;
    for (unsigned i = 0; i < REPORTS_AT_ONCE; i++)
        if (!hear_one(p))
            break;
    if (events & (SM_LOOP_HUP | SM_LOOP_ERR)) { /* it ends: its pidfd tells when */
        sm_loop_remove(p->reports);
        p->reports = NULL;
    }
}

/* ---- its life -------------------------------------------------------------------------------- */

/* What it says last is heard; one that has ended is taken away. */
static void let_go(struct sm_network_process *p)
{
    sm_loop_remove(p->end);
    sm_loop_remove(p->reports);
    p->end = p->reports = NULL;
    for (unsigned i = 0; p->control >= 0 && i < REPORTS_AT_ONCE; i++)
        if (!hear_one(p))
            break;
    sm_close(sm_steal_fd(&p->control));
    if (p->pidfd >= 0)
        sm_spawn_wait(p->pidfd, 0);
    sm_close(sm_steal_fd(&p->pidfd));
}

static void try_later(struct sm_network_process *p, const sm_error *err)
{
    if (*err->message && !p->complained) {
        notice(p, err->message);
        p->complained = true;
    }
    sm_loop_timer_arm(p->retry, RETRY_MS);
}

static void plug_anew(struct sm_network_process *p)
{
    int ends[2];
    sm_error err = {0};
    if (sm_frame_socket_pair(ends, &err)) {
        try_later(p, &err);
        return;
    }
    p->config.replug(p->config.arg, ends[0]);
    p->frames = ends[1];
    wait_for_guest(p);
}

static void on_end(void *arg, uint32_t events)
{
    (void)events;
    struct sm_network_process *p = arg;
    let_go(p);
    if (!p->done)
        notice(p, "the network process has ended: the guest's connections are lost, new ones are "
                  "possible");
    p->done = false;
    plug_anew(p);
}

static int spawn(struct sm_network_process *p, int control, sm_error *err)
{
    auto_fd client = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (client < 0)
        return sm_error_errno(err, errno, "cannot name this process to the network process");
    const char *const argv[] = {p->program, "network", NULL};
    const int fds[] = {control, p->frames, client, p->tap};
    const struct sm_spawn how = {
        .program = p->program, .argv = argv, .fds = fds, .n_fds = SM_ARRAY_LEN(fds)};
    int pid;
    return sm_spawn(&how, &p->pidfd, &pid, err);
}

static int make_control(int ends[2], sm_error *err)
{
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) != 0)
        return sm_error_errno(err, errno, "cannot make a socket to the network process");
    const int size = 2 * SM_NETWORK_MAX_ORDER; /* an order is one record */
    (void)setsockopt(ends[0], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
    return 0;
}

static void send_set_up(struct sm_network_process *p)
{
    const struct sm_vm_network *network = p->network;
    const struct sm_guest_addr *v6 = &network->tap.net.v6;
    p->resolv.seen = false;
    auto_free char *text = sm_resolv_file_read(&p->resolv);
    const struct sm_network_order order = {.kind = SM_NETWORK_SETUP,
        .resolv_conf = text,
        .resolv_conf_len = text ? strlen(text) : 0,
        .tap = p->tap >= 0,
        .reports = network->events.notice != NULL,
        .link = v6->addr,
        .link_prefix = p->tap >= 0 && v6->given ? v6->prefix : 0,
        .policy = p->policy,
        .policy_len = p->policy ? strlen(p->policy) : 0};
    send_order(p->control, &order);
}

static int launch(struct sm_network_process *p, sm_error *err)
{
    int ends[2];
    int rc = make_control(ends, err);
    if (rc)
        return rc;
    auto_fd theirs = ends[1];
    p->control = ends[0];
    send_set_up(p);
    rc = spawn(p, theirs, err);
    if (!rc)
        rc = sm_loop_add(p->loop, p->pidfd, SM_LOOP_IN, on_end, p, &p->end, err);
    if (!rc)
        rc = sm_loop_add(p->loop, p->control, SM_LOOP_IN, on_reports, p, &p->reports, err);
    if (rc && p->pidfd >= 0)
        sm_spawn_kill(p->pidfd);
    if (rc)
        let_go(p);
    return rc;
}

static void start(struct sm_network_process *p)
{
    uint64_t suppressed;
    sm_error err = {0};
    if (sm_rate_take(&p->starts, (uint64_t)sm_now_ms(), &suppressed) && launch(p, &err) == 0) {
        sm_close(sm_steal_fd(&p->frames)); /* it is the process' alone now */
        p->complained = false;
        return;
    }
    try_later(p, &err); /* the guest's frames wait in the socket */
}

static void on_retry(void *arg)
{
    struct sm_network_process *p = arg;
    if (p->frames < 0)
        plug_anew(p);
    else
        start(p);
}

static void on_first_frame(void *arg, uint32_t events)
{
    (void)events;
    struct sm_network_process *p = arg;
    sm_loop_remove(p->first_frame);
    p->first_frame = NULL;
    char byte;
    if (recv(p->frames, &byte, 1, MSG_PEEK | MSG_DONTWAIT) > 0) {
        start(p);
        return;
    }
    /* The machine has ended, or has lost its end on the way there: it has no other. */
    sm_close(sm_steal_fd(&p->frames));
    sm_loop_timer_arm(p->retry, RETRY_MS);
}

static void wait_for_guest(void *arg)
{
    struct sm_network_process *p = arg;
    if (p->speaks_first)
        start(p);
    else if (sm_loop_add(p->loop, p->frames, SM_LOOP_IN, on_first_frame, p, &p->first_frame, NULL))
        sm_loop_timer_arm(p->retry, RETRY_MS); /* no memory to wait: without waiting, then */
}

/* ---- interface ------------------------------------------------------------------------------- */

static int take_network(struct sm_network_process *p, sm_error *err)
{
    struct sm_vm_network *network = p->network;
    if (network->policy.n_layers) {
        int rc = sm_policy_format(&network->policy, &p->policy, err);
        if (rc)
            return rc;
        sm_policy_clear(&network->policy);
    }
    if (network->mode != SM_NETWORK_TAP)
        return 0;
    p->speaks_first = true;
    return sm_tap_open(network->tap.ifname, &p->tap, &network->tap.net.mtu, err);
}

/* Of one that is watched by nobody. */
static void release(struct sm_network_process *p)
{
    sm_close(p->frames);
    sm_close(p->tap);
    free(p->program);
    free(p->policy);
    free(p);
}

int sm_network_process_create(const struct sm_network_process_config *config, int *machine_end,
    bool *speaks_first, struct sm_network_process **out, sm_error *err)
{
    struct sm_network_process *p = calloc(1, sizeof(*p));
    if (!p)
        return sm_error_set(err, SM_ENOMEM, "no memory for the network process");
    *p = (struct sm_network_process){.config = *config,
        .network = config->network,
        .resolv.path = config->network->resolv_conf,
        .tap = -1,
        .frames = -1,
        .pidfd = -1,
        .control = -1,
        .starts = sm_rate_make(STARTS_A_SECOND, SM_NETWORK_STARTS_BURST),
        .notices = sm_rate_make(NOTICES_A_SECOND, NOTICES_BURST),
        .asked = sm_rate_make(ASKED_A_SECOND, ASKED_A_SECOND)};
    int ends[2] = {-1, -1};
    int rc = config->program
                 ? 0
                 : sm_locate("supermachine-vm", "SUPERMACHINE_LIBEXEC_DIR", "", &p->program, err);
    if (!rc && config->program && !(p->program = strdup(config->program)))
        rc = sm_error_set(err, SM_ENOMEM, "no memory for the network process");
    if (!rc)
        rc = take_network(p, err);
    if (!rc)
        rc = sm_frame_socket_pair(ends, err);
    if (rc) {
        release(p);
        return rc;
    }
    p->frames = ends[1];
    *machine_end = ends[0];
    *speaks_first = p->speaks_first;
    *out = p;
    return 0;
}

int sm_network_process_watch(struct sm_network_process *p, struct sm_loop *loop, sm_error *err)
{
    int rc = sm_loop_timer_create(loop, on_retry, p, &p->retry, err);
    if (rc)
        return rc;
    p->loop = loop;
    sm_loop_run(loop, wait_for_guest, p);
    return 0;
}

/* On the loop's thread; again does no harm. */
static void stop(void *arg)
{
    struct sm_network_process *p = arg;
    sm_loop_remove(p->first_frame);
    sm_loop_remove(p->end);
    sm_loop_remove(p->reports);
    p->first_frame = p->end = p->reports = NULL;
    sm_loop_timer_destroy(sm_steal_ptr(&p->retry));
}

void sm_network_process_unwatch(struct sm_network_process *p)
{
    if (p && p->loop)
        sm_loop_run(p->loop, stop, p);
}

void sm_network_process_destroy(struct sm_network_process *p)
{
    if (!p)
        return;
    sm_network_process_unwatch(p);
    if (p->pidfd >= 0) {
        if (!sm_spawn_wait(p->pidfd, LEAVE_MS))
            sm_spawn_kill(p->pidfd);
        let_go(p);
    }
    release(p);
}
