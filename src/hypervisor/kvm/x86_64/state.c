/*
 * A vCPU's state between KVM and the five lists of arch/vcpu_state.h.
 *
 * Order (snapshot format, x86_64). Save: MP_STATE first, since reading it makes KVM deal with
 * pending INIT and SIPI, which touches the local APIC; events last, when all else has been looked
 * at. Restore: MP_STATE, REGS, SREGS, XSAVE, XCRS, DEBUGREGS, LAPIC (after SREGS, which hold the
 * APIC base; before the MSRs, because the TSC deadline goes to the timer), MSRs with the TSC
 * deadline last, events, and KVMCLOCK_CTRL, which tells the guest's watchdogs that time has passed.
 *
 * A restore goes into a vCPU that has never run. Each of its ioctls costs 8 us on hosts without
 * hardware virtualisation, so those that would change nothing are left out, and what nothing else
 * depends on travels in the run structure: the first KVM_RUN takes it.
 *
 * A file may hold any values: KVM checks them, we check what we use ourselves.
 *
 * System calls at set-up: ioctl(KVM_SET_REGS, KVM_SET_SREGS, KVM_SET_XSAVE, KVM_SET_XCRS,
 * KVM_SET_DEBUGREGS, KVM_SET_LAPIC, KVM_SET_MSRS, KVM_SET_VCPU_EVENTS, KVM_SET_MP_STATE,
 * KVM_KVMCLOCK_CTRL).
 * System calls at a capture: ioctl(KVM_GET_REGS, KVM_GET_SREGS, KVM_GET_XSAVE, KVM_GET_XSAVE2,
 * KVM_GET_XCRS, KVM_GET_DEBUGREGS, KVM_GET_LAPIC, KVM_GET_MSRS, KVM_GET_VCPU_EVENTS,
 * KVM_GET_MP_STATE).
 */
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/vcpu_state.h"
#include "arch/x86_64/state.h"
#include "hypervisor/kvm/x86_64/x86.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

#define MAX_MSRS   512
#define NMI_VECTOR 2

struct msr_buffer {
    uint32_t n, pad;
    struct kvm_msr_entry v[MAX_MSRS];
};
_Static_assert(offsetof(struct msr_buffer, v) == sizeof(struct kvm_msrs), "layout of kvm_msrs");

/* ---- plain fields -------------------------------------------------------------------------- */

/* Where an id's value lives in one of KVM's structures. */
struct field {
    uint32_t id;
    uint16_t offset;
    uint8_t bytes;
};

#define FIELD(id, type, member)                                                                    \
    {                                                                                              \
        id, offsetof(type, member), sizeof(((type *)0)->member)                                    \
    }
#define REG(id, member)   FIELD(SM_X86_GP_##id, struct kvm_regs, member)
#define SREG(id, member)  FIELD(SM_X86_GP_##id, struct kvm_sregs, member)
#define EVENT(id, member) FIELD(SM_X86_RD_##id, struct kvm_vcpu_events, member)

static const struct field regs_fields[] = {
    REG(RAX, rax),
    REG(RBX, rbx),
    REG(RCX, rcx),
    REG(RDX, rdx),
    REG(RSI, rsi),
    REG(RDI, rdi),
    REG(RSP, rsp),
    REG(RBP, rbp),
    REG(R8, r8),
    REG(R8 + 1, r9),
    REG(R8 + 2, r10),
    REG(R8 + 3, r11),
    REG(R8 + 4, r12),
    REG(R8 + 5, r13),
    REG(R8 + 6, r14),
    REG(R8 + 7, r15),
    REG(RIP, rip),
    REG(RFLAGS, rflags),
};

static const struct field sregs_fields[] = {
    SREG(GDT_BASE, gdt.base),
    SREG(GDT_LIMIT, gdt.limit),
    SREG(IDT_BASE, idt.base),
    SREG(IDT_LIMIT, idt.limit),
    SREG(CR0, cr0),
    SREG(CR2, cr2),
    SREG(CR3, cr3),
    SREG(CR4, cr4),
    SREG(CR8, cr8),
    SREG(EFER, efer),
    SREG(APIC_BASE, apic_base),
    SREG(IRQ_BITMAP, interrupt_bitmap[0]),
    SREG(IRQ_BITMAP + 1, interrupt_bitmap[1]),
    SREG(IRQ_BITMAP + 2, interrupt_bitmap[2]),
    SREG(IRQ_BITMAP + 3, interrupt_bitmap[3]),
};

