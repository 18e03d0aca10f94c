/*
 * Decoder for the few instructions that some hypervisors cannot emulate in guest kernel mode
 * (hypervisor/kvm/x86_64/assist.c). Pure: bytes in, description out; 64-bit mode only.
 *
 * It knows what is listed here and nothing else: every other encoding, also one that differs only
 * in a prefix that makes another instruction of it, is SM_INSN_UNKNOWN.
 */
#ifndef SM_ARCH_X86_64_INSN_H
#define SM_ARCH_X86_64_INSN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SM_INSN_MAX_BYTES 15

enum sm_insn_op {
    SM_INSN_UNKNOWN,
    SM_INSN_TRUNCATED, /* more bytes are needed to tell */
    SM_INSN_INT3,
    SM_INSN_FWAIT,
    SM_INSN_CLAC,
    SM_INSN_STAC,
    SM_INSN_XGETBV,
    SM_INSN_XSETBV,
    SM_INSN_POPCNT,
    SM_INSN_LSL, /* of a selector in a register */
    SM_INSN_CMPXCHG16B,
    SM_INSN_XSAVE,
    SM_INSN_XSAVEOPT,
    SM_INSN_XSAVEC,
    SM_INSN_XSAVES,
    SM_INSN_XRSTOR,
    SM_INSN_XRSTORS,
};

enum sm_insn_segment { SM_INSN_SEG_NONE, SM_INSN_SEG_FS, SM_INSN_SEG_GS };

struct sm_insn {
    enum sm_insn_op op;
    uint8_t length;
    uint8_t operand_bytes; /* 2, 4 or 8 */
    bool wide;             /* REX.W */
    bool memory;           /* the r/m operand is memory, else register `rm` */
    bool rip_relative;
    bool address32;
    uint8_t reg,
        rm; /* register numbers 0..15 as the CPU counts them (RAX, RCX, RDX, RBX, RSP...) */
    int8_t base, index;  /* -1: none */
    uint8_t scale_shift; /* of the index */
    int32_t displacement;
    enum sm_insn_segment segment;
};

/* Decodes one instruction from `n` bytes. */
struct sm_insn sm_insn_decode(const uint8_t *bytes, size_t n);

/* The linear address of the memory operand. gpr[] in the CPU's counting; rip is the
 * instruction's. */
uint64_t sm_insn_address(const struct sm_insn *insn, const uint64_t gpr[16], uint64_t rip,
    uint64_t fs_base, uint64_t gs_base);

#endif
