/* XSAVE plans against the real instructions of this CPU where it has them, and against hostile
 * headers. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <cpuid.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/xstate.h"
#include "util/bytes.h"

#define AREA 16384

/* Two components beside AVX: one 64-byte aligned, one of the supervisor. */
static struct sm_xstate_layout layout(void)
{
    struct sm_xstate_layout l = {
        .components = 7 | 1 << 5 | 1 << 6 | 1 << 11, .supervisor = 1 << 11, .aligned = 1 << 6};
    l.c[2].offset = 576, l.c[2].size = 256;
    l.c[5].offset = 1088, l.c[5].size = 40;
    l.c[6].offset = 1152, l.c[6].size = 128;
    l.c[11].size = 16;
    return l;
}

static const struct sm_xstate_piece *piece(const struct sm_xstate_plan *plan, uint32_t host)
{
    for (unsigned i = 0; i < plan->n; i++) {
        if (plan->pieces[i].host == host)
            return &plan->pieces[i];
    }
    return NULL;
}

static void standard_save_writes_all_that_is_asked_for(void **state)
{
    (void)state;
    struct sm_xstate_layout l = layout();
    uint8_t area[AREA] = {0};
    struct sm_xstate_plan plan;
    sm_store_le32(area + 24, 0x1f80);
    sm_store_le64(area + 512, 1 | 4);
    sm_xstate_plan_save(&l, SM_INSN_XSAVE, 0x67, area, &plan);
    assert_int_equal(plan.bv, 5);
    assert_int_equal(plan.xcomp, 0);
    assert_non_null(piece(&plan, 160));
    assert_int_equal(piece(&plan, 1152)->guest, 1152);
    sm_xstate_plan_save(&l, SM_INSN_XSAVEOPT, 0x67, area, &plan);
    assert_null(piece(&plan, 160));
    assert_null(piece(&plan, 1152));
    assert_non_null(piece(&plan, 24)); /* MXCSR goes with the request, not with what is in use */
    sm_xstate_plan_save(&l, SM_INSN_XSAVE, 1, area, &plan);
    assert_null(piece(&plan, 24));
}

static void compacted_save_packs(void **state)
{
    (void)state;
    struct sm_xstate_layout l = layout();
    uint8_t area[AREA] = {0};
    struct sm_xstate_plan plan;
    sm_store_le32(area + 24, 0x1f80);
    sm_store_le64(area + 512, 0x67);
    sm_xstate_plan_save(&l, SM_INSN_XSAVEC, 0x65, area, &plan);
    assert_int_equal(plan.bv, 0x65);
    assert_int_equal(plan.xcomp, 0x65 | SM_XSTATE_COMPACTED);
    assert_null(piece(&plan, 24)); /* SSE was not asked for */
    assert_int_equal(piece(&plan, 1088)->guest, 576 + 256);
    assert_int_equal(piece(&plan, 1152)->guest, 896); /* 872 rounded up to 64 */
    sm_xstate_plan_save(&l, SM_INSN_XSAVES, 0x60, area, &plan);
    assert_int_equal(piece(&plan, 1088)->guest, 576);
    assert_int_equal(piece(&plan, 1152)->guest, 640);
    /* MXCSR not initial: SSE is in use even if its registers are not */
    sm_store_le64(area + 512, 0);
    sm_store_le32(area + 24, 0x1fa0);
    sm_xstate_plan_save(&l, SM_INSN_XSAVEC, 3, area, &plan);
    assert_int_equal(plan.bv, 2);
}

static void restore_refuses_bad_headers(void **state)
{
    (void)state;
    struct sm_xstate_layout l = layout();
    struct sm_xstate_plan plan;
    static const struct {
        enum sm_insn_op op;
        uint64_t bv, xcomp;
        unsigned dirty; /* this byte of the header is set, too; 0: none */
        bool good;
    } rows[] = {
        {SM_INSN_XRSTOR, 7, 0, 0, true},
        {SM_INSN_XRSTOR, 0, 0, 0, true},
        {SM_INSN_XRSTOR, 7, 0, 24, true}, /* standard format: not looked at */
        {SM_INSN_XRSTOR, 7, 0, 16, false},
        {SM_INSN_XRSTOR, 7, 7, 0, false}, /* XCOMP_BV without bit 63 */
        {SM_INSN_XRSTOR, 0x100, 0, 0, false},
        {SM_INSN_XRSTORS, 7, 0, 0, false}, /* compacted only */
        {SM_INSN_XRSTOR, 7, 7 | SM_XSTATE_COMPACTED, 0, true},
        {SM_INSN_XRSTORS, 3, 7 | SM_XSTATE_COMPACTED, 0, true},
        {SM_INSN_XRSTORS, 7, 3 | SM_XSTATE_COMPACTED, 0, false}, /* present, but no place */
        {SM_INSN_XRSTORS, 7, 0x107 | SM_XSTATE_COMPACTED, 0, false},
        {SM_INSN_XRSTORS, 7, 7 | SM_XSTATE_COMPACTED, 63, false},
        {SM_INSN_XRSTORS, UINT64_MAX, UINT64_MAX, 0, false},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(rows); i++) {
        uint8_t header[64] = {0};
        sm_store_le64(header, rows[i].bv);
        sm_store_le64(header + 8, rows[i].xcomp);
        if (rows[i].dirty)
            header[rows[i].dirty] = 1;
        if (sm_xstate_plan_restore(&l, rows[i].op, UINT64_MAX, 0x67, header, &plan) != rows[i].good)
            fail_msg("row %zu", i);
    }
}