static const struct field debug_fields[] = {
    FIELD(SM_X86_RD_DR0, struct kvm_debugregs, db[0]),
    FIELD(SM_X86_RD_DR0 + 1, struct kvm_debugregs, db[1]),
    FIELD(SM_X86_RD_DR0 + 2, struct kvm_debugregs, db[2]),
    FIELD(SM_X86_RD_DR0 + 3, struct kvm_debugregs, db[3]),
    FIELD(SM_X86_RD_DR6, struct kvm_debugregs, dr6),
    FIELD(SM_X86_RD_DR7, struct kvm_debugregs, dr7),
};

static const struct field event_fields[] = {
    EVENT(EXCEPTION_INJECTED, exception.injected),
    EVENT(EXCEPTION_NR, exception.nr),
    EVENT(EXCEPTION_HAS_ERROR, exception.has_error_code),
    EVENT(EXCEPTION_ERROR, exception.error_code),
    EVENT(INTERRUPT_INJECTED, interrupt.injected),
    EVENT(INTERRUPT_NR, interrupt.nr),
    EVENT(INTERRUPT_SOFT, interrupt.soft),
    EVENT(INTERRUPT_SHADOW, interrupt.shadow),
    EVENT(NMI_INJECTED, nmi.injected),
    EVENT(NMI_PENDING, nmi.pending),
    EVENT(NMI_MASKED, nmi.masked),
    EVENT(SIPI_VECTOR, sipi_vector),
};

/* The segments, and where they are in kvm_sregs. */
static const struct field segments[] = {
    SREG(CS, cs),
    SREG(DS, ds),
    SREG(ES, es),
    SREG(FS, fs),
    SREG(GS, gs),
    SREG(SS, ss),
    SREG(TR, tr),
    SREG(LDT, ldt),
};

static int save_fields(
    const struct field *fields, size_t n, const void *from, struct sm_reg_list *list, sm_error *err)
{
    int rc = 0;
    for (size_t i = 0; i < n && !rc; i++) {
        uint64_t v = 0;
        memcpy(&v, (const char *)from + fields[i].offset, fields[i].bytes);
        rc = sm_reg_list_add(list, fields[i].id, v, err);
    }
    return rc;
}

/* The lists are short and usually in table order: the search starts where the last one ended. */
static bool find(const struct sm_reg_list *list, uint32_t id, uint32_t *hint, uint64_t *value)
{
    for (uint32_t i = 0; i < list->n; i++) {
        uint32_t at = (*hint + i) % list->n;
        if (list->v[at].id == id) {
            *value = list->v[at].value;
            *hint = at + 1;
            return true;
        }
    }
    return false;
}

static int missing(uint32_t id, const char *what, sm_error *err)
{
    return sm_error_set(err, SM_ECORRUPT, "the saved vCPU state lacks %s %#x", what, id);
}

static int load_fields(
    const struct field *fields, size_t n, void *to, const struct sm_reg_list *list, sm_error *err)
{
    uint32_t hint = 0;
    for (size_t i = 0; i < n; i++) {
        uint64_t v;
        if (!find(list, fields[i].id, &hint, &v))
            return missing(fields[i].id, "register", err);
        memcpy((char *)to + fields[i].offset, &v, fields[i].bytes);
    }
    return 0;
}

static int save_segments(const struct kvm_sregs *sregs, struct sm_reg_list *list, sm_error *err)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(segments); i++) {
        struct kvm_segment s;
        memcpy(&s, (const char *)sregs + segments[i].offset, sizeof(s));
        uint64_t rights = (s.type & 15u) | (s.s & 1u) << 4 | (s.dpl & 3u) << 5 |
                          (s.present & 1u) << 7 | (s.avl & 1u) << 12 | (s.l & 1u) << 13 |
                          (s.db & 1u) << 14 | (s.g & 1u) << 15 | (s.unusable & 1u) << 16;
        const uint64_t v[] = {s.base, s.limit, s.selector, rights};
        for (uint32_t k = 0; k < SM_ARRAY_LEN(v); k++) {
            int rc = sm_reg_list_add(list, segments[i].id + k, v[k], err);
            if (rc)
                return rc;
        }
    }
    return 0;
}

