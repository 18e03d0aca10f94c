/*
 * The seam to the hypervisor, chosen at link time: kvm/ implements it on Linux. What is above (vmm,
 * devices, snapshot) sees plain structures only.
 *
 * Order of use: open; create the VM; map all memory; make the interrupt controller (memory first: on
 * KVM a slot that is set after it costs an SRCU grace period); make the vCPUs; load boot registers or
 * saved state; run each vCPU from a thread of its own.
 *
 * Threads: a vCPU's functions are called by the thread that was bound to it, or by any thread while no
 * thread runs it (parked or not started). sm_hv_vcpu_kick and the counters may be used from any thread
 * at any time. A VM's map/unmap must not race with vCPUs that run (park them first); irqfds and
 * ioeventfds may be changed at any time.
 */
#ifndef SM_HYPERVISOR_H
#define SM_HYPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

struct sm_boot_regs;
struct sm_vcpu_state;

struct sm_hv;      /* the opened hypervisor: may be shared by all VMs of a process, immutable */
struct sm_hv_vm;   /* one VM */
struct sm_hv_vcpu; /* one vCPU */

/* ---- the hypervisor ----------------------------------------------------------------------- */

/* SM_EHYPERVISOR or SM_EPERM with a sentence that says what to do. */
int sm_hv_open(struct sm_hv **hv, sm_error *err);
void sm_hv_close(struct sm_hv *hv);

/* Identifies the CPU features that a guest sees; a snapshot may only be restored where it is equal.
 * Two machines with equal digests offer a guest the same instructions and state components. */
#define SM_CPU_DIGEST_BYTES 16
void sm_hv_cpu_digest(const struct sm_hv *hv, uint8_t digest[SM_CPU_DIGEST_BYTES]);

/* True where the guest kernel is emulated (environment without hardware virtualisation): found by a
 * self-test of a few instructions. */
int sm_hv_needs_assist(struct sm_hv *hv, bool *needed, sm_error *err);

/* ---- VMs ---------------------------------------------------------------------------------- */

/* `vcpus` (how many will be made) shapes the topology that CPUID tells the guest. */
int sm_hv_vm_create(struct sm_hv *hv, unsigned vcpus, struct sm_hv_vm **vm, sm_error *err);
/* All vCPUs must have been closed. The kernel may go on taking the VM down in the background. */
void sm_hv_vm_close(struct sm_hv_vm *vm);

/* Makes host memory [host, host + bytes) appear at gpa. The memory stays the caller's and must live as
 * long as the slot. Slots are numbered by the caller, 0..SM_HV_MAX_SLOTS-1, ranges must not overlap. */
#define SM_HV_MAX_SLOTS 64
int sm_hv_vm_map(struct sm_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t bytes,
    bool read_only, sm_error *err);
int sm_hv_vm_unmap(struct sm_hv_vm *vm, unsigned slot, sm_error *err);

/* The interrupt controllers (x86_64: PICs, IOAPIC, local APICs of vCPUs made later). */
int sm_hv_vm_create_irqchip(struct sm_hv_vm *vm, sm_error *err);

/* Ringing the bell (util/bell.h) whose descriptor is `fd` raises an edge on `gsi`. */
int sm_hv_vm_irqfd(struct sm_hv_vm *vm, int fd, unsigned gsi, sm_error *err);
int sm_hv_vm_irqfd_remove(struct sm_hv_vm *vm, int fd, unsigned gsi, sm_error *err);

/* A 32-bit guest store of `value` at gpa rings the bell of `fd` and does not exit. */
int sm_hv_vm_ioeventfd(struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err);
int sm_hv_vm_ioeventfd_remove(
    struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err);

/* The VM-wide interrupt-controller and clock state as one opaque blob (*blob is malloc'ed).
 * *clock_ns: the guest's clock (x86_64: kvmclock). All vCPUs parked. */
int sm_hv_vm_save(
    struct sm_hv_vm *vm, void **blob, size_t *bytes, uint64_t *clock_ns, sm_error *err);
/* After the vCPUs' states, before any vCPU runs. */
int sm_hv_vm_restore(struct sm_hv_vm *vm, const void *blob, size_t bytes, sm_error *err);
/* Likewise: the guest's clock goes on from where it stood at the save. */
int sm_hv_vm_set_clock(struct sm_hv_vm *vm, uint64_t clock_ns, sm_error *err);

/* ---- vCPUs -------------------------------------------------------------------------------- */

int sm_hv_vcpu_create(struct sm_hv_vm *vm, unsigned index, struct sm_hv_vcpu **vcpu, sm_error *err);
void sm_hv_vcpu_close(struct sm_hv_vcpu *vcpu);

