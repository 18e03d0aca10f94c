/* Capturing a VM. See capture.h. */
#include "vm/capture.h"

#include <fcntl.h>
#include <stdlib.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "vm/registry.h"

static char *note_text(const sm_vm *vm, const struct sm_note *note)
{
    struct sm_note whole = *note;
    whole.digest = vm->image->info.digest;
    whole.source = vm->image->info.source;
    whole.network_moved = vm->network.moved;
    whole.resolver_told = vm->network.told;
    return sm_note_write(&whole);
}

int sm_capture_listeners(struct sm_capture *capture, sm_vm *vm, sm_error *err)
{
    struct sm_wire_sockets sockets; /* points into the channel */
    struct sm_channel channel;
    struct sm_guest_wait w;
    const struct sm_card_addresses card = sm_vm_network_card(&vm->network);
    sm_vm_begin_wait(vm, &w, 0);
    int rc = sm_vm_channel(vm, &channel, err);
    if (!rc) {
        rc = sm_channel_ask(
            &channel, SM_WIRE_LISTENERS, NULL, SM_WIRE_SOCKETS, &sockets, &w.wait, err);
        if (!rc)
            rc = sm_registry_make(&sockets, &card, &capture->listeners, &capture->n_listeners, err);
        sm_channel_close(&channel);
    }
    return rc ? sm_error_prefix(err, rc, "cannot tell what listens in the guest") : 0;
}

int sm_capture_take(
    struct sm_capture *capture, sm_vm *vm, const struct sm_note *note, bool delta, sm_error *err)
{
    auto_free char *text = note_text(vm, note);
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "no memory for the snapshot's note");
    const struct sm_engine_label label = {
        .kernel_id = vm->files.kernel_id,
        .agent_id = vm->files.agent_id,
        .rootfs_id = vm->files.rootfs_id,
        .listeners = capture->listeners,
        .n_listeners = capture->n_listeners,
        .note = text,
    };
    return sm_engine_capture(vm->engine, &label, delta, &capture->copy, err);
}

int sm_capture_resume(struct sm_capture *capture, sm_error *err)
{
    return sm_engine_capture_resume(capture->copy, err);
}

int sm_capture_write(struct sm_capture *capture, const char *path, int base_fd, sm_error *err)
{
    struct sm_partial *file = &capture->file;
    int rc = sm_partial_open(file, AT_FDCWD, path, NULL, err);
    return rc ? rc : sm_engine_capture_write(capture->copy, file->fd, file->partial, base_fd, err);
}

int sm_capture_finish(struct sm_capture *capture, sm_snapshot_stats *stats, sm_error *err)
{
    int rc = sm_engine_capture_finish(capture->copy, stats, err);
    return rc ? rc : sm_partial_commit(&capture->file, SM_PARTIAL_SYNC_ALL, err);
}

void sm_capture_clear(struct sm_capture *capture)
{
    sm_engine_capture_free(capture->copy);
    sm_partial_close(&capture->file);
    free(capture->listeners);
    *capture = SM_CAPTURE_NONE;
}

/* Of a guest that is frozen; it is thawed. */
static int capture_frozen(struct sm_capture *capture, sm_vm *vm, sm_error *err)
{
    struct sm_note note = {.state = "live", .egress = vm->egress};
    note.pid = sm_vm_command(vm, &note.stop_signal, &note.terminal);
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

static int can_be_captured(sm_vm *vm, sm_error *err)
{
    if (sm_engine_is_paused(vm->engine))
        return sm_error_set(
            err, SM_EINVAL, "it is paused, and its agent has a part in it; resume it first");
    if (sm_vm_awaits_taking(vm))
        return sm_error_set(err, SM_EINVAL,
            "its own command was not taken yet, so a restore could not go on with it; take it first");
    return 0;
}

static int capture_live(struct sm_capture *capture, sm_vm *vm, sm_error *err)
{
    pthread_rwlock_wrlock(&vm->capturing);
    int rc = can_be_captured(vm, err);
    if (!rc)
        rc = sm_vm_freeze(vm, err);
    if (!rc)
        rc = capture_frozen(capture, vm, err);
    pthread_rwlock_unlock(&vm->capturing);
    return rc;
}

int sm_vm_capture(sm_vm *vm, const char *path, sm_snapshot_stats *stats, sm_error *err)
{
    struct sm_capture capture = SM_CAPTURE_NONE;
    int rc = capture_live(&capture, vm, err);
    if (!rc)
        rc = sm_capture_write(&capture, path, -1, err);
    if (!rc)
        rc = sm_capture_finish(&capture, stats, err);
    sm_capture_clear(&capture);
    return rc ? sm_error_prefix(err, rc, "cannot capture the VM '%s'", vm->name) : 0;
}
