/*
 * What a VM asks of its machine, and all that src/vm knows of it.
 *
 * The machine is in a process of its own ("supermachine-vm machine", monitor/machine.h), which is
 * started by boot or restore, asked by records over sockets (control/machine_call.h) and believed
 * nothing: a guest may have taken it over. What goes through here are plain values, texts and
 * descriptors (streams, files), never guest memory, a loop or a device; what happens by itself
 * shows as a descriptor that can be polled. There is one implementation at a time, so these are
 * functions and no table; tests replace them by the linker.
 *
 * An engine has no machine until boot or restore; before that only what is said so may be asked.
 * Any thread, at the same time; close is the last. Waits are the caller's (util/wait.h).
 */
#ifndef SM_VM_ENGINE_H
#define SM_VM_ENGINE_H

#include <supermachine.h>

#include "vm/config.h"

struct sm_engine;
struct sm_fingerprint;       /* util/fingerprint.h */
struct sm_guest_clock;       /* util/guest_wait.h */
struct sm_guest_link;        /* net/ports/guest_link.h */
struct sm_loop;              /* util/loop.h */
struct sm_page_set;          /* snapshot/page_map.h */
struct sm_snapshot_listener; /* snapshot/snapshot.h */
struct sm_wait;              /* util/wait.h */

/* ---- its beginning --------------------------------------------------------------------------- */

/* Opens the hypervisor. SM_EHYPERVISOR or SM_EPERM with a sentence that says what to do. */
int sm_engine_open(struct sm_engine **engine, sm_error *err);
/* Ends the machine if it runs, and frees. NULL is fine. */
void sm_engine_close(struct sm_engine *engine);

/* These need no machine. Guest kernels are emulated on this host: a small VM is run to find out. */
int sm_engine_is_emulated(struct sm_engine *engine, bool *emulated, sm_error *err);
/* Adds what a snapshot of this engine's fits only: the CPU's features, the build of the VMM, the
 * roles of the parts. */
void sm_engine_fingerprint(const struct sm_engine *engine, struct sm_fingerprint *f);
/* Whether there can be such a machine. */
int sm_engine_check_shape(uint64_t memory_bytes, unsigned vcpus, sm_error *err);

/* Pages of RAM, as the snapshot file has them. */
struct sm_engine_run {
    uint32_t page, n_pages;
};

/* What the network card is plugged into: the machine's end of a socket with its frames
 * (net/socket_backend.h), borrowed for the call; -1: nothing. */
struct sm_engine_card {
    int fd;
    bool speaks_first; /* as sm_socket_backend_create has it */
    uint8_t mac[6];
};

struct sm_engine_config {
    struct sm_vm_shape shape; /* settled; kernel and initramfs for a boot only */
    const char *rootfs;       /* path of the file system image */
    bool count_instructions;
    struct sm_engine_card card;
    /* Of a restore: pages that the guest is going to write soon, which become its own before it
     * runs. Only a hint. */
    const struct sm_engine_run *written;
    size_t n_written;
};

/* Returns as soon as the guest runs; its agent will connect (sm_engine_accept). */
int sm_engine_boot(struct sm_engine *engine, const struct sm_engine_config *config, sm_error *err);
/* From a snapshot file, which `fd` is, borrowed for the call; `path` for messages. SM_EUNSUPPORTED:
 * it does not fit this host or this configuration. */
int sm_engine_restore(struct sm_engine *engine, const struct sm_engine_config *config, int fd,
    const char *path, sm_error *err);
/* The card's socket is dead, this is another one; taken over. */
void sm_engine_replug(struct sm_engine *engine, int fd);

/* The pages that a restored guest has written so far, in set->changed; it stands still from now
 * on. *set is the caller's (sm_page_set_free). */
int sm_engine_written(struct sm_engine *engine, struct sm_page_set **set, sm_error *err);

/* ---- streams --------------------------------------------------------------------------------- */

/* All are blocking, close-on-exec stream sockets, the caller's. accept: the first connection that
 * the agent of a guest that boots makes, and when it came (as sm_now_ns); SM_EGUEST: the machine
 * has ended before; SM_ETIMEOUT. connect: to a vsock port that the guest listens on. It waits for
 * nothing: what is written waits for the guest, and that it refuses shows by the end of the
 * stream. */
