/* What a guest can put before the assist: instruction bytes, page tables, XSAVE headers. */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/insn.h"
#include "arch/x86_64/paging.h"
#include "arch/x86_64/xstate.h"
#include "util/bytes.h"

#define RAM  16384u
#define AREA 8192u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Alignas(4096) uint8_t ram[RAM];

static void *ram_at(void *arg, uint64_t gpa, uint64_t bytes)
{
    (void)arg;
    return gpa < RAM && bytes <= RAM - gpa ? ram + gpa : NULL;
}

static void decode(const uint8_t *data, size_t size)
{
    uint64_t gpr[16] = {0};
    struct sm_insn i = sm_insn_decode(data, size);
    bool known = i.op != SM_INSN_UNKNOWN && i.op != SM_INSN_TRUNCATED;
    if (known && (i.length == 0 || i.length > SM_INSN_MAX_BYTES || i.length > size))
        abort();
    if (i.reg > 15 || i.rm > 15 || i.base > 15 || i.index > 15 || i.scale_shift > 3)
        abort();
    (void)sm_insn_address(&i, gpr, 0x1000, 0, 0);
}

/* Input: va, control bits, then the tables from address 0 on. */
static void walk(const uint8_t *data, size_t size)
{
    struct sm_x86_paging p = {.physical_bits = 36 + data[8] % 17, .ram = ram_at};
    uint64_t gpa = 0;
    uint32_t error = 0;
    memset(ram, 0, sizeof(ram));
    memcpy(ram, data + 12, SM_MIN(size - 12, sizeof(ram)));
    p.cr0 = SM_X86_CR0_PE | SM_X86_CR0_PG | (data[9] & 1 ? SM_X86_CR0_WP : 0);
    p.cr3 = (uint64_t)(data[10] & 3) << 12;
    p.cr4 = (data[9] & 2 ? SM_X86_CR4_SMEP : 0) | (data[9] & 4 ? SM_X86_CR4_SMAP : 0);
    p.efer = SM_X86_EFER_LMA | (data[9] & 8 ? SM_X86_EFER_NXE : 0);
    p.cpl = data[9] & 16 ? 3 : 0;
    enum sm_x86_access access = data[11] % 3;
    uint64_t va = sm_load_le64(data);
    if (sm_x86_walk(&p, va, access, &gpa, &error) == SM_X86_WALK_OK &&
        (gpa >> p.physical_bits || (gpa & 4095) != (va & 4095)))
        abort();
}

/* Input: instruction, requested features, header. */
static void xstate(const uint8_t *data)
{
    struct sm_xstate_layout l = {
        .components = 7 | 7 << 5 | 1 << 11, .supervisor = 1 << 11, .aligned = 1 << 6};
    struct sm_xstate_plan plan;
    uint8_t area[AREA] = {0};
    l.c[2].offset = 576, l.c[2].size = 256;
    l.c[5].offset = 1088, l.c[5].size = 64;
    l.c[6].offset = 1152, l.c[6].size = 512;
    l.c[7].offset = 1664, l.c[7].size = 1024;
    l.c[11].size = 16;
    enum sm_insn_op op = data[0] & 1 ? SM_INSN_XRSTOR : SM_INSN_XRSTORS;
    uint64_t rfbm = sm_load_le64(data + 1);
    bool good = sm_xstate_plan_restore(&l, op, rfbm, 0xe7, data + 9, &plan);
    if (good) {
        (void)sm_xstate_finish_restore(rfbm, sm_load_le64(data + 9), 0x1f80, &plan, area);
    } else {
        memcpy(area + SM_XSTATE_LEGACY_BYTES, data + 9, SM_XSTATE_HEADER_BYTES);
        sm_xstate_plan_save(&l, data[0] & 2 ? SM_INSN_XSAVES : SM_INSN_XSAVE, rfbm, area, &plan);
    }
    for (unsigned i = 0; i < plan.n; i++) {
        const struct sm_xstate_piece *p = &plan.pieces[i];
        if (p->host > AREA || p->bytes > AREA - p->host || p->guest > AREA ||
            p->bytes > AREA - p->guest)
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    decode(data, size);
    if (size >= 13)
        walk(data, size);
    if (size >= 9 + SM_XSTATE_HEADER_BYTES)
        xstate(data);
    return 0;
}
