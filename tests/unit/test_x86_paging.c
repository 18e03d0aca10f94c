/* The page walk of the assist on tables made by hand: who may do what, what gets marked, with which
 * error code it ends; and the faults that are SYSCALLs. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "arch/x86_64/paging.h"
#include "arch/x86_64/syscall.h"

#define P  1ULL
#define W  2ULL
#define U  4ULL
#define A  0x20ULL
#define D  0x40ULL
#define PS 0x80ULL
#define NX (1ULL << 63)

/* Tables at 0x1000 (PML4) .. 0x4000 (PT); nothing above is RAM. */
static _Alignas(4096) uint64_t ram[8 * 512];

static void *ram_at(void *arg, uint64_t gpa, uint64_t bytes)
{
    (void)arg;
    return gpa + bytes <= sizeof(ram) ? (uint8_t *)ram + gpa : NULL;
}

static uint64_t *entry(unsigned level, uint64_t va)
{
    return &ram[(4 - level) * 512 + (va >> (12 + 9 * level) & 511)];
}

static struct sm_x86_paging paging(void)
{
    return (struct sm_x86_paging){
        .cr0 = SM_X86_CR0_PE | SM_X86_CR0_PG | SM_X86_CR0_WP,
        .cr3 = 0x1000,
        .cr4 = SM_X86_CR4_PAE | SM_X86_CR4_SMEP | SM_X86_CR4_SMAP,
        .efer = SM_X86_EFER_LMA | SM_X86_EFER_NXE,
        .physical_bits = 46,
        .ram = ram_at,
    };
}

/* Maps va -> 0x123000 with these bits in the last level, everything allowed above. */
static void map(uint64_t va, uint64_t bits)
{
    memset(ram, 0, sizeof(ram));
    for (unsigned level = 3; level > 0; level--)
        *entry(level, va) = (uint64_t)(5 - level) * 0x1000 | P | W | U;
    *entry(0, va) = 0x123000 | bits;
}

static const uint64_t va = 0x7f1234567abcULL;

static enum sm_x86_walk_result walk(
    const struct sm_x86_paging *p, enum sm_x86_access access, uint64_t *gpa, uint32_t *error)
{
    *gpa = 0;
    *error = 0xffff;
    return sm_x86_walk(p, va, access, gpa, error);
}

static void translates_and_marks(void **state)
{
    (void)state;
    struct sm_x86_paging p = paging();
    uint64_t gpa;
    uint32_t error;
    map(va, P | W);
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_OK);
    assert_int_equal(gpa, 0x123abc);
    assert_int_equal(*entry(0, va), 0x123000 | P | W | A);
    assert_int_equal(*entry(3, va) & (A | D), A);
    assert_int_equal(walk(&p, SM_X86_WRITE, &gpa, &error), SM_X86_WALK_OK);
    assert_int_equal(*entry(0, va), 0x123000 | P | W | A | D);
    assert_int_equal(*entry(1, va) & D, 0);
}

static void large_pages(void **state)
{
    (void)state;
    struct sm_x86_paging p = paging();
    uint64_t gpa;
    uint32_t error;
    map(va, 0);
    *entry(1, va) = 0x40000000 | P | W | PS | 0x1000; /* 2 MiB, PAT set */
    assert_int_equal(walk(&p, SM_X86_WRITE, &gpa, &error), SM_X86_WALK_OK);
    assert_int_equal(gpa, 0x40000000 + (va & 0x1fffff));
    *entry(1, va) = 0x40002000 | P | W | PS; /* address bit below 2 MiB */
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_FAULT);
    assert_int_equal(error, SM_X86_PF_PRESENT | SM_X86_PF_RSVD);
    *entry(2, va) = 0x80000000 | P | W | PS; /* 1 GiB */
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_OK);
    assert_int_equal(gpa, 0x80000000 + (va & 0x3fffffff));
    *entry(3, va) |= PS;
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_FAULT);
    assert_int_equal(error, SM_X86_PF_PRESENT | SM_X86_PF_RSVD);
}

