/*
 * Capturing a VM: the guest stands still while what it is made of is copied (take), and may run on while a
 * thread of the capture's own writes the file (write ... finish).
 */
#ifndef SM_VM_CAPTURE_H
#define SM_VM_CAPTURE_H

#include "snapshot/writer.h"
#include "util/thread.h"
#include "vm/note.h"
#include "vm/vm.h"

struct sm_capture {
    sm_vm *vm;
    struct sm_pause pause; /* of the copy, until resume: nobody else ends it */
    struct sm_compact *compact;
    struct sm_snapshot *snapshot;
    struct sm_snapshot_listener *listeners; /* for the registry, until the snapshot has them */
    uint32_t n_listeners;
    sm_snapshot_stats stats;
    char *path;
    int base_fd;
    struct sm_thread thread;
    int rc; /* of the thread */
    sm_error error;
};

/* Asks what listens in the guest, for the registry; *capture must be all zero. For captures of guests in
 * which something runs, when it is frozen. */
int sm_capture_listeners(struct sm_capture *capture, sm_vm *vm, sm_error *err);

/* Pauses the VM, copies, and leaves it paused until sm_capture_resume (after a failure it runs). delta: only what differs from the
 * snapshot file that the VM was restored from. *capture must be all zero, but for its listeners. note: state, pid,
 * egress, asked; the rest is the VM's. */
int sm_capture_take(
    struct sm_capture *capture, sm_vm *vm, const struct sm_note *note, bool delta, sm_error *err);

int sm_capture_resume(struct sm_capture *capture, sm_error *err);

/* Begins to write the file; base_fd >= 0: as a difference from that snapshot. base_fd must stay open
 * until finish or clear. */
int sm_capture_write(struct sm_capture *capture, const char *path, int base_fd, sm_error *err);
/* Waits for the file. */
int sm_capture_finish(struct sm_capture *capture, sm_snapshot_stats *stats, sm_error *err);
void sm_capture_clear(struct sm_capture *capture); /* all zero is fine */

/* As sm_vm_snapshot of the public API. */
int sm_vm_capture(sm_vm *vm, const char *path, sm_snapshot_stats *stats, sm_error *err);

#endif