static void reserved_mxcsr_bits_are_refused(void **state)
{
    (void)state;
    struct sm_xstate_plan plan = {.bv = 3};
    uint8_t area[AREA] = {0};
    sm_store_le32(area + 28, 0xffff);
    sm_store_le32(area + 24, 0x1f80);
    assert_true(sm_xstate_finish_restore(7, 0, 0x1f80, &plan, area));
    assert_int_equal(sm_load_le64(area + 512), 3);
    sm_store_le32(area + 24, 0x10000);
    assert_false(sm_xstate_finish_restore(7, 0, 0x1f80, &plan, area));
}

static void components_not_restored_stay_or_become_initial(void **state)
{
    (void)state;
    struct sm_xstate_plan plan = {.bv = 1, .compacted = true};
    uint8_t area[AREA] = {0};
    sm_store_le32(area + 24, 0x1fa0);
    memset(area + 160, 0xaa, 256);
    assert_true(sm_xstate_finish_restore(3, 0x62, 0x1fa0, &plan, area));
    assert_int_equal(sm_load_le64(area + 512), 0x61);  /* SSE initial, 5 and 6 untouched */
    assert_int_equal(sm_load_le32(area + 24), 0x1f80); /* and MXCSR with SSE */
    /* SSE not asked for: MXCSR keeps its value, which makes SSE count as in use */
    sm_store_le32(area + 24, 0);
    assert_true(sm_xstate_finish_restore(1, 0, 0x1fa0, &plan, area));
    assert_int_equal(sm_load_le32(area + 24), 0x1fa0);
    assert_int_equal(sm_load_le64(area + 512), 3);
}

/* ---- against this CPU ---------------------------------------------------------------------- */

__attribute__((target("xsave"))) static void cpu_xsave(void *p, uint64_t mask)
{
    __builtin_ia32_xsave64(p, (long long)mask);
}

__attribute__((target("xsavec"))) static void cpu_xsavec(void *p, uint64_t mask)
{
    __builtin_ia32_xsavec64(p, (long long)mask);
}

__attribute__((target("xsave"))) static void cpu_xrstor(void *p, uint64_t mask)
{
    __builtin_ia32_xrstor64(p, (long long)mask);
}

static uint64_t xcr0(void)
{
    uint32_t a, d;
    __asm__ volatile("xgetbv" : "=a"(a), "=d"(d) : "c"(0));
    return a | (uint64_t)d << 32;
}

/* Makes the compacted area that XSAVEC wrote out of the standard one, by our plan, and compares. */
static void agrees_with_this_cpu(void **state)
{
    (void)state;
    unsigned a, b, c, d;
    if (!__get_cpuid_count(1, 0, &a, &b, &c, &d) || !(c & 1u << 27) ||
        !__get_cpuid_count(0xd, 1, &a, &b, &c, &d) || !(a & 2))
        skip(); /* no XSAVEC, or not switched on */
    struct sm_xstate_layout l;
    sm_xstate_layout_read(&l, AREA);
    uint64_t rfbm =
        xcr0() & l.components & ~(3ULL << 17); /* not AMX: asking for it is a permission */
    uint8_t *standard = aligned_alloc(64, AREA), *compacted = aligned_alloc(64, AREA);
    uint8_t *ours = aligned_alloc(64, AREA), *back = aligned_alloc(64, AREA);
    memset(standard, 0, AREA);
    memset(compacted, 0, AREA);
    memset(ours, 0, AREA);
    memset(back, 0, AREA);
    uint64_t value[4] = {1, 2, 3, 4};
    __asm__ volatile("vmovdqu %0, %%ymm7\n\tfld1" : : "m"(value) : "memory");
    cpu_xsave(standard, rfbm);
    cpu_xsavec(compacted, rfbm);
    __asm__ volatile("fstp %%st(0)" : : : "memory");

    struct sm_xstate_plan plan;
    sm_xstate_plan_save(&l, SM_INSN_XSAVEC, rfbm, standard, &plan);
    for (unsigned i = 0; i < plan.n; i++)
        memcpy(ours + plan.pieces[i].guest, standard + plan.pieces[i].host, plan.pieces[i].bytes);
    sm_store_le64(ours + 512, plan.bv);
    sm_store_le64(ours + 520, plan.xcomp);
    assert_int_equal(sm_load_le64(ours + 512), sm_load_le64(compacted + 512));
    assert_int_equal(sm_load_le64(ours + 520), sm_load_le64(compacted + 520));
    if (plan.bv & 4)
        assert_memory_equal(ours + 576, compacted + 576, 256);

    /* And back: the plan of a restore turns it into the standard area again. */
    assert_true(sm_xstate_plan_restore(&l, SM_INSN_XRSTOR, rfbm, rfbm, ours + 512, &plan));
    sm_store_le32(back + 28, sm_load_le32(standard + 28));
    for (unsigned i = 0; i < plan.n; i++)
        memcpy(back + plan.pieces[i].host, ours + plan.pieces[i].guest, plan.pieces[i].bytes);
    assert_true(sm_xstate_finish_restore(rfbm, 0, 0x1f80, &plan, back));
    assert_memory_equal(back, standard, 24);
    for (unsigned i = 2; i < 20; i++) {
        if (plan.bv >> i & 1)
            assert_memory_equal(back + l.c[i].offset, standard + l.c[i].offset, l.c[i].size);
    }
    cpu_xrstor(back, rfbm); /* a #GP here would be a header we made wrong */
    free(standard);
    free(compacted);
    free(ours);
    free(back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(standard_save_writes_all_that_is_asked_for),
        cmocka_unit_test(compacted_save_packs),
        cmocka_unit_test(restore_refuses_bad_headers),
        cmocka_unit_test(reserved_mxcsr_bits_are_refused),
        cmocka_unit_test(components_not_restored_stay_or_become_initial),
        cmocka_unit_test(agrees_with_this_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
