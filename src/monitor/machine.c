/* The machine's process: its life. See machine.h.
 *
 * System calls: poll, shutdown.
 * System calls before a list: rt_sigaction, capget, capset. */
#include "monitor/machine.h"

#include <errno.h>
#include <linux/capability.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "hypervisor/hypervisor.h"
#include "monitor/lost_file.h"
#include "monitor/machine_host.h"
#include "util/cleanup.h"
#include "util/error.h"

/* Once. */
static void tell_end(struct machine_host *h)
{
    struct sm_machine_end end;
    if (h->end_told || sm_machine_wait(h->machine, 0, &end, NULL))
        return;
    struct sm_machine_end_record record = {.how = end.how};
    memcpy(record.message, end.message, sizeof(record.message));
    sm_record_send(SM_MACHINE_END, &record, sizeof(record), NULL, 0);
    h->end_told = true;
}

/* False: the process is to end, in order. */
static bool answer_quick(struct machine_host *h, struct sm_machine_message *m)
{
    sm_error err;
    struct sm_machine_reply reply = {0};
    int rc = sm_machine_take(SM_MACHINE_QUICK, m, &err);
    if (rc > 0 || (!rc && m->request.call == SM_CALL_QUIT))
        return false;
    if (rc < 0)
        sm_machine_reply_failed(&reply, rc, &err);
    else
        sm_machine_host_quick(h, m, &reply);
    sm_machine_message_close(m);
    tell_end(h); /* before the answer to what may have caused it */
    return sm_machine_reply_send(SM_MACHINE_QUICK, &reply) == 0;
}

static void serve(struct machine_host *h, struct sm_machine_message *m)
{
    for (bool go_on = true; go_on;) {
        struct pollfd fds[] = {
            {.fd = SM_MACHINE_QUICK, .events = POLLIN},
            {.fd = SM_MACHINE_CLIENT, .events = POLLIN},
            {.fd = h->end_told ? -1 : sm_machine_end_fd(h->machine), .events = POLLIN},
        };
        if (poll(fds, 3, -1) < 0 && errno != EINTR)
            return;
        if (fds[2].revents)
            tell_end(h);
        if (fds[1].revents)
            _exit(0);
        go_on = !fds[0].revents || answer_quick(h, m);
    }
}

static void answer_life(void *arg)
{
    struct machine_host *h = arg;
    struct sm_machine_message *m = malloc(sizeof(*m));
    struct sm_machine_reply reply;
    sm_error err;
    int rc;
    while (m && (rc = sm_machine_take(SM_MACHINE_LIFE, m, &err)) <= 0) {
        reply = (struct sm_machine_reply){0};
        if (rc < 0)
            sm_machine_reply_failed(&reply, rc, &err);
        else
            sm_machine_host_life(h, m, &reply);
        sm_machine_message_close(m);
        if (sm_machine_reply_send(SM_MACHINE_LIFE, &reply))
            break;
    }
    free(m);
}

/* The first call; false: it failed, and that has been told. */
static bool start(struct machine_host *h, struct sm_machine_message *m)
{
    sm_error err;
    struct sm_machine_reply reply = {0};
    int rc = sm_machine_take(SM_MACHINE_LIFE, m, &err);
    if (rc > 0)
        return false;
    if (!rc)
        rc = sm_machine_host_start(h, m, &err);
    sm_machine_message_close(m);
    if (rc)
        sm_machine_reply_failed(&reply, rc, &err);
    return sm_machine_reply_send(SM_MACHINE_LIFE, &reply) == 0 && !rc &&
           sm_thread_start(&h->life, "life", answer_life, h, 0, NULL) == 0;
}

/* In order, when the client calls no more. It is quicker than to let the kernel do it, which waits
 * for what hypervisor/kvm/dispose.c does not. */
static void end(struct machine_host *h)
{
    shutdown(SM_MACHINE_LIFE, SHUT_RDWR);
    sm_thread_join(&h->life);
    sm_machine_host_free_captures(h);
    sm_lost_file_of(NULL);
    sm_machine_close(h->machine);
    sm_hv_close(h->hv);
}

/* Opened by somebody with CAP_SYS_ADMIN a page map tells where in the host's memory pages are,
 * which is of use to attacks on that memory; opened without, it says of each only what it is. */
static void open_page_sources(struct sm_page_sources *sources)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct had[_LINUX_CAPABILITY_U32S_3], less[_LINUX_CAPABILITY_U32S_3];
    bool known = syscall(SYS_capget, &head, had) == 0;
    for (int i = 0; known && i < _LINUX_CAPABILITY_U32S_3; i++) {
        less[i] = had[i];
        less[i].effective = 0;
    }
    if (known && syscall(SYS_capset, &head, less) == 0) {
        sm_page_sources_open(sources);
        syscall(SYS_capset, &head, had);
    } else {
        sources->pagemap = sources->maps = -1;
    }
}

int sm_machine_role(void)
{
    struct machine_host *h = calloc(1, sizeof(*h));
    struct sm_machine_message *m = malloc(sizeof(*m));
    if (!h || !m)
        return 1;
    for (int i = 0; i < SM_START_N_FDS; i++)
        h->fds[i] = -1;
    signal(SIGPIPE, SIG_IGN);
    sm_lost_file_watch();
    open_page_sources(&h->page_sources);
    if (start(h, m))
        serve(h, m);
    end(h);
    return 0;
}
