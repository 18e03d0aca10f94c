/*
 * The machine: guest memory, vCPU threads, bus, devices, boot, pause and resume, and how it ended.
 *
 *     create -> boot -> (pause <-> resume)* -> wait/stop -> close
 *     create -> load -> start -> (pause <-> resume)* (from a snapshot file; create makes the shell)
 *
 * Threads: one per vCPU and one device thread (the event loop), owned and joined by the machine.
 * All functions may be called from any other thread, at the same time unless said otherwise; close
 * must be the last.
 */
#ifndef SM_VMM_MACHINE_H
#define SM_VMM_MACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

#include "hypervisor/hypervisor.h"

struct sm_machine;
struct sm_vsock;        /* devices/vsock/vsock.h */
struct sm_loop;         /* util/loop.h */
struct sm_snapshot;     /* snapshot/snapshot.h */
struct sm_ram;          /* snapshot/page_map.h */
struct sm_guest_clock;  /* util/guest_wait.h */
struct sm_machine_part; /* vmm/parts.h */
struct sm_page_sources; /* snapshot/page_map.h */

struct sm_machine_config {
    uint64_t memory_bytes;               /* multiple of 2 MiB, at least 32 MiB, at most 64 GiB */
    unsigned vcpus;                      /* 1..16 */
    const char *kernel;                  /* path of a vmlinux or bzImage; boot only */
    const char *initramfs;               /* path; NULL: none; boot only */
    bool count_instructions;             /* of the guest's, that KVM emulates; costs some 20 us */
    const char *cmdline;                 /* appended to the kernel command line; NULL: nothing */
    const struct sm_machine_part *parts; /* vmm/parts.h; borrowed until create has returned */
    unsigned n_parts;
    size_t console_bytes; /* of the console log that are kept; 0: 256 KiB */

    /* Both borrowed, and both only save time. `hv`: shared by several machines, must outlive them;
     * NULL: the machine opens its own (0.5 ms). `snapshot` with `snapshot_fd`: what will be loaded,
     * so that RAM is mapped right away; NULL: sm_machine_load maps it over. */
    struct sm_hv *hv;
    const struct sm_snapshot *snapshot;
    int snapshot_fd;
    const char *snapshot_name; /* for messages; NULL: not known */

    /* For a process that can open nothing: gives a descriptor of its own for each path that is
     * named here and in the parts, which is then only a name; or -1 with errno. NULL: open(2). */
    int (*open)(void *arg, const char *path);
    void *open_arg;
    const struct sm_page_sources *page_sources; /* likewise; must outlive the machine */

    /* For one that gives up what it has no need of: called on each vCPU's thread before it enters
     * the guest for the first time; a failure ends the machine. NULL: nothing. */
    int (*vcpu_begins)(sm_error *err);
};

/* Whether there can be such a machine; sm_machine_create asks, too. */
int sm_machine_check_shape(uint64_t memory_bytes, unsigned vcpus, sm_error *err);

/* Makes VM, memory, devices and vCPUs; nothing runs yet. Strings are copied. */
int sm_machine_create(
    struct sm_machine **machine, const struct sm_machine_config *config, sm_error *err);

/* Loads kernel and initramfs; sm_machine_start then runs it. */
int sm_machine_load_kernel(struct sm_machine *machine, sm_error *err);
/* Both; returns as soon as the vCPUs run. */
int sm_machine_boot(struct sm_machine *machine, sm_error *err);

/* How the machine ended; message is one sentence and, for all but POWERED_OFF and KILLED, is
 * followed by the last lines of the console. */
struct sm_machine_end {
    enum sm_vm_end how; /* SM_VM_RUNNING: has not ended */
    char message[1024];
};

/* Waits for the end; -SM_ETIMEOUT if the machine runs on after timeout_ms (negative: no limit). */
int sm_machine_wait(
    struct sm_machine *machine, int timeout_ms, struct sm_machine_end *end, sm_error *err);

/* A descriptor that polls readable once the machine has ended (stays the machine's). */
int sm_machine_end_fd(const struct sm_machine *machine);

/* A guest that halts, or powers off what has no power switch, resets its devices and then stands
 * still for ever. True: that is so here, and the machine has ended, SM_VM_POWERED_OFF. */
bool sm_machine_end_halted(struct sm_machine *machine);