/* One row: page bits, who asks what, and the fault (-1: none). */
static void permissions(void **state)
{
    (void)state;
    static const struct {
        uint64_t bits;
        unsigned cpl;
        enum sm_x86_access access;
        bool ac, wp, smap, smep;
        int fault;
    } rows[] = {
        {0, 0, SM_X86_READ, 0, 1, 1, 1, 0},
        {0, 0, SM_X86_WRITE, 0, 1, 1, 1, SM_X86_PF_WRITE},
        {0, 3, SM_X86_WRITE, 0, 1, 1, 1, SM_X86_PF_WRITE | SM_X86_PF_USER},
        {P, 0, SM_X86_READ, 0, 1, 1, 1, -1},
        {P, 0, SM_X86_WRITE, 0, 1, 1, 1, SM_X86_PF_PRESENT | SM_X86_PF_WRITE},
        {P, 0, SM_X86_WRITE, 0, 0, 1, 1, -1}, /* CR0.WP clear */
        {P | W, 3, SM_X86_READ, 0, 1, 1, 1, SM_X86_PF_PRESENT | SM_X86_PF_USER},
        {P | W | U, 3, SM_X86_WRITE, 0, 1, 1, 1, -1},
        {P | U, 3, SM_X86_WRITE, 0, 0, 1, 1, SM_X86_PF_PRESENT | SM_X86_PF_WRITE | SM_X86_PF_USER},
        {P | W | U, 0, SM_X86_WRITE, 0, 1, 1, 1, SM_X86_PF_PRESENT | SM_X86_PF_WRITE}, /* SMAP */
        {P | W | U, 0, SM_X86_WRITE, 1, 1, 1, 1, -1},                              /* after STAC */
        {P | W | U, 0, SM_X86_WRITE, 0, 1, 0, 1, -1},                              /* no SMAP */
        {P | U, 0, SM_X86_FETCH, 1, 1, 1, 1, SM_X86_PF_PRESENT | SM_X86_PF_FETCH}, /* SMEP */
        {P | U, 0, SM_X86_FETCH, 1, 1, 1, 0, -1},
        {P | NX, 0, SM_X86_FETCH, 0, 1, 1, 1, SM_X86_PF_PRESENT | SM_X86_PF_FETCH},
        {P | NX, 0, SM_X86_READ, 0, 1, 1, 1, -1},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct sm_x86_paging p = paging();
        uint64_t gpa;
        uint32_t error;
        p.cpl = rows[i].cpl;
        p.rflags = rows[i].ac ? SM_X86_RFLAGS_AC : 0;
        if (!rows[i].wp)
            p.cr0 &= ~SM_X86_CR0_WP;
        if (!rows[i].smap)
            p.cr4 &= ~SM_X86_CR4_SMAP;
        if (!rows[i].smep)
            p.cr4 &= ~SM_X86_CR4_SMEP;
        map(va, rows[i].bits);
        enum sm_x86_walk_result r = walk(&p, rows[i].access, &gpa, &error);
        if (r != (rows[i].fault < 0 ? SM_X86_WALK_OK : SM_X86_WALK_FAULT) ||
            (rows[i].fault >= 0 && error != (uint32_t)rows[i].fault))
            fail_msg("row %zu: result %d, error %#x", i, r, error);
    }
}

static void rights_come_from_all_levels(void **state)
{
    (void)state;
    struct sm_x86_paging p = paging();
    uint64_t gpa;
    uint32_t error;
    map(va, P | W);
    *entry(2, va) &= ~W;
    assert_int_equal(walk(&p, SM_X86_WRITE, &gpa, &error), SM_X86_WALK_FAULT);
    map(va, P | W | U);
    *entry(3, va) &= ~U;
    p.cpl = 3;
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_FAULT);
    map(va, P | W);
    *entry(1, va) |= NX;
    p.cpl = 0;
    assert_int_equal(walk(&p, SM_X86_FETCH, &gpa, &error), SM_X86_WALK_FAULT);
    p.efer &= ~SM_X86_EFER_NXE; /* then the bit is reserved */
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_FAULT);
    assert_int_equal(error, SM_X86_PF_PRESENT | SM_X86_PF_RSVD);
}

