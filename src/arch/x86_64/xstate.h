/*
 * XSAVE areas: where the state components lie in the standard and in compacted formats, and what
 * the six instructions read and write (Intel SDM vol. 1, ch. 13). Pure: the caller moves the bytes.
 *
 * The host area is what KVM gives and takes: standard format, 64-byte header at 512. Everything in
 * a guest's area, its header above all, is the guest's to lie about; offsets come from our layout
 * only.
 */
#ifndef SM_ARCH_X86_64_XSTATE_H
#define SM_ARCH_X86_64_XSTATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "arch/x86_64/insn.h"

#define SM_XSTATE_LEGACY_BYTES 512
#define SM_XSTATE_HEADER_BYTES 64
#define SM_XSTATE_EXTENDED     (SM_XSTATE_LEGACY_BYTES + SM_XSTATE_HEADER_BYTES)
#define SM_XSTATE_COMPONENTS   63
#define SM_XSTATE_COMPACTED    (1ULL << 63)

struct sm_xstate_layout {
    uint64_t components; /* that this layout has a place for; bits 0 and 1 always */
    uint64_t supervisor; /* those of XSS */
    uint64_t aligned;    /* 64-byte aligned in the compacted format */
    struct {
        uint32_t offset, size; /* in the standard format; offset 0 for supervisor components */
    } c[SM_XSTATE_COMPONENTS];
};

/* Reads the running CPU's layout (CPUID 0xD), without components that end beyond `limit` bytes. */
void sm_xstate_layout_read(struct sm_xstate_layout *layout, size_t limit);

/* A run of bytes between the guest's area and the host's, by their offsets. */
struct sm_xstate_piece {
    uint32_t guest, host, bytes;
};

struct sm_xstate_plan {
    struct sm_xstate_piece pieces[SM_XSTATE_COMPONENTS + 4];
    unsigned n;
    uint64_t bv;    /* save: XSTATE_BV to write at 512 (for the standard format: to merge) */
    uint64_t xcomp; /* save: XCOMP_BV to write at 520, where compacted */
    bool compacted;
};

/* What XSAVE, XSAVEOPT, XSAVEC or XSAVES writes. rfbm: EDX:EAX & XCR0 (| XSS for XSAVES).
 * host_area: to tell what is in use. Standard format: XSTATE_BV becomes (old & ~rfbm) |
 * plan->bv. */
void sm_xstate_plan_save(const struct sm_xstate_layout *layout, enum sm_insn_op op, uint64_t rfbm,
    const uint8_t *host_area, struct sm_xstate_plan *plan);

/* What XRSTOR or XRSTORS reads, given the guest's header. allowed: XCR0 (| XSS for XRSTORS). False:
 * the instruction is a #GP. */
bool sm_xstate_plan_restore(const struct sm_xstate_layout *layout, enum sm_insn_op op,
    uint64_t rfbm, uint64_t allowed, const uint8_t header[SM_XSTATE_HEADER_BYTES],
    struct sm_xstate_plan *plan);

/* Completes a restore in the host area, after the pieces were copied into it: header, components
 * that go to their initial state. False: reserved bits of MXCSR are set, #GP. */
bool sm_xstate_finish_restore(uint64_t rfbm, uint64_t in_use_before, uint32_t mxcsr_before,
    const struct sm_xstate_plan *plan, uint8_t *host_area);

#endif
