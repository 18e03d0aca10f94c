/*
 * Capturing a VM: the guest stands still while what it is made of is copied (take), and may run on
 * while a thread of the capture's own writes the file (write ... finish).
 */
#ifndef SM_VM_CAPTURE_H
#define SM_VM_CAPTURE_H

#include "snapshot/snapshot.h"
#include "util/file.h"
#include "vm/note.h"
#include "vm/vm.h"

struct sm_capture {
    struct sm_engine_capture *copy;
    struct sm_snapshot_listener *listeners; /* for the registry */
    uint32_t n_listeners;
    struct sm_partial file;
};

#define SM_CAPTURE_NONE ((struct sm_capture){.file = SM_PARTIAL_NONE})

/* Asks what listens in the guest, for the registry; *capture must be SM_CAPTURE_NONE. For captures
 * of guests in which something runs, when it is frozen. */
int sm_capture_listeners(struct sm_capture *capture, sm_vm *vm, sm_error *err);

/* Stops the VM and copies it; it stands still, and only this capture lets it go on, until
 * sm_capture_resume or clear (after a failure it runs). delta: only what differs from the snapshot
 * file that the VM was restored from. *capture must be SM_CAPTURE_NONE, but for its listeners.
 * note: state, pid, egress, asked; the rest is the VM's. */
int sm_capture_take(
    struct sm_capture *capture, sm_vm *vm, const struct sm_note *note, bool delta, sm_error *err);
int sm_capture_resume(struct sm_capture *capture, sm_error *err);

/* Begins to write the file; base_fd >= 0: as a difference from that snapshot. base_fd must stay
 * open until finish or clear. */
int sm_capture_write(struct sm_capture *capture, const char *path, int base_fd, sm_error *err);
/* Waits for the file, which then has its name. */
int sm_capture_finish(struct sm_capture *capture, sm_snapshot_stats *stats, sm_error *err);
/* Before the VM is freed. */
void sm_capture_clear(struct sm_capture *capture);

/* As sm_vm_snapshot of the public API. */
int sm_vm_capture(sm_vm *vm, const char *path, sm_snapshot_stats *stats, sm_error *err);

#endif
