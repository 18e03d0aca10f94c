/* Captures of the engine. See engine.h. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "snapshot/snapshot.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/engine_impl.h"

struct sm_engine_capture {
    struct sm_engine *engine;
    uint32_t id;
    int done; /* where the machine tells that it is written; -1: it is not being written */
};

static int ask(struct sm_engine_capture *c, struct sm_machine_message *m, sm_error *err)
{
    struct sm_machine_reply reply;
    m->request.capture.id = c->id;
    return sm_engine_call_life(c->engine, m, &reply, err);
}

static int add_label(
    struct sm_machine_message *m, const struct sm_engine_label *label, sm_error *err)
{
    const uint8_t *const ids[] = {label->kernel_id, label->agent_id, label->rootfs_id};
    int rc = 0;
    for (int i = 0; i < 3 && !rc; i++)
        rc = sm_machine_add(m, ids[i], SM_SNAPSHOT_ID_BYTES, err);
    if (!rc)
        rc = sm_machine_add(
            m, label->listeners, label->n_listeners * sizeof(*label->listeners), err);
    m->request.capture.n_listeners = label->n_listeners;
    return rc ? rc : sm_machine_add_text(m, label->note, err);
}

int sm_engine_capture(struct sm_engine *engine, const struct sm_engine_label *label, bool delta,
    struct sm_engine_capture **capture, sm_error *err)
{
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_CAPTURE, err);
    auto_free struct sm_engine_capture *c = calloc(1, sizeof(*c));
    struct sm_machine_reply reply;
    if (!m || !c)
        return sm_error_set(err, SM_ENOMEM, "no memory for a capture");
    c->engine = engine;
    c->done = -1;
    int rc = add_label(m, label, err);
    if (rc)
        return rc;
    m->request.capture.delta = delta;
    rc = sm_engine_call_life(engine, m, &reply, err);
    if (rc)
        return rc;
    c->id = reply.capture.id;
    *capture = sm_steal_ptr(&c);
    return 0;
}

int sm_engine_capture_resume(struct sm_engine_capture *c, sm_error *err)
{
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_CAPTURE_RESUME, err);
    return m ? ask(c, m, err) : -SM_ENOMEM;
}

int sm_engine_capture_write(
    struct sm_engine_capture *c, int fd, const char *name, int base_fd, sm_error *err)
{
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_CAPTURE_WRITE, err);
    int ends[2];
    int rc = m ? sm_machine_add_text(m, name, err) : -SM_ENOMEM;
    if (rc)
        return rc;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return sm_error_errno(err, errno, "cannot make a socket for the VM's machine");
    m->fds[m->n_fds++] = fd;
    m->fds[m->n_fds++] = ends[1];
    if (base_fd >= 0)
        m->fds[m->n_fds++] = base_fd;
    rc = ask(c, m, err);
    sm_close(ends[1]);
    if (rc)
        sm_close(ends[0]);
    else
        c->done = ends[0];
    return rc;
}

int sm_engine_capture_finish(struct sm_engine_capture *c, sm_snapshot_stats *stats, sm_error *err)
{
    struct sm_machine_reply reply;
    struct pollfd fds[] = {
        {.fd = c->done, .events = POLLIN}, {.fd = c->engine->pidfd, .events = POLLIN}};
    if (c->done < 0)
        return sm_error_set(err, SM_EINVAL, "the snapshot is not being written");
    int64_t deadline = sm_deadline(sm_engine_work_ms(c->engine));
    int n;
    while ((n = poll(fds, 2, sm_deadline_left(deadline))) < 0 && errno == EINTR)
        continue;
    if (n == 0)
        return sm_error_set(err, SM_ETIMEOUT,
            "the process that runs the VM does not say that it has written the snapshot");
    if (!fds[0].revents)
        return sm_engine_lost(
            c->engine, sm_error_set(err, SM_EGUEST, "the VM's machine has ended"), err);
    int rc = sm_engine_lost(c->engine, sm_machine_reply_take(c->done, &reply, err), err);
    sm_close(sm_steal_fd(&c->done));
    if (!rc && stats)
        *stats = reply.capture.stats;
    return rc;
}

void sm_engine_capture_free(struct sm_engine_capture *c)
{
    if (!c)
        return;
    sm_close(c->done);
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_CAPTURE_FREE, NULL);
    if (m)
        ask(c, m, NULL);
    free(c);
}
