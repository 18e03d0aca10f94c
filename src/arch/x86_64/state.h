/*
 * Ids of the saved x86_64 vCPU state (arch/vcpu_state.h), as snapshot files hold them. They are
 * part of the file format: never renumber, only add.
 *
 *     simd   id = index of the 16-byte piece of the XSAVE area (standard format)
 *     sys    id = MSR index
 *     icc    id = offset in the local APIC page, 0x00, 0x10, ... 0x3f0; value: 32 bits
 */
#ifndef SM_ARCH_X86_64_STATE_H
#define SM_ARCH_X86_64_STATE_H

/* The list gp. */
enum sm_x86_gp_id {
    SM_X86_GP_RAX = 0x00,
    SM_X86_GP_RBX,
    SM_X86_GP_RCX,
    SM_X86_GP_RDX,
    SM_X86_GP_RSI,
    SM_X86_GP_RDI,
    SM_X86_GP_RSP,
    SM_X86_GP_RBP,
    SM_X86_GP_R8, /* .. R15 = 0x0f */
    SM_X86_GP_RIP = 0x10,
    SM_X86_GP_RFLAGS = 0x11,

    /* Segments: id + SM_X86_SEG_BASE .. SM_X86_SEG_RIGHTS */
    SM_X86_GP_CS = 0x100,
    SM_X86_GP_DS = 0x104,
    SM_X86_GP_ES = 0x108,
    SM_X86_GP_FS = 0x10c,
    SM_X86_GP_GS = 0x110,
    SM_X86_GP_SS = 0x114,
    SM_X86_GP_TR = 0x118,
    SM_X86_GP_LDT = 0x11c,

    SM_X86_GP_GDT_BASE = 0x140,
    SM_X86_GP_GDT_LIMIT,
    SM_X86_GP_IDT_BASE,
    SM_X86_GP_IDT_LIMIT,

    SM_X86_GP_CR0 = 0x150,
    SM_X86_GP_CR2,
    SM_X86_GP_CR3,
    SM_X86_GP_CR4,
    SM_X86_GP_CR8,
    SM_X86_GP_EFER,
    SM_X86_GP_APIC_BASE,

    SM_X86_GP_IRQ_BITMAP = 0x160, /* .. 0x163: an external interrupt that waits for delivery */
};

enum { SM_X86_SEG_BASE, SM_X86_SEG_LIMIT, SM_X86_SEG_SELECTOR, SM_X86_SEG_RIGHTS };

/* Rights of a segment in one word: type 0-3, S 4, DPL 5-6, P 7, AVL 12, L 13, DB 14, G 15,
 * unusable 16. */

/* The list redist. */
enum sm_x86_redist_id {
    SM_X86_RD_MP_STATE =
        0x00, /* 0 runnable, 1 waits for INIT, 2 INIT received, 3 halted, 4 SIPI received */
    SM_X86_RD_XCR0 = 0x10,
    SM_X86_RD_DR0 = 0x20, /* .. DR3 = 0x23 */
    SM_X86_RD_DR6 = 0x26,
    SM_X86_RD_DR7 = 0x27,

    SM_X86_RD_EXCEPTION_INJECTED = 0x40,
    SM_X86_RD_EXCEPTION_NR,
    SM_X86_RD_EXCEPTION_HAS_ERROR,
    SM_X86_RD_EXCEPTION_ERROR,
    SM_X86_RD_INTERRUPT_INJECTED,
    SM_X86_RD_INTERRUPT_NR,
    SM_X86_RD_INTERRUPT_SOFT,
    SM_X86_RD_INTERRUPT_SHADOW,
    SM_X86_RD_NMI_INJECTED,
    SM_X86_RD_NMI_PENDING,
    SM_X86_RD_NMI_MASKED,
    SM_X86_RD_SIPI_VECTOR,
};

#define SM_X86_MSR_TSC          0x10u
#define SM_X86_MSR_TSC_DEADLINE 0x6e0u

/* Local APIC: timer's vector register, and its fields. */
#define SM_X86_LAPIC_BYTES          0x400u
#define SM_X86_LAPIC_LVTT           0x320u
#define SM_X86_LAPIC_LVT_MASKED     (1u << 16)
#define SM_X86_LAPIC_TIMER_MODE     (3u << 17)
#define SM_X86_LAPIC_TIMER_DEADLINE (2u << 17)

#endif
