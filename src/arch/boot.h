/* What the boot protocol wants of vCPU 0: filled by arch/<arch>/, loaded by the hypervisor. */
#ifndef SM_ARCH_BOOT_H
#define SM_ARCH_BOOT_H

#include <stdint.h>

struct sm_boot_regs {
    uint64_t entry;      /* first instruction (x86_64: virtual = physical, identity-mapped) */
    uint64_t arg;        /* x86_64: RSI, boot_params; aarch64: X0, device tree */
    uint64_t stack;      /* x86_64 only, as what follows */
    uint64_t page_table; /* CR3 */
    uint64_t gdt;
    uint16_t gdt_bytes;
};

#endif
