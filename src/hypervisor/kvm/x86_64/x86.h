/* What the files of kvm/x86_64/ share. Nothing outside of this directory includes it, but its
 * tests. */
#ifndef SM_HYPERVISOR_KVM_X86_H
#define SM_HYPERVISOR_KVM_X86_H

#include "arch/x86_64/xstate.h"
#include "hypervisor/kvm/arch.h"

struct sm_kvm_cpu {
    size_t xsave_bytes;        /* of KVM_GET_XSAVE2 */
    unsigned physical_bits;    /* MAXPHYADDR */
    uint64_t xcr0;             /* bits that a guest may have in XCR0 */
    bool sync_regs;            /* registers and events can travel in the run structure */
    struct kvm_cpuid2 *cpuid;  /* template, before per-vCPU fields */
    struct kvm_msr_list *msrs; /* that a snapshot holds */
};

/* What the assist has travel in the run structure, after every exit. */
#define SM_KVM_SYNC (KVM_SYNC_X86_REGS | KVM_SYNC_X86_SREGS)

/* CPUID: the template (KVM's list, cleaned up), from which each vCPU gets a copy, and the digest of
 * it. */
int sm_kvm_cpuid_template(struct sm_hv *hv, sm_error *err);

/* Is this one of the MSRs that a snapshot holds? `at` is where the search begins and where it
 * ended: whoever asks in the order of the list finds each at once. */
bool sm_kvm_msr_offered(const struct sm_kvm_cpu *cpu, uint32_t index, unsigned *at);

/* What the assist has completed, by kind; only the vCPU's thread may look. */
enum sm_kvm_assist_kind {
    SM_KVM_ASSIST_INT3,
    SM_KVM_ASSIST_POPCNT,
    SM_KVM_ASSIST_LSL,
    SM_KVM_ASSIST_CMPXCHG16B,
    SM_KVM_ASSIST_XSAVE,
    SM_KVM_ASSIST_XRSTOR,
    SM_KVM_ASSIST_XCR, /* xgetbv, xsetbv */
    SM_KVM_ASSIST_CLAC_STAC,
    SM_KVM_ASSIST_FWAIT,
    SM_KVM_ASSIST_SYSCALL, /* SYSCALL entries repaired */
    SM_KVM_ASSIST_FAULT,   /* page faults and others injected on the way */
    SM_KVM_ASSIST_KINDS,
};

struct sm_kvm_assist {
    uint64_t done[SM_KVM_ASSIST_KINDS];
    uint64_t lstar, sfmask; /* as last read; 0: not yet */
    struct sm_xstate_layout layout;
    uint8_t xsave[]; /* the area, as KVM gives it */
};

#endif
