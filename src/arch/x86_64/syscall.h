/*
 * Tells a SYSCALL that went astray from a jump to where SYSCALL goes.
 *
 * On hosts where KVM emulates guest kernel mode, SYSCALL ends in a page fault of the fetch at LSTAR
 * (see hypervisor/kvm/x86_64/assist.c). So does a jump or a return of user code to that address,
 * and whoever believes it lets a user into the kernel with flags of its choice: DF makes the
 * kernel's copies run backwards, AC switches SMAP off, IF lets an interrupt in before SWAPGS. What
 * a user cannot do is clear IF (IOPL is 0), so flags that SYSCALL has masked tell them apart,
 * provided that the guest has IF among what SYSCALL clears.
 */
#ifndef SM_ARCH_X86_64_SYSCALL_H
#define SM_ARCH_X86_64_SYSCALL_H

#include <stdbool.h>
#include <stdint.h>

#include "arch/x86_64/paging.h"

#define SM_X86_RFLAGS_ONE (1ULL << 1) /* is always set */
#define SM_X86_RFLAGS_IF  (1ULL << 9)

/* What a page fault pushes, in the order of the addresses. */
struct sm_x86_fault_frame {
    uint64_t error, rip, cs, rflags, rsp, ss;
};

/* lstar and sfmask: the MSRs of the CPU that took the fault. RF is set by the fault itself. */
static inline bool sm_x86_is_syscall(
    const struct sm_x86_fault_frame *f, uint64_t lstar, uint64_t sfmask)
{
    const uint32_t user_fetch = SM_X86_PF_USER | SM_X86_PF_FETCH;
    return f->rip == lstar && (f->cs & 3) == 3 &&
           (f->error & (user_fetch | SM_X86_PF_WRITE | SM_X86_PF_RSVD)) == user_fetch &&
           (sfmask & SM_X86_RFLAGS_IF) && !(f->rflags & sfmask & ~SM_X86_RFLAGS_RF);
}

/* The flags with which the kernel is entered. */
static inline uint64_t sm_x86_syscall_rflags(uint64_t rflags, uint64_t sfmask)
{
    return (rflags & ~(sfmask | SM_X86_RFLAGS_RF)) | SM_X86_RFLAGS_ONE;
}

#endif
