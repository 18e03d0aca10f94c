/* What the files of kvm/ share. Nothing outside of this directory includes it. */
#ifndef SM_HYPERVISOR_KVM_H
#define SM_HYPERVISOR_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#include "hypervisor/hypervisor.h"

struct sm_hv {
    int fd;
    size_t run_bytes;          /* of the shared run structure of a vCPU */
    size_t xsave_bytes;        /* of KVM_GET_XSAVE2 */
    unsigned physical_bits;    /* MAXPHYADDR */
    uint64_t xcr0;             /* bits that a guest may have in XCR0 */
    bool sync_regs;            /* registers and events can travel in the run structure */
    struct kvm_cpuid2 *cpuid;  /* template, before per-vCPU fields */
    struct kvm_msr_list *msrs; /* that a snapshot holds */
    uint8_t digest[SM_CPU_DIGEST_BYTES];
};

/* What the assist has travel in the run structure, after every exit. */
#define SM_KVM_SYNC (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)

struct sm_kvm_slot {
    uint64_t gpa, bytes; /* bytes 0: free */
    uint8_t *host;
    bool read_only;
};

struct sm_hv_vm {
    const struct sm_hv *hv;
    int fd;
    unsigned vcpus;
    struct sm_kvm_slot slots[SM_HV_MAX_SLOTS]; /* changed only while no vCPU runs */
    unsigned n_slots;                          /* highest used + 1 */
};

struct sm_hv_vcpu {
    struct sm_hv_vm *vm;
    int fd;
    unsigned index;
    struct kvm_run *run;

    pthread_mutex_t lock; /* of the next three */
    bool bound;
    bool kicked_unbound;
    pthread_t thread;

    int stats_fd; /* of stats.c; -1: instructions are not counted */
    off_t instructions_at;
    struct sm_kvm_assist *assist; /* scratch of assist.c, made on its first use */
    atomic_ullong exits;
    atomic_ullong by_kind[SM_HV_EXIT_KINDS];
    atomic_ullong assists[SM_HV_ASSIST_KINDS];
};

/* The real-time signal that kicks use. */
int sm_kvm_kick_signal(void);

/* Closes the descriptor of a VM off the caller's time. */
void sm_kvm_dispose(int fd);

/* Host address of guest-physical [gpa, gpa + bytes) if it lies in one slot (that may be written, if
 * `write`); else NULL. */
void *sm_kvm_host(const struct sm_hv_vm *vm, uint64_t gpa, uint64_t bytes, bool write);

/* CPUID: the template (KVM's list, cleaned up) and the copy for one vCPU (caller frees). */
int sm_kvm_cpuid_template(struct sm_hv *hv, sm_error *err);
int sm_kvm_cpuid_for(
    const struct sm_hv_vm *vm, unsigned index, struct kvm_cpuid2 **cpuid, sm_error *err);

/* Is this one of the MSRs that a snapshot holds? `at` is where the search begins and where it ended: whoever asks in the
 * order of the list finds each at once. */
bool sm_kvm_msr_offered(const struct sm_hv *hv, uint32_t index, unsigned *at);

/* Completes the instruction at RIP that the kernel's emulator gave up on. Fails, naming it, when it is
 * none of those we know. */
int sm_kvm_assist(struct sm_hv_vcpu *vcpu, sm_error *err);

/* Emulated so far; 0 where they are not counted. */
uint64_t sm_kvm_instructions(const struct sm_hv_vcpu *vcpu);

static inline void sm_kvm_count(atomic_ullong *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
        memory_order_relaxed); /* one writer: the vCPU's thread */
}

#endif
