/* Captures of the engine. See engine.h. */
#include <stdlib.h>
#include <string.h>

#include "snapshot/page_map.h"
#include "snapshot/snapshot.h"
#include "snapshot/writer.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/thread.h"
#include "vm/engine_impl.h"

struct sm_engine_capture {
    struct sm_machine *machine;
    struct sm_pause pause; /* from the copy to resume */
    struct sm_compact *compact;
    struct sm_snapshot *snapshot;
    sm_snapshot_stats stats;
    /* of the thread that writes: */
    struct sm_thread thread;
    int fd, base_fd;
    char *name;
    int rc; /* of the thread */
    sm_error error;
};

static int put_label(struct sm_snapshot *s, const struct sm_engine_label *label, sm_error *err)
{
    memcpy(s->build.kernel, label->kernel_id, sizeof(s->build.kernel));
    memcpy(s->build.agent, label->agent_id, sizeof(s->build.agent));
    memcpy(s->build.rootfs, label->rootfs_id, sizeof(s->build.rootfs));
    size_t bytes = label->n_listeners * sizeof(*s->listeners);
    s->note = strdup(label->note);
    s->listeners = bytes ? malloc(bytes) : NULL;
    if (!s->note || (bytes && !s->listeners))
        return sm_error_set(err, SM_ENOMEM, "no memory for the snapshot's note");
    if (bytes)
        memcpy(s->listeners, label->listeners, bytes);
    s->n_listeners = label->n_listeners;
    return 0;
}

/* While the guest stands still. */
static int copy(struct sm_engine_capture *c, const struct sm_engine_label *label, bool delta,
    const struct sm_ram *ram, sm_error *err)
{
    int rc = sm_machine_save(c->machine, &c->snapshot, err);
    if (!rc)
        rc = sm_compact_capture(c->compact, ram, delta, NULL, err);
    return rc ? rc : put_label(c->snapshot, label, err);
}

static int take(
    struct sm_engine_capture *c, const struct sm_engine_label *label, bool delta, sm_error *err)
{
    struct sm_ram ram;
    sm_machine_ram(c->machine, &ram);
    int rc = sm_compact_new(ram.bytes, &c->compact, err);
    if (!rc)
        rc = sm_compact_prepare(c->compact, &ram, delta, err);
    if (rc)
        return rc;
    uint64_t begin = sm_now_ns();
    rc = sm_machine_pause(c->machine, &c->pause, err);
    if (!rc)
        rc = copy(c, label, delta, &ram, err);
    c->stats.pause_us = (sm_now_ns() - begin) / 1000;
    c->stats.ram_bytes = ram.bytes;
    return rc;
}

int sm_engine_capture(struct sm_engine *engine, const struct sm_engine_label *label, bool delta,
    struct sm_engine_capture **capture, sm_error *err)
{
    struct sm_engine_capture *c = calloc(1, sizeof(*c));
    if (!c)
        return sm_error_set(err, SM_ENOMEM, "no memory for a capture");
    c->machine = engine->machine;
    int rc = take(c, label, delta, err);
    if (rc)
        sm_engine_capture_free(c);
    else
        *capture = c;
    return rc;
}

int sm_engine_capture_resume(struct sm_engine_capture *c, sm_error *err)
{
    return sm_machine_resume(c->machine, &c->pause, err);
}

static void write_file(void *arg)
{
    struct sm_engine_capture *c = arg;
    const struct sm_snapshot_write_options options = {.ram_sums = true, .fd = &c->fd};
    struct sm_snapshot_write_stats stats = {0};
    uint64_t begin = sm_now_ns();
    if (c->base_fd >= 0)
        c->rc = sm_snapshot_save_diff(
            c->name, c->snapshot, c->compact, c->base_fd, &options, &stats, &c->error);
    else
        c->rc = sm_compact_save(c->name, c->snapshot, c->compact, &options, &stats, &c->error);
    c->stats.write_us = (sm_now_ns() - begin) / 1000;
    c->stats.data_bytes = stats.ram_data_bytes;
}

int sm_engine_capture_write(
    struct sm_engine_capture *c, int fd, const char *name, int base_fd, sm_error *err)
{
    c->fd = fd;
    c->base_fd = base_fd;
    c->name = strdup(name);
    if (!c->name)
        return sm_error_set(err, SM_ENOMEM, "no memory for a path");
    return sm_thread_start(&c->thread, "snapshot", write_file, c, 0, err);
}

int sm_engine_capture_finish(struct sm_engine_capture *c, sm_snapshot_stats *stats, sm_error *err)
{
    sm_thread_join(&c->thread);
    if (c->rc) {
        if (err)
            *err = c->error;
        return c->rc;
    }
    if (stats)
        *stats = c->stats;
    return 0;
}

void sm_engine_capture_free(struct sm_engine_capture *c)
{
    if (!c)
        return;
    sm_thread_join(&c->thread);
    if (sm_machine_is_paused(c->machine, &c->pause))
        sm_machine_resume(c->machine, &c->pause, NULL);
    sm_compact_free(c->compact);
    sm_snapshot_free(c->snapshot);
    free(c->name);
    free(c);
}
