/* XSAVE formats. See xstate.h. */
#include "arch/x86_64/xstate.h"

#include <cpuid.h>

#include "util/bytes.h"

#define X87 (1ULL << 0)
#define SSE (1ULL << 1)
#define AVX (1ULL << 2)

#define MXCSR_OFFSET  24
#define XMM_OFFSET    160
#define XMM_BYTES     256
#define MXCSR_INITIAL 0x1f80u

void sm_xstate_layout_read(struct sm_xstate_layout *layout, size_t limit)
{
    unsigned a, b, c, d;
    *layout = (struct sm_xstate_layout){.components = X87 | SSE};
    if (!__get_cpuid_count(0xd, 0, &a, &b, &c, &d))
        return;
    uint64_t user = a | (uint64_t)d << 32;
    if (!__get_cpuid_count(0xd, 1, &a, &b, &c, &d))
        return;
    uint64_t supervisor = c | (uint64_t)d << 32;
    for (unsigned i = 2; i < SM_XSTATE_COMPONENTS; i++) {
        if (!((user | supervisor) >> i & 1) || !__get_cpuid_count(0xd, i, &a, &b, &c, &d) || !a)
            continue;
        if (!(c & 1) && (b < SM_XSTATE_EXTENDED || b > limit || a > limit - b))
            continue;
        layout->components |= 1ULL << i;
        layout->supervisor |= (uint64_t)(c & 1) << i;
        layout->aligned |= (uint64_t)(c >> 1 & 1) << i;
        layout->c[i].offset = c & 1 ? 0 : b;
        layout->c[i].size = a;
    }
}

static void add_piece(struct sm_xstate_plan *plan, uint32_t guest, uint32_t host, uint32_t bytes)
{
    plan->pieces[plan->n++] =
        (struct sm_xstate_piece){.guest = guest, .host = host, .bytes = bytes};
}

/* Adds the extended components of `wanted`; in the compacted format `present` (XCOMP_BV) decides
 * where each one lies. Supervisor components have no place in the host's area: their room is kept
 * only. */
static void add_extended(const struct sm_xstate_layout *layout, uint64_t wanted, bool compacted,
    uint64_t present, struct sm_xstate_plan *plan)
{
    uint32_t at = SM_XSTATE_EXTENDED;
    for (unsigned i = 2; i < SM_XSTATE_COMPONENTS; i++) {
        uint64_t bit = 1ULL << i;
        if (!(layout->components & bit))
            continue;
        uint32_t guest = layout->c[i].offset;
        if (compacted) {
            if (!(present & bit))
                continue;
            if (layout->aligned & bit)
                at = (uint32_t)sm_align_up(at, 64);
            guest = at;
            at += layout->c[i].size;
        }
        if ((wanted & bit) && !(layout->supervisor & bit))
            add_piece(plan, guest, layout->c[i].offset, layout->c[i].size);
    }
}

void sm_xstate_plan_save(const struct sm_xstate_layout *layout, enum sm_insn_op op, uint64_t rfbm,
    const uint8_t *host_area, struct sm_xstate_plan *plan)
{
    bool compacted = op == SM_INSN_XSAVEC || op == SM_INSN_XSAVES;
    rfbm &= layout->components;
    *plan = (struct sm_xstate_plan){.compacted = compacted};
    uint64_t in_use = sm_load_le64(host_area + SM_XSTATE_LEGACY_BYTES);
    uint32_t mxcsr = sm_load_le32(host_area + MXCSR_OFFSET);
    if (compacted && mxcsr != MXCSR_INITIAL)
        in_use |= SSE; /* here MXCSR belongs to the SSE component */
    plan->bv = in_use & rfbm;
    plan->xcomp = compacted ? rfbm | SM_XSTATE_COMPACTED : 0;

    uint64_t written = op == SM_INSN_XSAVE ? rfbm : plan->bv;
    if (written & X87) {
        add_piece(plan, 0, 0, MXCSR_OFFSET);
        add_piece(plan, 32, 32, XMM_OFFSET - 32);
    }
    if (compacted ? !!(written & SSE) : !!(rfbm & (SSE | AVX)))
        add_piece(plan, MXCSR_OFFSET, MXCSR_OFFSET, 8);
    if (written & SSE)
        add_piece(plan, XMM_OFFSET, XMM_OFFSET, XMM_BYTES);
    add_extended(layout, written, compacted, rfbm, plan);
}

static bool all_zero(const uint8_t *p, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (p[i])
            return false;
    }
    return true;
}

bool sm_xstate_plan_restore(const struct sm_xstate_layout *layout, enum sm_insn_op op,
    uint64_t rfbm, uint64_t allowed, const uint8_t header[SM_XSTATE_HEADER_BYTES],
    struct sm_xstate_plan *plan)
{
    uint64_t bv = sm_load_le64(header), xcomp = sm_load_le64(header + 8);
    bool compacted = xcomp & SM_XSTATE_COMPACTED;
    *plan = (struct sm_xstate_plan){.compacted = compacted};
    if (compacted) {
        uint64_t present = xcomp & ~SM_XSTATE_COMPACTED;
        if ((present & ~allowed) || (bv & ~present) || !all_zero(header + 16, 48))
            return false;
    } else if (op == SM_INSN_XRSTORS || (bv & ~allowed) || !all_zero(header + 8, 16)) {
        return false;
    }
    rfbm &= layout->components;
    plan->bv = bv & rfbm;
    if (plan->bv & X87) {
        add_piece(plan, 0, 0, MXCSR_OFFSET);
        add_piece(plan, 32, 32, XMM_OFFSET - 32);
    }
    if (compacted ? !!(plan->bv & SSE) : !!(rfbm & (SSE | AVX)))
        add_piece(plan, MXCSR_OFFSET, MXCSR_OFFSET, 4);
    if (plan->bv & SSE)
        add_piece(plan, XMM_OFFSET, XMM_OFFSET, XMM_BYTES);
    add_extended(layout, plan->bv, compacted, xcomp, plan);
    return true;
}

bool sm_xstate_finish_restore(uint64_t rfbm, uint64_t in_use_before, uint32_t mxcsr_before,
    const struct sm_xstate_plan *plan, uint8_t *host_area)
{
    uint32_t mxcsr = sm_load_le32(host_area + MXCSR_OFFSET);
    if (plan->compacted)
        mxcsr = plan->bv & SSE ? mxcsr : rfbm & SSE ? MXCSR_INITIAL : mxcsr_before;
    uint32_t mask = sm_load_le32(host_area + MXCSR_OFFSET + 4);
    if (mxcsr & ~(mask ? mask : 0xffbfu))
        return false;
    uint64_t in_use = (in_use_before & ~rfbm) | plan->bv;
    if (mxcsr != MXCSR_INITIAL && !(in_use & SSE)) {
        memset(host_area + XMM_OFFSET, 0, XMM_BYTES); /* registers initial, MXCSR not */
        in_use |= SSE;
    }
    sm_store_le32(host_area + MXCSR_OFFSET, mxcsr);
    memset(host_area + SM_XSTATE_LEGACY_BYTES, 0, SM_XSTATE_HEADER_BYTES);
    sm_store_le64(host_area + SM_XSTATE_LEGACY_BYTES, in_use);
    return true;
}
