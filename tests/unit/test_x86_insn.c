/* The decoder of the few instructions that the assist completes: encodings that it must know, and
 * near ones that it must not take for them. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "arch/x86_64/insn.h"
#include "util/bytes.h"

struct known {
    const char *text;
    uint8_t bytes[16];
    uint8_t n;
    enum sm_insn_op op;
};

static const struct known table[] = {
    {"int3", {0xcc}, 1, SM_INSN_INT3},
    {"fwait", {0x9b}, 1, SM_INSN_FWAIT},
    {"clac", {0x0f, 0x01, 0xca}, 3, SM_INSN_CLAC},
    {"stac", {0x0f, 0x01, 0xcb}, 3, SM_INSN_STAC},
    {"xgetbv", {0x0f, 0x01, 0xd0}, 3, SM_INSN_XGETBV},
    {"xsetbv", {0x0f, 0x01, 0xd1}, 3, SM_INSN_XSETBV},
    {"popcnt rax, rdi", {0xf3, 0x48, 0x0f, 0xb8, 0xc7}, 5, SM_INSN_POPCNT},
    {"popcnt ax, [rdx]", {0x66, 0xf3, 0x0f, 0xb8, 0x02}, 5, SM_INSN_POPCNT},
    {"lsl rax, ax", {0x48, 0x0f, 0x03, 0xc0}, 4, SM_INSN_LSL},
    {"lsl r9d, ecx", {0x44, 0x0f, 0x03, 0xc9}, 4, SM_INSN_LSL},
    {"cmpxchg16b gs:[rsi]", {0x65, 0x48, 0x0f, 0xc7, 0x0e}, 5, SM_INSN_CMPXCHG16B},
    {"lock cmpxchg16b [rdi]", {0xf0, 0x48, 0x0f, 0xc7, 0x0f}, 5, SM_INSN_CMPXCHG16B},
    {"xsave64 [rdi]", {0x48, 0x0f, 0xae, 0x27}, 4, SM_INSN_XSAVE},
    {"xsaveopt64 [rdi]", {0x48, 0x0f, 0xae, 0x37}, 4, SM_INSN_XSAVEOPT},
    {"xsavec64 [rdi]", {0x48, 0x0f, 0xc7, 0x27}, 4, SM_INSN_XSAVEC},
    {"xsaves64 [rdi]", {0x48, 0x0f, 0xc7, 0x2f}, 4, SM_INSN_XSAVES},
    {"xrstor64 [rdi]", {0x48, 0x0f, 0xae, 0x2f}, 4, SM_INSN_XRSTOR},
    {"xrstors64 [rdi]", {0x48, 0x0f, 0xc7, 0x1f}, 4, SM_INSN_XRSTORS},
    {"xrstor [rsp+r12*8+disp32]", {0x42, 0x0f, 0xae, 0xac, 0xe4, 1, 2, 3, 4}, 9, SM_INSN_XRSTOR},
    /* near misses: another prefix, another form, another instruction */
    {"cmpxchg8b [rdi]", {0x0f, 0xc7, 0x0f}, 3, SM_INSN_UNKNOWN},
    {"lsl eax, [rdi]", {0x0f, 0x03, 0x07}, 3, SM_INSN_UNKNOWN},
    {"rdrand eax", {0x0f, 0xc7, 0xf0}, 3, SM_INSN_UNKNOWN},
    {"clwb [rdi]", {0x66, 0x0f, 0xae, 0x37}, 4, SM_INSN_UNKNOWN},
    {"umonitor", {0xf3, 0x0f, 0xae, 0xf0}, 4, SM_INSN_UNKNOWN},
    {"lfence", {0x0f, 0xae, 0xe8}, 3, SM_INSN_UNKNOWN},
    {"lock int3", {0xf0, 0xcc}, 2, SM_INSN_UNKNOWN},
    {"lock popcnt", {0xf0, 0xf3, 0x0f, 0xb8, 0xc0}, 5, SM_INSN_UNKNOWN},
    {"0f b8 without f3", {0x0f, 0xb8, 0xc0}, 3, SM_INSN_UNKNOWN},
    {"vmcall", {0x0f, 0x01, 0xc1}, 3, SM_INSN_UNKNOWN},
    {"nop", {0x90}, 1, SM_INSN_UNKNOWN},
    {"rex that does not count", {0x48, 0x66, 0x0f, 0xc7, 0x0f}, 5, SM_INSN_UNKNOWN},
};

