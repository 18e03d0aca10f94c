/* Captures of a machine: copies of a guest that stood still while it was copied, and their writing,
 * each on a thread of its own beside the guest. See control/machine_call.h. */
#include <stdlib.h>
#include <string.h>

#include "monitor/machine_host.h"
#include "snapshot/snapshot.h"
#include "snapshot/writer.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"

struct capture {
    struct sm_machine *machine;
    struct sm_pause pause; /* from the copy to resume */
    struct sm_compact *compact;
    struct sm_snapshot *snapshot;
    sm_snapshot_stats stats;
    /* of the thread that writes: */
    struct sm_thread thread;
    int fd, done, base_fd; /* -1: none */
    char *name;
};

static void capture_free(struct capture *c)
{
    if (!c)
        return;
    sm_thread_join(&c->thread);
    if (sm_machine_is_paused(c->machine, &c->pause))
        sm_machine_resume(c->machine, &c->pause, NULL);
    sm_compact_free(c->compact);
    sm_snapshot_free(c->snapshot);
    sm_close(c->fd);
    sm_close(c->done);
    sm_close(c->base_fd);
    free(c->name);
    free(c);
}

/* ---- the copy -------------------------------------------------------------------------------- */

/* The label: three digests, listeners, the note. */
static int put_label(struct sm_snapshot *s, const struct sm_machine_message *m, sm_error *err)
{
    size_t ids = 3 * SM_SNAPSHOT_ID_BYTES;
    size_t bytes = (size_t)m->request.capture.n_listeners * sizeof(*s->listeners);
    const uint8_t *id = sm_machine_body(m, 0, ids);
    const void *listeners = sm_machine_body(m, ids, bytes);
    const char *note;
    if (!id || !listeners || !sm_machine_texts(m, ids + bytes, &note, 1))
        return sm_error_set(err, SM_EPROTOCOL, "the label of a capture is cut short");
    memcpy(s->build.kernel, id, SM_SNAPSHOT_ID_BYTES);
    memcpy(s->build.agent, id + SM_SNAPSHOT_ID_BYTES, SM_SNAPSHOT_ID_BYTES);
    memcpy(s->build.rootfs, id + (size_t)2 * SM_SNAPSHOT_ID_BYTES, SM_SNAPSHOT_ID_BYTES);
    s->note = strdup(note);
    s->listeners = bytes ? malloc(bytes) : NULL;
    if (!s->note || (bytes && !s->listeners))
        return sm_error_set(err, SM_ENOMEM, "no memory for the snapshot's note");
    if (bytes)
        memcpy(s->listeners, listeners, bytes);
    s->n_listeners = m->request.capture.n_listeners;
    return 0;
}

/* While the guest stands still. */
static int copy(
    struct capture *c, const struct sm_machine_message *m, const struct sm_ram *ram, sm_error *err)
{
    int rc = sm_machine_save(c->machine, &c->snapshot, err);
    if (!rc)
        rc = sm_compact_capture(c->compact, ram, m->request.capture.delta, NULL, err);
    return rc ? rc : put_label(c->snapshot, m, err);
}

static int take(struct capture *c, const struct sm_machine_message *m, sm_error *err)
{
    struct sm_ram ram;
    sm_machine_ram(c->machine, &ram);
    int rc = sm_compact_new(ram.bytes, &c->compact, err);
    if (!rc)
        rc = sm_compact_prepare(c->compact, &ram, m->request.capture.delta, err);
    if (rc)
        return rc;
    uint64_t begin = sm_now_ns();
    rc = sm_machine_pause(c->machine, &c->pause, err);
    if (!rc)
        rc = copy(c, m, &ram, err);
    c->stats.pause_us = (sm_now_ns() - begin) / 1000;
    c->stats.ram_bytes = ram.bytes;
    return rc;
}

static int capture(struct machine_host *h, const struct sm_machine_message *m,
    struct sm_machine_reply *reply, sm_error *err)
{
    uint32_t id = 0;
    while (id < SM_MACHINE_CAPTURES && h->captures[id])
        id++;
    if (id == SM_MACHINE_CAPTURES)
        return sm_error_set(err, SM_EBUSY,
            "%d snapshots of the VM are being written already; wait for one", SM_MACHINE_CAPTURES);
    struct capture *c = calloc(1, sizeof(*c));
    if (!c)
        return sm_error_set(err, SM_ENOMEM, "no memory for a capture");
    c->machine = h->machine;
    c->fd = c->done = c->base_fd = -1;
    int rc = take(c, m, err);
    if (rc) {
        capture_free(c);
        return rc;
    }
    h->captures[id] = c;
    reply->capture.id = id;
    return 0;
}

/* ---- the file -------------------------------------------------------------------------------- */

static void write_file(void *arg)
{
    struct capture *c = arg;
    const struct sm_snapshot_write_options options = {.ram_sums = true, .fd = &c->fd};
    struct sm_snapshot_write_stats stats = {0};
    struct sm_machine_reply reply = {0};
    sm_error err;
    uint64_t begin = sm_now_ns();
    int rc = c->base_fd >= 0
                 ? sm_snapshot_save_diff(
                       c->name, c->snapshot, c->compact, c->base_fd, &options, &stats, &err)
                 : sm_compact_save(c->name, c->snapshot, c->compact, &options, &stats, &err);
    c->stats.write_us = (sm_now_ns() - begin) / 1000;
    c->stats.data_bytes = stats.ram_data_bytes;
    reply.capture.stats = c->stats;
    if (rc)
        sm_machine_reply_failed(&reply, rc, &err);
    sm_machine_reply_send(c->done, &reply);
}

static int begin_write(struct capture *c, struct sm_machine_message *m, sm_error *err)
{
    const char *name;
    if (m->n_fds < 2 || m->n_fds > 3 || c->fd >= 0 || !sm_machine_texts(m, 0, &name, 1))
        return sm_error_set(err, SM_EPROTOCOL, "a capture cannot be written to what was given");
    c->name = strdup(name);
    if (!c->name)
        return sm_error_set(err, SM_ENOMEM, "no memory for a path");
    c->fd = sm_steal_fd(&m->fds[0]);
    c->done = sm_steal_fd(&m->fds[1]);
    if (m->n_fds == 3)
        c->base_fd = sm_steal_fd(&m->fds[2]);
    return sm_thread_start(&c->thread, "snapshot", write_file, c, 0, err);
}

static int of_capture(struct machine_host *h, struct sm_machine_message *m, sm_error *err)
{
    uint32_t id = m->request.capture.id;
    struct capture *c = id < SM_MACHINE_CAPTURES ? h->captures[id] : NULL;
    if (!c)
        return sm_error_set(err, SM_EPROTOCOL, "there is no such capture");
    switch (m->request.call) {
    case SM_CALL_CAPTURE_RESUME:
        return sm_machine_resume(c->machine, &c->pause, err);
    case SM_CALL_CAPTURE_WRITE:
        return begin_write(c, m, err);
    default:
        capture_free(c);
        h->captures[id] = NULL;
        return 0;
    }
}

void sm_machine_host_free_captures(struct machine_host *h)
{
    for (uint32_t id = 0; id < SM_MACHINE_CAPTURES; id++) {
        capture_free(h->captures[id]);
        h->captures[id] = NULL;
    }
}

void sm_machine_host_capture(
    struct machine_host *h, struct sm_machine_message *m, struct sm_machine_reply *reply)
{
    sm_error err;
    int rc =
        m->request.call == SM_CALL_CAPTURE ? capture(h, m, reply, &err) : of_capture(h, m, &err);
    if (rc)
        sm_machine_reply_failed(reply, rc, &err);
}