int sm_engine_accept(
    struct sm_engine *engine, struct sm_wait *wait, int *fd, uint64_t *came_ns, sm_error *err);
int sm_engine_connect(struct sm_engine *engine, uint32_t port, int *fd, sm_error *err);
/* The guest has ended: what it has sent is delivered, then all streams end. */
void sm_engine_end_streams(struct sm_engine *engine);
/* Until the guest knows of the end of every stream: a snapshot without streams is restored without
 * a reset of them. */
void sm_engine_wait_quiet(struct sm_engine *engine, struct sm_wait *wait);

/* ---- its life -------------------------------------------------------------------------------- */

/* Waits for the end. 0: it has ended, and as SM_EGUEST *err says in a sentence how; else
 * -SM_ETIMEOUT, it runs on. Both may be NULL. */
int sm_engine_wait(
    struct sm_engine *engine, struct sm_wait *wait, enum sm_vm_end *how, sm_error *err);
/* Polls readable once it has ended; stays the engine's. */
int sm_engine_end_fd(const struct sm_engine *engine);
/* The guest stands still for ever, and that is an end, too: see vmm/machine.h. */
bool sm_engine_has_halted(struct sm_engine *engine);
void sm_engine_kill(struct sm_engine *engine);

/* Stops all vCPUs and devices, and lets them go on: the pause of the VM's user, of which there is
 * one. A capture has its own, and the guest runs only while there is none. SM_EINVAL: it is paused
 * already, or is not. */
int sm_engine_pause(struct sm_engine *engine, sm_error *err);
int sm_engine_resume(struct sm_engine *engine, sm_error *err);
bool sm_engine_is_paused(struct sm_engine *engine);

/* The guest's own time, for waits. NULL (of no engine, in tests): the clock. */
const struct sm_guest_clock *sm_engine_clock(struct sm_engine *engine);

/* ---- captures -------------------------------------------------------------------------------- */

/* What a snapshot says beside the machine's state. */
struct sm_engine_label {
    const uint8_t *kernel_id, *agent_id, *rootfs_id; /* SM_SNAPSHOT_ID_BYTES each */
    const struct sm_snapshot_listener *listeners;
    uint32_t n_listeners;
    const char *note; /* JSON */
};

/* A copy of a guest, which stood still while it was made and does until resume. It owns that pause:
 * nobody else can end it, and free does. */
struct sm_engine_capture;

/* delta: only what differs from the file that the machine was restored from, which the base of the
 * write must be then. */
int sm_engine_capture(struct sm_engine *engine, const struct sm_engine_label *label, bool delta,
    struct sm_engine_capture **capture, sm_error *err);
int sm_engine_capture_resume(struct sm_engine_capture *capture, sm_error *err);
/* Begins to write it, beside whatever the guest does, into the empty file `fd`, which can be read
 * and written and is whole on disk when finish says so; `name` for messages. base_fd >= 0: as a
 * difference from that snapshot. The descriptors must stay open until finish or free. */
int sm_engine_capture_write(
    struct sm_engine_capture *capture, int fd, const char *name, int base_fd, sm_error *err);
int sm_engine_capture_finish(
    struct sm_engine_capture *capture, sm_snapshot_stats *stats, sm_error *err);
void sm_engine_capture_free(struct sm_engine_capture *capture); /* NULL is fine */

/* ---- how it is reached ----------------------------------------------------------------------- */

/* The functions by which ports reach the guest, once there is a machine; they work until close. */
void sm_engine_link(struct sm_engine *engine, struct sm_loop *loop, struct sm_guest_link *link);

/* ---- looking at it --------------------------------------------------------------------------- */

/* As sm_vm_console of the public API. */
size_t sm_engine_console(const struct sm_engine *engine, char *buf, size_t size);
/* The console's last lines that fit, as text; "": there are none. */
void sm_engine_last_lines(const struct sm_engine *engine, char *buf, size_t size);
void sm_engine_get_counters(const struct sm_engine *engine, sm_vm_counters *counters);

struct sm_engine_timing {
    uint64_t created_ns, loaded_ns, entered_ns; /* as sm_now_ns; 0: not reached */
    /* of a restore, each step by itself */
    uint64_t ram_map_us, vcpu_restore_us, irqchip_restore_us, clock_us, device_restore_us;
};
void sm_engine_get_timing(const struct sm_engine *engine, struct sm_engine_timing *timing);

#endif