static int load_segments(struct kvm_sregs *sregs, const struct sm_reg_list *list, sm_error *err)
{
    uint32_t hint = 0;
    for (size_t i = 0; i < SM_ARRAY_LEN(segments); i++) {
        uint64_t v[4];
        for (uint32_t k = 0; k < SM_ARRAY_LEN(v); k++) {
            if (!find(list, segments[i].id + k, &hint, &v[k]))
                return missing(segments[i].id + k, "register", err);
        }
        uint64_t r = v[SM_X86_SEG_RIGHTS];
        struct kvm_segment s = {
            .base = v[SM_X86_SEG_BASE],
            .limit = (uint32_t)v[SM_X86_SEG_LIMIT],
            .selector = (uint16_t)v[SM_X86_SEG_SELECTOR],
            .type = r & 15,
            .s = r >> 4 & 1,
            .dpl = r >> 5 & 3,
            .present = r >> 7 & 1,
            .avl = r >> 12 & 1,
            .l = r >> 13 & 1,
            .db = r >> 14 & 1,
            .g = r >> 15 & 1,
            .unusable = r >> 16 & 1,
        };
        memcpy((char *)sregs + segments[i].offset, &s, sizeof(s));
    }
    return 0;
}

/* ---- save ------------------------------------------------------------------------------------ */

static int cannot_get(const struct sm_hv_vcpu *vcpu, const char *what, sm_error *err)
{
    return sm_error_errno(err, errno, "KVM does not give the %s of vCPU %u", what, vcpu->index);
}

static int cannot_set(const struct sm_hv_vcpu *vcpu, const char *what, sm_error *err)
{
    return sm_error_errno(err, errno, "KVM does not take the %s of vCPU %u", what, vcpu->index);
}

static int save_xsave(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err)
{
    size_t bytes = vcpu->vm->hv->cpu->xsave_bytes;
    auto_free uint8_t *area = calloc(1, bytes);
    if (!area)
        return sm_error_set(err, SM_ENOMEM, "no memory for the XSAVE area");
    unsigned long request = bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE;
    if (ioctl(vcpu->fd, request, area) < 0)
        return cannot_get(vcpu, "XSAVE area", err);
    int rc = sm_reg128_list_reserve(&state->simd, (uint32_t)(bytes / 16), err);
    for (uint32_t i = 0; i < bytes / 16 && !rc; i++)
        rc = sm_reg128_list_add(
            &state->simd, i, sm_load_le64(area + i * 16), sm_load_le64(area + i * 16 + 8), err);
    return rc;
}

/* KVM_GET_MSRS stops at the first MSR it cannot read; that one is skipped. */
static int save_msrs(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err)
{
    const struct kvm_msr_list *list = vcpu->vm->hv->cpu->msrs;
    auto_free struct msr_buffer *msrs = calloc(1, sizeof(*msrs));
    if (!msrs)
        return sm_error_set(err, SM_ENOMEM, "no memory for MSRs");
    int rc = sm_reg_list_reserve(&state->sys, list->nmsrs, err);
    for (uint32_t at = 0; at < list->nmsrs && !rc;) {
        msrs->n = SM_MIN(list->nmsrs - at, (uint32_t)MAX_MSRS);
        for (uint32_t i = 0; i < msrs->n; i++)
            msrs->v[i].index = list->indices[at + i];
        int got = ioctl(vcpu->fd, KVM_GET_MSRS, msrs);
        if (got < 0)
            return cannot_get(vcpu, "MSRs", err);
        for (int i = 0; i < got && !rc; i++)
            rc = sm_reg_list_add(&state->sys, msrs->v[i].index, msrs->v[i].data, err);
        at += (uint32_t)got + ((uint32_t)got < msrs->n);
    }
    return rc;
}

static int save_lapic(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err)
{
    struct kvm_lapic_state lapic;
    if (ioctl(vcpu->fd, KVM_GET_LAPIC, &lapic) < 0)
        return cannot_get(vcpu, "local APIC", err);
    int rc = 0;
    for (uint32_t at = 0; at < SM_X86_LAPIC_BYTES && !rc; at += 16)
        rc = sm_reg_list_add(&state->icc, at, sm_load_le32(lapic.regs + at), err);
    return rc;
}

/* A deadline that has just passed reads as 0 while its interrupt may not be in the APIC yet: it is
 * replaced by "now", and the timer fires again at once after a restore. One interrupt too many is
 * harmless, one too few is a guest that hangs. */