static void known_encodings(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(table); i++) {
        const struct known *k = &table[i];
        struct sm_insn insn = sm_insn_decode(k->bytes, k->n);
        if (insn.op != k->op || (k->op != SM_INSN_UNKNOWN && insn.length != k->n))
            fail_msg("%s: op %d, %u bytes", k->text, insn.op, insn.length);
    }
}

static void every_prefix_of_an_instruction_is_truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(table); i++) {
        for (size_t n = 0; n < table[i].n && table[i].op != SM_INSN_UNKNOWN; n++)
            assert_int_equal(sm_insn_decode(table[i].bytes, n).op, SM_INSN_TRUNCATED);
    }
}

static void more_than_15_bytes_are_no_instruction(void **state)
{
    (void)state;
    uint8_t bytes[20];
    memset(bytes, 0x2e, sizeof(bytes));
    bytes[14] = 0xcc;
    assert_int_equal(sm_insn_decode(bytes, sizeof(bytes)).op, SM_INSN_INT3);
    bytes[14] = 0x2e;
    bytes[15] = 0xcc;
    assert_int_equal(sm_insn_decode(bytes, sizeof(bytes)).op, SM_INSN_UNKNOWN);
}

static void addresses(void **state)
{
    (void)state;
    uint64_t gpr[16];
    for (uint64_t i = 0; i < 16; i++)
        gpr[i] = 0x1000 * (i + 1);
    static const struct {
        uint8_t bytes[12], n;
        uint64_t address;
    } cases[] = {
        {{0x0f, 0xae, 0x27}, 3, 0x8000},                                   /* [rdi] */
        {{0x41, 0x0f, 0xae, 0x27}, 4, 0x10000},                            /* [r15] */
        {{0x0f, 0xae, 0x67, 0xf0}, 4, 0x8000 - 16},                        /* [rdi-16] */
        {{0x0f, 0xae, 0xa7, 0, 1, 0, 0}, 7, 0x8100},                       /* [rdi+256] */
        {{0x0f, 0xae, 0x25, 0, 1, 0, 0}, 7, 0x500000 + 7 + 256},           /* [rip+256] */
        {{0x0f, 0xae, 0x24, 0x24}, 4, 0x5000},                             /* [rsp] */
        {{0x0f, 0xae, 0x24, 0x77}, 4, 0x8000 + 0x7000 * 2},                /* [rdi+rsi*2] */
        {{0x42, 0x0f, 0xae, 0x24, 0xe7}, 5, 0x8000 + 0xd000 * 8},          /* [rdi+r12*8] */
        {{0x0f, 0xae, 0x24, 0x25, 0x78, 0x56, 0x34, 0x12}, 8, 0x12345678}, /* [disp32] */
        {{0x0f, 0xae, 0x24, 0x25, 0, 0, 0, 0x80}, 8, 0xffffffff80000000},  /* sign-extended */
        {{0x65, 0x0f, 0xae, 0x27}, 4, 0x8000 + 0xffff888000000000},        /* gs:[rdi] */
        {{0x64, 0x0f, 0xae, 0x27}, 4, 0x8000 + 0x7f0000000000},            /* fs:[rdi] */
        {{0x67, 0x0f, 0xae, 0x67, 0x80}, 5, 0x8000 - 128},                 /* [edi-128] */
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_insn insn = sm_insn_decode(cases[i].bytes, cases[i].n);
        assert_int_equal(insn.op, SM_INSN_XSAVE);
        assert_int_equal(sm_insn_address(&insn, gpr, 0x500000, 0x7f0000000000, 0xffff888000000000),
            cases[i].address);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_encodings),
        cmocka_unit_test(every_prefix_of_an_instruction_is_truncated),
        cmocka_unit_test(more_than_15_bytes_are_no_instruction),
        cmocka_unit_test(addresses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
