/*
 * The seam to the hypervisor, chosen at link time: kvm/ implements it on Linux, stub/ answers "not
 * here" to everything. What is above (vmm, snapshot) sees plain structures only, and nothing in
 * them is of one architecture: registers are lists of (id, value) that arch/ and the hypervisor
 * understand, chips are an opaque blob.
 *
 * Order of use: open; create the VM; map all memory; make the CPUs; load a state into each; run
 * each from a thread of its own. Memory comes first because on KVM a slot that is set after the
 * interrupt controllers costs an SRCU grace period. In which order chips and vCPUs are made is the
 * hypervisor's business: an x86_64 vCPU wants the chips before it, a GICv3 wants all vCPUs before
 * it.
 *
 * Threads. There are hypervisors whose vCPU belongs to one thread of the process, which makes it,
 * reads it, writes it and runs it, and others that do not care. The contract fits both:
 *   - sm_hv_vm_make_cpus only promises n vCPUs. Each is there for good once its own thread has
 *     called sm_hv_vcpu_bind; from then on only that thread may run it, until it unbinds it.
 *   - state is read and written by the vCPU's own thread while it does not run, or, where
 *     sm_hv_state_from_any_thread says so (KVM), by any thread while no vCPU of the VM runs. vmm
 *     asks once, through one function (vmm/vcpus.c), so nothing else above has to know.
 *   - kick, the counters and raise are for any thread at any time. describe is for the vCPU's own.
 *   - map and unmap must not race with vCPUs that run (park them first); irqfds and ioeventfds may
 *     come and go at any time.
 *
 * Interrupts are edges. A device rings a bell. Where a hypervisor hears it (sm_hv_vm_irqfd), nobody
 * of ours is in between; one that answers SM_EUNSUPPORTED gets its interrupts by sm_hv_vm_raise,
 * from the thread that hears the bell instead (the machine's loop). Of the two at least one is
 * there. Doorbells likewise: where sm_hv_vm_ioeventfd is SM_EUNSUPPORTED, the store exits as any
 * other and the bus rings.
 *
 * "Not here" is -SM_EUNSUPPORTED with a sentence, from every function that can fail; callers that
 * have another way (the two above) take it, for all others it is the end of what they do. Every
 * other failure is that of this VM.
 */
#ifndef SM_HYPERVISOR_H
#define SM_HYPERVISOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

struct sm_vcpu_state;

struct sm_hv;      /* the opened hypervisor: may be shared by all VMs of a process, immutable */
struct sm_hv_vm;   /* one VM */
struct sm_hv_vcpu; /* one vCPU; belongs to its VM */

/* ---- the hypervisor ----------------------------------------------------------------------- */

/* SM_EHYPERVISOR or SM_EPERM with a sentence that says what to do. */
int sm_hv_open(struct sm_hv **hv, sm_error *err);
/* Of a descriptor of it, which was opened elsewhere and is taken over in any case. */
int sm_hv_adopt(int fd, struct sm_hv **hv, sm_error *err);
/* Its descriptor, for another process to adopt; it stays here. -1: it has none. */
int sm_hv_fd(const struct sm_hv *hv);
void sm_hv_close(struct sm_hv *hv);

/* Identifies the CPU features that a guest sees; a snapshot may only be restored where it is equal.
 * Two machines with equal digests offer a guest the same instructions and state components. */
#define SM_CPU_DIGEST_BYTES 16
void sm_hv_cpu_digest(const struct sm_hv *hv, uint8_t digest[SM_CPU_DIGEST_BYTES]);

/* True where the guest kernel is emulated (environment without hardware virtualisation): found by a
 * self-test of a few instructions. */
int sm_hv_needs_assist(struct sm_hv *hv, bool *needed, sm_error *err);

/* False: a vCPU's state is for its own thread alone. */
bool sm_hv_state_from_any_thread(const struct sm_hv *hv);

/* ---- VMs ---------------------------------------------------------------------------------- */

int sm_hv_vm_create(struct sm_hv *hv, struct sm_hv_vm **vm, sm_error *err);
/* With its vCPUs, which no thread may be bound to any more. The kernel may go on taking the VM down
 * in the background. */
void sm_hv_vm_close(struct sm_hv_vm *vm);

