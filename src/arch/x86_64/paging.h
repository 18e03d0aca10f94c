/*
 * Walks the guest's 4-level page tables as the CPU would: presence, write, user, execute, WP, SMEP,
 * SMAP, accessed and dirty bits. Pure: memory comes through a function. Protection keys are not
 * looked at (a guest that is assisted is not offered them).
 */
#ifndef SM_ARCH_X86_64_PAGING_H
#define SM_ARCH_X86_64_PAGING_H

#include <stdbool.h>
#include <stdint.h>

#define SM_X86_PF_PRESENT (1u << 0)
#define SM_X86_PF_WRITE   (1u << 1)
#define SM_X86_PF_USER    (1u << 2)
#define SM_X86_PF_RSVD    (1u << 3)
#define SM_X86_PF_FETCH   (1u << 4)

#define SM_X86_CR0_PE      (1ULL << 0)
#define SM_X86_CR0_TS      (1ULL << 3)
#define SM_X86_CR0_WP      (1ULL << 16)
#define SM_X86_CR0_PG      (1ULL << 31)
#define SM_X86_CR4_PAE     (1ULL << 5)
#define SM_X86_CR4_LA57    (1ULL << 12)
#define SM_X86_CR4_OSXSAVE (1ULL << 18)
#define SM_X86_CR4_SMEP    (1ULL << 20)
#define SM_X86_CR4_SMAP    (1ULL << 21)
#define SM_X86_EFER_LMA    (1ULL << 10)
#define SM_X86_EFER_NXE    (1ULL << 11)
#define SM_X86_RFLAGS_AC   (1ULL << 18)
#define SM_X86_RFLAGS_RF   (1ULL << 16)

struct sm_x86_paging {
    uint64_t cr0, cr3, cr4, efer, rflags;
    unsigned cpl;
    unsigned physical_bits; /* MAXPHYADDR */
    /* Host address of guest-physical [gpa, gpa + bytes), or NULL if that is not RAM. */
    void *(*ram)(void *arg, uint64_t gpa, uint64_t bytes);
    void *arg;
};

enum sm_x86_access { SM_X86_READ, SM_X86_WRITE, SM_X86_FETCH };

enum sm_x86_walk_result {
    SM_X86_WALK_OK,
    SM_X86_WALK_FAULT,        /* #PF, *error is its error code */
    SM_X86_WALK_NONCANONICAL, /* #GP(0) */
    SM_X86_WALK_UNSUPPORTED,  /* not 4-level paging, or tables that are not in RAM */
};

/* Translates one linear address. On OK, *gpa is its physical address, good to the end of its 4 KiB
 * page, and accessed (and dirty, for a write) bits are set. */
enum sm_x86_walk_result sm_x86_walk(const struct sm_x86_paging *paging, uint64_t va,
    enum sm_x86_access access, uint64_t *gpa, uint32_t *error);

#endif