static void what_cannot_be_walked(void **state)
{
    (void)state;
    struct sm_x86_paging p = paging();
    uint64_t gpa;
    uint32_t error;
    map(va, P | W);
    assert_int_equal(
        sm_x86_walk(&p, 0x800000000000ULL, SM_X86_READ, &gpa, &error), SM_X86_WALK_NONCANONICAL);
    *entry(1, va) = 0x7000000 | P | W | U; /* a table outside of RAM */
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_UNSUPPORTED);
    p.cr4 |= SM_X86_CR4_LA57;
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_UNSUPPORTED);
    p = paging();
    p.cr0 &= ~SM_X86_CR0_PG;
    assert_int_equal(walk(&p, SM_X86_READ, &gpa, &error), SM_X86_WALK_UNSUPPORTED);
}

/* ---- the frame of a SYSCALL that went astray ---- */

#define LSTAR  0xffffffff81a00080ULL
#define SFMASK 0x257fd5ULL /* as Linux sets it */
#define IF     0x200ULL

static const struct sm_x86_fault_frame astray = {
    .error = SM_X86_PF_USER | SM_X86_PF_FETCH | SM_X86_PF_PRESENT,
    .rip = LSTAR,
    .cs = 0x33,
    .rflags = SM_X86_RFLAGS_ONE | SM_X86_RFLAGS_RF,
    .rsp = 0x7ffd0000,
    .ss = 0x2b,
};

static void a_syscall_is_told_from_a_jump(void **state)
{
    (void)state;
    assert_true(sm_x86_is_syscall(&astray, LSTAR, SFMASK));
    struct sm_x86_fault_frame f = astray;
    f.error &=
        ~(uint64_t)SM_X86_PF_PRESENT; /* as page tables of their own for user mode would say */
    assert_true(sm_x86_is_syscall(&f, LSTAR, SFMASK));

    /* user code cannot clear IF; the others may be with it or, at IOPL 3, without it */
    static const uint64_t jumps[] = {IF, IF | 0x400, IF | SM_X86_RFLAGS_AC, IF | 0x100, 0x400,
        SM_X86_RFLAGS_AC, 0x100, 0x3000, 0x4000};
    for (size_t i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
        f = astray;
        f.rflags |= jumps[i];
        assert_false(sm_x86_is_syscall(&f, LSTAR, SFMASK));
    }
    f = astray; /* a guest that does not mask IF: nothing tells them apart */
    f.rflags |= IF;
    assert_false(sm_x86_is_syscall(&f, LSTAR, 0));
    assert_false(sm_x86_is_syscall(&astray, LSTAR, SFMASK & ~IF));
}

static void other_faults_are_no_syscall(void **state)
{
    (void)state;
    assert_false(sm_x86_is_syscall(&astray, LSTAR + 1, SFMASK));
    struct sm_x86_fault_frame f = astray;
    f.cs = 0x10;
    assert_false(sm_x86_is_syscall(&f, LSTAR, SFMASK));
    static const uint64_t errors[] = {SM_X86_PF_USER, SM_X86_PF_FETCH, SM_X86_PF_PRESENT,
        SM_X86_PF_USER | SM_X86_PF_WRITE, SM_X86_PF_USER | SM_X86_PF_FETCH | SM_X86_PF_RSVD};
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        f = astray;
        f.error = errors[i];
        assert_false(sm_x86_is_syscall(&f, LSTAR, SFMASK));
    }
}

static void a_syscall_enters_with_masked_flags(void **state)
{
    (void)state;
    assert_int_equal(sm_x86_syscall_rflags(~0ULL, ~0ULL), SM_X86_RFLAGS_ONE);
    assert_int_equal(sm_x86_syscall_rflags(SM_X86_RFLAGS_RF | IF | 0x400, 0x400), 2 | IF);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(translates_and_marks),
        cmocka_unit_test(large_pages),
        cmocka_unit_test(permissions),
        cmocka_unit_test(rights_come_from_all_levels),
        cmocka_unit_test(what_cannot_be_walked),
        cmocka_unit_test(a_syscall_is_told_from_a_jump),
        cmocka_unit_test(other_faults_are_no_syscall),
        cmocka_unit_test(a_syscall_enters_with_masked_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
