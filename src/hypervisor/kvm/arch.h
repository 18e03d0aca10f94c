/*
 * What kvm/ARCH/ does for the files that all architectures share. One such folder is linked.
 *
 * Of hypervisor.h it defines, beside that, what knows registers or chips: sm_hv_needs_assist,
 * sm_hv_vm_make_cpus, sm_hv_vm_save, sm_hv_vm_restore, sm_hv_vm_set_clock, sm_hv_vcpu_get_state,
 * sm_hv_vcpu_set_state and sm_hv_vcpu_describe.
 */
#ifndef SM_HYPERVISOR_KVM_ARCH_H
#define SM_HYPERVISOR_KVM_ARCH_H

#include "hypervisor/kvm/kvm.h"

/* Looks at what KVM offers here: fills hv->cpu and hv->digest, or says what is missing. After a
 * failure, too, hv->cpu is for sm_kvm_cpu_free. */
int sm_kvm_cpu_open(struct sm_hv *hv, sm_error *err);
void sm_kvm_cpu_free(struct sm_kvm_cpu *cpu); /* NULL: nothing */

/* What a VM needs before its memory, and a vCPU before anything else. */
int sm_kvm_vm_init(struct sm_hv_vm *vm, sm_error *err);
int sm_kvm_vcpu_init(struct sm_hv_vcpu *vcpu, sm_error *err);

/* Completes the instruction that the kernel's emulator gave up on. Fails, naming it, when it is
 * none of those we know. */
int sm_kvm_assist(struct sm_hv_vcpu *vcpu, sm_error *err);

#endif