/* Every vCPU before a boot: loads what the boot protocol wants (vCPU 0), or prepares one that the guest will
 * start (regs NULL). */
int sm_hv_vcpu_set_boot(struct sm_hv_vcpu *vcpu, const struct sm_boot_regs *regs, sm_error *err);

/* The whole state of a vCPU; no vCPU of the VM may be running. On failure of `get`, *state is empty. `set`
 * is for a vCPU that has never run. */
int sm_hv_vcpu_get_state(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err);
int sm_hv_vcpu_set_state(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err);

enum sm_hv_exit_kind {
    SM_HV_EXIT_INTR,      /* kicked, or nothing to do: run again */
    SM_HV_EXIT_MMIO,      /* access to no slot */
    SM_HV_EXIT_PIO,       /* x86_64 port access */
    SM_HV_EXIT_HALT,      /* halted for ever (no in-kernel interrupt controller would wake it) */
    SM_HV_EXIT_SHUTDOWN,  /* triple fault */
    SM_HV_EXIT_POWER_OFF, /* the guest asked the firmware interface (PSCI and the like) */
    SM_HV_EXIT_RESET,
    SM_HV_EXIT_CRASH,
    SM_HV_EXIT_KINDS,
};

struct sm_hv_exit {
    enum sm_hv_exit_kind kind;
    /* MMIO and PIO: `data` holds the bytes written, or takes the bytes read before the next run.
     * PIO: `count` accesses of `size` bytes each follow one another in data. */
    uint64_t address; /* gpa or port */
    uint8_t size;     /* 1, 2, 4 or 8 */
    uint32_t count;   /* 1 for MMIO */
    bool write;
    uint8_t *data;
};

/* Binds the calling thread to the vCPU: only it may run it from now on. The kick signal is blocked in
 * the thread. */
int sm_hv_vcpu_bind(struct sm_hv_vcpu *vcpu, sm_error *err);
/* The opposite, on the same thread; kicks go nowhere from now on. */
void sm_hv_vcpu_unbind(struct sm_hv_vcpu *vcpu);

/* Runs the guest until it exits to us. A failure (SM_EHYPERVISOR: internal error, unknown
 * instruction) is final for the VM. */
int sm_hv_vcpu_run(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err);

/* As run, but returns with SM_HV_EXIT_INTR before the first instruction of the guest, once what is
 * left of the last exit is done; needed before the state of a vCPU may be read. May yield another
 * MMIO or PIO exit first: handle it and call again. */
int sm_hv_vcpu_complete(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err);

/* Makes the current or, if none is going on, the next run return SM_HV_EXIT_INTR; never lost. */
void sm_hv_vcpu_kick(struct sm_hv_vcpu *vcpu);

/* Instructions that were completed for a hypervisor that cannot; see kvm/x86_64/assist.c. */
enum sm_hv_assist {
    SM_HV_ASSIST_INT3,
    SM_HV_ASSIST_POPCNT,
    SM_HV_ASSIST_LSL,
    SM_HV_ASSIST_CMPXCHG16B,
    SM_HV_ASSIST_XSAVE,
    SM_HV_ASSIST_XRSTOR,
    SM_HV_ASSIST_XCR, /* xgetbv, xsetbv */
    SM_HV_ASSIST_CLAC_STAC,
    SM_HV_ASSIST_FWAIT,
    SM_HV_ASSIST_SYSCALL, /* SYSCALL entries repaired */
    SM_HV_ASSIST_FAULT,   /* page faults and others injected on the way */
    SM_HV_ASSIST_KINDS,
};
const char *sm_hv_assist_name(enum sm_hv_assist kind);

/* Has the guest instructions that the hypervisor emulates counted, where it can tell. Before the vCPU runs;
 * some 20 us. */
void sm_hv_vcpu_count_instructions(struct sm_hv_vcpu *vcpu);

struct sm_hv_counters {
    uint64_t exits;        /* returns of run to user space */
    uint64_t instructions; /* emulated; 0: not counted */
    uint64_t by_kind[SM_HV_EXIT_KINDS];
    uint64_t assists[SM_HV_ASSIST_KINDS];
};
/* Adds the vCPU's counters to *sum; from any thread. */
void sm_hv_vcpu_add_counters(const struct sm_hv_vcpu *vcpu, struct sm_hv_counters *sum);

/* A line for error messages: where the vCPU stands ("RIP ..., CPL 0, ..."); parked vCPUs only. */
void sm_hv_vcpu_describe(struct sm_hv_vcpu *vcpu, char *text, size_t size);

#endif