static void keep_timer_armed(struct sm_vcpu_state *state)
{
    uint64_t lvtt = 0, tsc = 0;
    if (!sm_reg_list_find(&state->icc, SM_X86_LAPIC_LVTT, &lvtt) ||
        !sm_reg_list_find(&state->sys, SM_X86_MSR_TSC, &tsc) || (lvtt & SM_X86_LAPIC_LVT_MASKED) ||
        (lvtt & SM_X86_LAPIC_TIMER_MODE) != SM_X86_LAPIC_TIMER_DEADLINE)
        return;
    for (uint32_t i = 0; i < state->sys.n; i++) {
        if (state->sys.v[i].id == SM_X86_MSR_TSC_DEADLINE && state->sys.v[i].value == 0)
            state->sys.v[i].value = tsc;
    }
}

/* A vCPU that has not run since its restore: gives KVM what the first run would. */
static int settle(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    struct kvm_sync_regs *s = &vcpu->run->s.regs;
    if (((vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_REGS) &&
            ioctl(vcpu->fd, KVM_SET_REGS, &s->regs) < 0) ||
        ((vcpu->run->kvm_dirty_regs & KVM_SYNC_X86_EVENTS) &&
            ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &s->events) < 0))
        return cannot_set(vcpu, "registers", err);
    vcpu->run->kvm_dirty_regs &= ~(uint64_t)(KVM_SYNC_X86_REGS | KVM_SYNC_X86_EVENTS);
    return 0;
}