/* Makes host memory [host, host + bytes) appear at gpa. The memory stays the caller's and must live
 * as long as the slot. Slots are numbered by the caller, 0..SM_HV_MAX_SLOTS-1, ranges must not
 * overlap. */
#define SM_HV_MAX_SLOTS 64
int sm_hv_vm_map(struct sm_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t bytes,
    bool read_only, sm_error *err);
int sm_hv_vm_unmap(struct sm_hv_vm *vm, unsigned slot, sm_error *err);

/* vCPUs 0..n-1 (n tells each what topology it is in) and the interrupt controllers. Once per VM. */
int sm_hv_vm_make_cpus(struct sm_hv_vm *vm, unsigned n, sm_error *err);
struct sm_hv_vcpu *sm_hv_vm_vcpu(struct sm_hv_vm *vm, unsigned index);

/* Ringing the bell (util/bell.h) whose descriptor is `fd` raises an edge on interrupt `irq`. */
int sm_hv_vm_irqfd(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err);
int sm_hv_vm_irqfd_remove(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err);
/* An edge on `irq`, for those that have no irqfd. */
int sm_hv_vm_raise(struct sm_hv_vm *vm, unsigned irq, sm_error *err);

/* A 32-bit guest store of `value` at gpa rings the bell of `fd` and does not exit. */
int sm_hv_vm_ioeventfd(struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err);
int sm_hv_vm_ioeventfd_remove(
    struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err);

/* The VM-wide interrupt-controller and clock state as one opaque blob (*blob is malloc'ed).
 * *clock_ns: the guest's clock. All vCPUs parked. */
int sm_hv_vm_save(
    struct sm_hv_vm *vm, void **blob, size_t *bytes, uint64_t *clock_ns, sm_error *err);
/* After the vCPUs' states, before any vCPU runs. */
int sm_hv_vm_restore(struct sm_hv_vm *vm, const void *blob, size_t bytes, sm_error *err);
/* Likewise: the guest's clock goes on from where it stood at the save. */
int sm_hv_vm_set_clock(struct sm_hv_vm *vm, uint64_t clock_ns, sm_error *err);

/* ---- vCPUs -------------------------------------------------------------------------------- */

/* The whole state of a vCPU; no vCPU of the VM may be running. On failure of `get`, *state is
 * empty. `set` is for a vCPU that has never run: every vCPU needs one before it does, a saved state
 * (all that `get` told, or SM_ECORRUPT) or a first one (sm_vcpu_state_is_first): of vCPU 0 the gp
 * list that the boot protocol wants, of those that the guest starts by itself nothing. What a first
 * state does not say is as after a reset. */
int sm_hv_vcpu_get_state(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err);
int sm_hv_vcpu_set_state(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err);

enum sm_hv_exit_kind {
    SM_HV_EXIT_INTR,      /* kicked, or nothing to do: run again */
    SM_HV_EXIT_MMIO,      /* access to no slot */
    SM_HV_EXIT_PIO,       /* access to an I/O port, where the architecture has such */
    SM_HV_EXIT_HALT,      /* halted for ever (no in-kernel interrupt controller would wake it) */
    SM_HV_EXIT_SHUTDOWN,  /* the CPU cannot go on (x86_64: triple fault) */
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

/* Binds the calling thread to the vCPU: only it may run it from now on. The kick signal is blocked
 * in the thread. */
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

/* Has the guest instructions that the hypervisor emulates counted, where it can tell. Before the
 * vCPU runs; some 20 us. */
void sm_hv_vcpu_count_instructions(struct sm_hv_vcpu *vcpu);

struct sm_hv_counters {
    uint64_t exits;        /* returns of run to user space */
    uint64_t instructions; /* emulated; 0: not counted */
    uint64_t assists;      /* instructions that were completed for a hypervisor that cannot */
    uint64_t by_kind[SM_HV_EXIT_KINDS];
};
/* Adds the vCPU's counters to *sum; from any thread. */
void sm_hv_vcpu_add_counters(const struct sm_hv_vcpu *vcpu, struct sm_hv_counters *sum);

/* A line for error messages: where the vCPU stands, in the architecture's words; not while it
 * runs. */
void sm_hv_vcpu_describe(struct sm_hv_vcpu *vcpu, char *text, size_t size);

#endif