/* Ends it now: SM_VM_KILLED unless it has ended already. All threads have stopped afterwards. */
void sm_machine_kill(struct sm_machine *machine);

/* Kills, joins, frees. NULL is fine. */
void sm_machine_close(struct sm_machine *machine);

/* A pause, which is its owner's: only he ends it, and the machine runs again when the last one has
 * ended: nobody lets a guest go on whose RAM somebody else copies. All zero: there is none. The
 * machine's functions alone look into it. */
struct sm_pause {
    bool held;
};

/* Stops all vCPUs between two instructions and lets the device thread finish what it does; within a
 * second, or -SM_ETIMEOUT and everything runs on. -SM_EINVAL: this pause is there already, or is
 * not. */
int sm_machine_pause(struct sm_machine *machine, struct sm_pause *pause, sm_error *err);
int sm_machine_resume(struct sm_machine *machine, struct sm_pause *pause, sm_error *err);
bool sm_machine_is_paused(struct sm_machine *machine, const struct sm_pause *pause);

/* ---- snapshots ---- */

/* Everything of a paused machine but its RAM, as the snapshot file holds it. Build ids of kernel,
 * agent and root filesystem, the note and listeners are the caller's to fill in. */
int sm_machine_save(struct sm_machine *machine, struct sm_snapshot **snapshot, sm_error *err);

/* Guest RAM for the snapshot writers; valid until close. After a load its descriptor is our own of
 * the snapshot file. Its contents stand still only while the machine is paused. */
void sm_machine_ram(const struct sm_machine *machine, struct sm_ram *ram);

struct sm_machine_load_times { /* microseconds of each step */
    uint64_t ram_map, vcpu_restore, irqchip_restore, clock, device_restore, total;
};

/* Puts a snapshot into a machine that was created with the same configuration and has not run: RAM
 * is mapped from the file (descriptor `fd`, which may be closed afterwards) copy-on-write, state is
 * put back, connections of the guest are reset. sm_machine_start then runs it. Refused with
 * -SM_EUNSUPPORTED: another architecture, CPU feature set or VMM build, RAM size, number of vCPUs,
 * or other devices. After a failure the machine can only be closed. `times` may be NULL. */
int sm_machine_load(struct sm_machine *machine, int fd, const struct sm_snapshot *snapshot,
    struct sm_machine_load_times *times, sm_error *err);
/* Lets a machine run for the first time that a snapshot or a kernel was loaded into. */
int sm_machine_start(struct sm_machine *machine, sm_error *err);

/* Identifies the code of this library, in whatever program it is: snapshots are good for the code
 * that made them (scripts/build-id.sh). */
#define SM_VMM_BUILD_ID_BYTES 32
extern const uint8_t sm_vmm_build_id[SM_VMM_BUILD_ID_BYTES];

/* ---- looking at it ---- */

/* The vsock device, NULL if no part is one (connect to guest ports, listen for the guest's); see
 * devices/vsock/vsock.h. */
struct sm_vsock *sm_machine_vsock(struct sm_machine *machine);
/* The device thread's event loop. */
struct sm_loop *sm_machine_loop(struct sm_machine *machine);

/* As sm_vm_console of the public API. */
size_t sm_machine_console(const struct sm_machine *machine, char *buf, size_t size);
/* Its last lines that fit, for a message: nothing in them is more than text (util/text.h); "" if
 * there are none. */
void sm_machine_last_lines(const struct sm_machine *machine, char *buf, size_t size);

/* The name of a file that is mapped (the snapshot, parts' files) and has become shorter than it
 * was; NULL: none has. Safe in a signal's handler. */
const char *sm_machine_lost_file(const struct sm_machine *machine);

struct sm_machine_timing { /* CLOCK_MONOTONIC ns; 0: not reached */
    uint64_t start_ns;     /* sm_machine_create was called */
    uint64_t created_ns;
    uint64_t loaded_ns;
    uint64_t entered_ns; /* vCPU 0 entered the guest */
};
void sm_machine_get_timing(struct sm_machine *machine, struct sm_machine_timing *timing);
void sm_machine_get_counters(const struct sm_machine *machine, struct sm_hv_counters *counters);

/* The guest's time, as its vCPU threads spend it; lives as long as the machine. Of no machine:
 * NULL. */
const struct sm_guest_clock *sm_machine_clock(const struct sm_machine *machine);

#endif