static int save(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err)
{
    int rc = settle(vcpu, err);
    if (rc)
        return rc;
    struct kvm_mp_state mp;
    if (ioctl(vcpu->fd, KVM_GET_MP_STATE, &mp) < 0)
        return cannot_get(vcpu, "MP state", err);
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    if (ioctl(vcpu->fd, KVM_GET_REGS, &regs) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &sregs) < 0)
        return cannot_get(vcpu, "registers", err);
    if ((rc = save_fields(regs_fields, SM_ARRAY_LEN(regs_fields), &regs, &state->gp, err)) ||
        (rc = save_segments(&sregs, &state->gp, err)) ||
        (rc = save_fields(sregs_fields, SM_ARRAY_LEN(sregs_fields), &sregs, &state->gp, err)) ||
        (rc = save_xsave(vcpu, state, err)))
        return rc;
    struct kvm_xcrs xcrs;
    if (ioctl(vcpu->fd, KVM_GET_XCRS, &xcrs) < 0)
        return cannot_get(vcpu, "XCR0", err);
    struct kvm_debugregs debug;
    if (ioctl(vcpu->fd, KVM_GET_DEBUGREGS, &debug) < 0)
        return cannot_get(vcpu, "debug registers", err);
    if ((rc = save_lapic(vcpu, state, err)) || (rc = save_msrs(vcpu, state, err)))
        return rc;
    keep_timer_armed(state);
    struct kvm_vcpu_events events;
    if (ioctl(vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
        return cannot_get(vcpu, "pending events", err);
    uint64_t xcr0 = xcrs.nr_xcrs ? xcrs.xcrs[0].value : 1;
    if ((rc = sm_reg_list_add(&state->redist, SM_X86_RD_MP_STATE, mp.mp_state, err)) ||
        (rc = sm_reg_list_add(&state->redist, SM_X86_RD_XCR0, xcr0, err)) ||
        (rc = save_fields(debug_fields, SM_ARRAY_LEN(debug_fields), &debug, &state->redist, err)))
        return rc;
    return save_fields(event_fields, SM_ARRAY_LEN(event_fields), &events, &state->redist, err);
}

int sm_hv_vcpu_get_state(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err)
{
    *state = (struct sm_vcpu_state){0};
    int rc = save(vcpu, state, err);
    if (rc)
        sm_vcpu_state_clear(state);
    return rc;
}

/* ---- restore ------------------------------------------------------------------------------- */

/* KVM looks at the run structure of a vCPU only when it is to run: not while it waits for its
 * SIPI. */
static bool can_travel(const struct sm_hv_vcpu *vcpu, const struct kvm_mp_state *mp)
{
    return vcpu->vm->hv->cpu->sync_regs && mp->mp_state != KVM_MP_STATE_UNINITIALIZED;
}

static int load_registers(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state,
    const struct kvm_mp_state *mp, sm_error *err)
{
    struct kvm_regs regs = {0};
    struct kvm_sregs sregs = {0};
    int rc;
    if ((rc = load_fields(regs_fields, SM_ARRAY_LEN(regs_fields), &regs, &state->gp, err)) ||
        (rc = load_segments(&sregs, &state->gp, err)) ||
        (rc = load_fields(sregs_fields, SM_ARRAY_LEN(sregs_fields), &sregs, &state->gp, err)))
        return rc;
    if (can_travel(vcpu, mp)) {
        vcpu->run->s.regs.regs = regs;
        vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
    } else if (ioctl(vcpu->fd, KVM_SET_REGS, &regs) < 0) {
        return cannot_set(vcpu, "registers", err);
    }
    return ioctl(vcpu->fd, KVM_SET_SREGS, &sregs) < 0 ? cannot_set(vcpu, "system registers", err)
                                                      : 0;
}

static int load_xsave(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    size_t bytes = vcpu->vm->hv->cpu->xsave_bytes;
    auto_free uint8_t *area = calloc(1, bytes);
    if (!area)
        return sm_error_set(err, SM_ENOMEM, "no memory for the XSAVE area");
    for (uint32_t i = 0; i < state->simd.n; i++) {
        const struct sm_reg128 *r = &state->simd.v[i];
        if (r->id >= bytes / 16) {
            if (r->lo || r->hi)
                return sm_error_set(err, SM_EUNSUPPORTED,
                    "the saved XSAVE area is larger than this CPU's (%zu bytes)", bytes);
            continue;
        }
        sm_store_le64(area + (size_t)r->id * 16, r->lo);
        sm_store_le64(area + (size_t)r->id * 16 + 8, r->hi);
    }
    if (ioctl(vcpu->fd, KVM_SET_XSAVE, area) < 0)
        return cannot_set(vcpu, "XSAVE area", err);
    return 0;
}

static int load_lapic(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    struct kvm_lapic_state lapic = {0};
    if (state->icc.n == 0)
        return missing(0, "local APIC register", err);
    for (uint32_t i = 0; i < state->icc.n; i++) {
        const struct sm_reg *r = &state->icc.v[i];
        if (r->id >= SM_X86_LAPIC_BYTES || r->id % 16)
            return sm_error_set(
                err, SM_ECORRUPT, "the saved vCPU state has a local APIC register %#x", r->id);
        sm_store_le32((uint8_t *)lapic.regs + r->id, (uint32_t)r->value);
    }
    if (ioctl(vcpu->fd, KVM_SET_LAPIC, &lapic) < 0)
        return cannot_set(vcpu, "local APIC", err);
    return 0;
}

/* Sets one batch, all or an error that names the MSR at which KVM stopped. */
static int set_msrs(struct sm_hv_vcpu *vcpu, struct msr_buffer *msrs, sm_error *err)
{
    if (msrs->n == 0)
        return 0;
    int set = ioctl(vcpu->fd, KVM_SET_MSRS, msrs);
    if (set < 0)
        return cannot_set(vcpu, "MSRs", err);
    if ((uint32_t)set < msrs->n)
        return sm_error_set(err, SM_EUNSUPPORTED,
            "KVM does not take the value %#llx of MSR %#x of vCPU %u",
            (unsigned long long)msrs->v[set].data, msrs->v[set].index, vcpu->index);
    msrs->n = 0;
    return 0;
}

static int load_msrs(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    auto_free struct msr_buffer *msrs = calloc(1, sizeof(*msrs));
    if (!msrs)
        return sm_error_set(err, SM_ENOMEM, "no memory for MSRs");
    struct kvm_msr_entry deadline = {0};
    unsigned at = 0;
    int rc = 0;
    for (uint32_t i = 0; i < state->sys.n && !rc; i++) {
        const struct sm_reg *r = &state->sys.v[i];
        struct kvm_msr_entry entry = {.index = r->id, .data = r->value};
        if (!sm_kvm_msr_offered(vcpu->vm->hv->cpu, r->id, &at))
            return sm_error_set(err, SM_EUNSUPPORTED,
                "the saved vCPU state has MSR %#x, which no guest of ours has here", r->id);
        if (r->id == SM_X86_MSR_TSC_DEADLINE) {
            deadline = entry;
            continue;
        }
        msrs->v[msrs->n++] = entry;
        if (msrs->n == MAX_MSRS - 1)
            rc = set_msrs(vcpu, msrs, err);
    }
    if (!rc && deadline.index)
        msrs->v[msrs->n++] = deadline;
    return rc ? rc : set_msrs(vcpu, msrs, err);
}

static int load_extras(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    struct kvm_xcrs xcrs = {.nr_xcrs = 1};
    struct kvm_debugregs debug = {0};
    uint64_t xcr0;
    if (!sm_reg_list_find(&state->redist, SM_X86_RD_XCR0, &xcr0))
        return missing(SM_X86_RD_XCR0, "control register", err);
    xcrs.xcrs[0].value = xcr0;
    if (ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) < 0)
        return cannot_set(vcpu, "XCR0", err);
    static const struct kvm_debugregs fresh = {.dr6 = 0xffff0ff0, .dr7 = 0x400};
    int rc = load_fields(debug_fields, SM_ARRAY_LEN(debug_fields), &debug, &state->redist, err);
    if (!rc && memcmp(&debug, &fresh, sizeof(debug)) &&
        ioctl(vcpu->fd, KVM_SET_DEBUGREGS, &debug) < 0)
        return cannot_set(vcpu, "debug registers", err);
    return rc;
}

