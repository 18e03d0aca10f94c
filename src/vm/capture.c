/* Capturing a VM. See capture.h. */
#include "vm/capture.h"

#include <stdlib.h>
#include <string.h>

#include "snapshot/page_map.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/registry.h"
#include "vmm/machine.h"

static char *note_text(const sm_vm *vm, const struct sm_note *note)
{
    struct sm_note whole = *note;
    whole.digest = vm->image->info.digest;
    whole.source = vm->image->info.source;
    whole.network_moved = vm->network.moved;
    return sm_note_write(&whole);
}

static int copy_paused(struct sm_capture *c, sm_vm *vm, const struct sm_note *note, bool delta,
    const struct sm_ram *ram, sm_error *err)
{
    int rc = sm_machine_save(vm->machine, &c->snapshot, err);
    if (!rc)
        rc = sm_compact_capture(c->compact, ram, delta, NULL, err);
    if (rc)
        return rc;
    struct sm_snapshot *s = c->snapshot;
    memcpy(s->build.kernel, vm->files.kernel_id, sizeof(s->build.kernel));
    memcpy(s->build.agent, vm->files.agent_id, sizeof(s->build.agent));
    memcpy(s->build.rootfs, vm->files.rootfs_id, sizeof(s->build.rootfs));
    s->listeners = sm_steal_ptr(&c->listeners);
    s->n_listeners = c->n_listeners;
    s->note = note_text(vm, note);
    return s->note ? 0 : sm_error_set(err, SM_ENOMEM, "no memory for the snapshot's note");
}

int sm_capture_listeners(struct sm_capture *capture, sm_vm *vm, sm_error *err)
{
    struct sm_wire_sockets sockets;
    int rc = sm_vm_ask(vm, SM_WIRE_LISTENERS, NULL, SM_WIRE_SOCKETS, &sockets, 0, err);
    if (rc)
        return sm_error_prefix(err, rc, "cannot tell what listens in the guest");
    return sm_registry_make(&sockets, &capture->listeners, &capture->n_listeners, err);
}

int sm_capture_resume(struct sm_capture *capture, sm_error *err)
{
    return sm_machine_resume(capture->vm->machine, &capture->pause, err);
}

int sm_capture_take(
    struct sm_capture *capture, sm_vm *vm, const struct sm_note *note, bool delta, sm_error *err)
{
    struct sm_ram ram;
    capture->vm = vm;
    sm_machine_ram(vm->machine, &ram);
    int rc = sm_compact_new(ram.bytes, &capture->compact, err);
    if (!rc)
        rc = sm_compact_prepare(capture->compact, &ram, delta, err);
    if (rc)
        return rc;
    uint64_t begin = sm_now_ns();
    rc = sm_machine_pause(vm->machine, &capture->pause, err);
    if (rc)
        return rc;
    rc = copy_paused(capture, vm, note, delta, &ram, err);
    if (rc)
        sm_capture_resume(capture, NULL);
    capture->stats.pause_us = (sm_now_ns() - begin) / 1000;
    capture->stats.ram_bytes = ram.bytes;
    return rc;
}

static void write_file(void *arg)
{
    struct sm_capture *c = arg;
    const struct sm_snapshot_write_options options = {.ram_sums = true};
    struct sm_snapshot_write_stats stats = {0};
    uint64_t begin = sm_now_ns();
    if (c->base_fd >= 0)
        c->rc = sm_snapshot_save_diff(
            c->path, c->snapshot, c->compact, c->base_fd, &options, &stats, &c->error);
    else
        c->rc = sm_compact_save(c->path, c->snapshot, c->compact, &options, &stats, &c->error);
    c->stats.write_us = (sm_now_ns() - begin) / 1000;
    c->stats.data_bytes = stats.ram_data_bytes;
}

int sm_capture_write(struct sm_capture *capture, const char *path, int base_fd, sm_error *err)
{
    capture->base_fd = base_fd;
    capture->path = strdup(path);
    if (!capture->path)
        return sm_error_set(err, SM_ENOMEM, "no memory for a path");
    return sm_thread_start(&capture->thread, "snapshot", write_file, capture, 0, err);
}

int sm_capture_finish(struct sm_capture *capture, sm_snapshot_stats *stats, sm_error *err)
{
    sm_thread_join(&capture->thread);
    if (capture->rc) {
        if (err)
            *err = capture->error;
        return capture->rc;
    }
    if (stats)
        *stats = capture->stats;
    return 0;
}

void sm_capture_clear(struct sm_capture *capture)
{
    sm_thread_join(&capture->thread);
    sm_compact_free(capture->compact);
    sm_snapshot_free(capture->snapshot);
    free(capture->listeners);
    free(capture->path);
    *capture = (struct sm_capture){0};
}

/* Of a guest that is frozen; it is thawed. */
static int capture_frozen(struct sm_capture *capture, sm_vm *vm, sm_error *err)
{
    const struct sm_note note = {
        .state = "live", .pid = sm_vm_command_pid(vm), .egress = vm->egress};
    int rc = sm_capture_listeners(capture, vm, err);
    if (!rc)
        rc = sm_capture_take(capture, vm, &note, false, err);
    if (!rc)
        rc = sm_capture_resume(capture, err);
    if (!rc)
        return sm_vm_thaw(vm, err);
    sm_vm_thaw_shortly(vm);
    return rc;
}

static int capture_live(struct sm_capture *capture, sm_vm *vm, sm_error *err)
{
    pthread_rwlock_wrlock(&vm->capturing);
    int rc = sm_machine_is_paused(vm->machine, &vm->paused)
                 ? sm_error_set(err, SM_EINVAL,
                       "it is paused, and its agent has a part in it; resume it first")
                 : sm_vm_freeze(vm, err);
    if (!rc)
        rc = capture_frozen(capture, vm, err);
    pthread_rwlock_unlock(&vm->capturing);
    return rc;
}

int sm_vm_capture(sm_vm *vm, const char *path, sm_snapshot_stats *stats, sm_error *err)
{
    struct sm_capture capture = {0};
    int rc = capture_live(&capture, vm, err);
    if (!rc)
        rc = sm_capture_write(&capture, path, -1, err);
    if (!rc)
        rc = sm_capture_finish(&capture, stats, err);
    sm_capture_clear(&capture);
    return rc ? sm_error_prefix(err, rc, "cannot capture the VM '%s'", vm->name) : 0;
}
