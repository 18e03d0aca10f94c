/*
 * The saved state of one vCPU as a snapshot file holds it: five lists of (id, value), the same for
 * every architecture, so that one codec serves all. What an id means is the business of
 * arch/<arch>/: see docs/snapshot-format.md and arch/x86_64/state.h.
 *
 *     list     aarch64                          x86_64
 *     gp       X0.., PC, CPSR                   kvm_regs, kvm_sregs (our enumeration)
 *     simd     Q0..Q31                          XSAVE area in 16-byte pieces, id = index
 *     sys      system registers (encoding)      MSRs, id = MSR index
 *     icc      GIC CPU interface                local APIC page, id = register offset
 *     redist   GIC redistributor (offset)       MP state, vCPU events, XCR0, debug registers
 *
 * Lists grow as they are filled and are bounded (SM_VCPU_MAX_*): a reader of files must not accept
 * longer ones. Not thread-safe; the owner calls sm_vcpu_state_clear.
 */
#ifndef SM_ARCH_VCPU_STATE_H
#define SM_ARCH_VCPU_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

#include "util/cleanup.h"

/* Whose state it is, as snapshot files say it; what a writer that knows no tag leaves at 0 is
 * aarch64. */
enum sm_arch_tag {
    SM_ARCH_UNMARKED = 0,
    SM_ARCH_X86_64 = 0x86,
    SM_ARCH_AARCH64 = 0xA64,
};

struct sm_reg {
    uint32_t id;
    uint64_t value;
};

struct sm_reg128 {
    uint32_t id;
    uint64_t lo, hi; /* value = hi << 64 | lo; in the file lo comes first */
};

struct sm_reg_list {
    struct sm_reg *v;
    uint32_t n, room;
};

struct sm_reg128_list {
    struct sm_reg128 *v;
    uint32_t n, room;
};

/* Bounds of the counts; the largest XSAVE area (AMX) is below 16 KiB, 64 KiB leave room. */
enum {
    SM_VCPU_MAX_GP = 512,
    SM_VCPU_MAX_SIMD = 4096,
    SM_VCPU_MAX_SYS = 2048,
    SM_VCPU_MAX_ICC = 1024,
    SM_VCPU_MAX_REDIST = 1024,
    SM_MACHINE_MAX_VCPUS = 16,
};

struct sm_vcpu_state {
    uint64_t vtimer_offset; /* aarch64; 0 on x86_64 */
    struct sm_reg_list gp;
    struct sm_reg128_list simd;
    struct sm_reg_list sys;
    struct sm_reg_list icc;
    struct sm_reg_list redist;
};

/* Makes room for `n` entries in total; 0 or -SM_ENOMEM. Existing entries stay. */
int sm_reg_list_reserve(struct sm_reg_list *list, uint32_t n, sm_error *err);
int sm_reg128_list_reserve(struct sm_reg128_list *list, uint32_t n, sm_error *err);

/* Append one entry; the list grows as needed. */
int sm_reg_list_add(struct sm_reg_list *list, uint32_t id, uint64_t value, sm_error *err);
int sm_reg128_list_add(
    struct sm_reg128_list *list, uint32_t id, uint64_t lo, uint64_t hi, sm_error *err);

/* A first state, not a saved one: the gp list alone, or nothing at all. */
bool sm_vcpu_state_is_first(const struct sm_vcpu_state *state);

/* Finds an entry; true and *value if it is there. Entries may come in any order. */
bool sm_reg_list_find(const struct sm_reg_list *list, uint32_t id, uint64_t *value);

/* Empties the lists and frees them; the structure is all zero afterwards and may be used again. */
void sm_vcpu_state_clear(struct sm_vcpu_state *state);
static inline void sm_vcpu_state_cleanup(struct sm_vcpu_state *state)
{
    sm_vcpu_state_clear(state);
}
#define auto_vcpu_state SM_CLEANUP(sm_vcpu_state_cleanup) struct sm_vcpu_state

#endif