static int load_events(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state,
    const struct kvm_mp_state *mp, sm_error *err)
{
    struct kvm_vcpu_events events = {0};
    static const struct kvm_vcpu_events fresh;
    int rc = load_fields(event_fields, SM_ARRAY_LEN(event_fields), &events, &state->redist, err);
    if (rc || !memcmp(&events, &fresh, sizeof(events)))
        return rc;
    events.flags = KVM_VCPUEVENT_VALID_NMI_PENDING | KVM_VCPUEVENT_VALID_SIPI_VECTOR |
                   KVM_VCPUEVENT_VALID_SHADOW;
    if (events.exception.injected && /* as KVM has it, which would say so too late */
        (events.exception.nr > 31 || events.exception.nr == NMI_VECTOR))
        return sm_error_set(err, SM_ECORRUPT, "the saved vCPU state has a pending exception %u",
            events.exception.nr);
    if (can_travel(vcpu, mp)) {
        vcpu->run->s.regs.events = events;
        vcpu->run->kvm_dirty_regs |= KVM_SYNC_X86_EVENTS;
    } else if (ioctl(vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0) {
        return cannot_set(vcpu, "pending events", err);
    }
    return 0;
}

/* XCR0 begins with all that the guest may have, not with 1 as after a reset: the guest sets it
 * anyway, and emulators of nested virtualisation (QEMU 7.2) do not let KVM see that, so that the
 * guest would run with KVM's old value and lose its vector registers. */
static int load_first(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    const struct kvm_mp_state mp = {.mp_state = KVM_MP_STATE_RUNNABLE};
    struct kvm_xcrs xcrs = {.nr_xcrs = 1};
    xcrs.xcrs[0].value = vcpu->vm->hv->cpu->xcr0;
    if (xcrs.xcrs[0].value && ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) < 0)
        return cannot_set(vcpu, "XCR0", err);
    return state->gp.n ? load_registers(vcpu, state, &mp, err) : 0;
}

int sm_hv_vcpu_set_state(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    uint64_t value;
    int rc;
    if (sm_vcpu_state_is_first(state))
        return load_first(vcpu, state, err);
    if (!sm_reg_list_find(&state->redist, SM_X86_RD_MP_STATE, &value))
        return missing(SM_X86_RD_MP_STATE, "state", err);
    struct kvm_mp_state mp = {.mp_state = (uint32_t)value};
    uint32_t fresh = vcpu->index == 0 ? KVM_MP_STATE_RUNNABLE : KVM_MP_STATE_UNINITIALIZED;
    if (mp.mp_state != fresh && ioctl(vcpu->fd, KVM_SET_MP_STATE, &mp) < 0)
        return cannot_set(vcpu, "MP state", err);
    if ((rc = load_registers(vcpu, state, &mp, err)) || (rc = load_xsave(vcpu, state, err)) ||
        (rc = load_extras(vcpu, state, err)) || (rc = load_lapic(vcpu, state, err)) ||
        (rc = load_msrs(vcpu, state, err)) || (rc = load_events(vcpu, state, &mp, err)))
        return rc;
    if (ioctl(vcpu->fd, KVM_KVMCLOCK_CTRL, 0) < 0 && errno != EINVAL) /* EINVAL: not in use */
        return cannot_set(vcpu, "clock mark", err);
    return 0;
}

void sm_hv_vcpu_describe(struct sm_hv_vcpu *vcpu, char *text, size_t size)
{
    struct kvm_regs r;
    struct kvm_sregs s;
    if (ioctl(vcpu->fd, KVM_GET_REGS, &r) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &s) < 0)
        snprintf(text, size, "vCPU %u, registers not known", vcpu->index);
    else
        snprintf(text, size, "vCPU %u at RIP %#llx, CPL %u, CR2 %#llx", vcpu->index,
            (unsigned long long)r.rip, s.cs.dpl, (unsigned long long)s.cr2);
}
