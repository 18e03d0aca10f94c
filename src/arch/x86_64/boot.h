/*
 * Direct boot of an x86_64 Linux kernel by its 64-bit entry (Documentation/arch/x86/boot.rst): the
 * kernel image, boot_params, command line, initramfs, MP table, page tables and GDT go into guest
 * RAM.
 *
 * Kernel and initramfs files are hostile: every number is checked against the file's size and
 * against RAM before use. They are read straight to where they belong.
 *
 * Low memory:
 *     0x00500  GDT                      0x20000  command line (64 KiB at most)
 *     0x07000  boot_params              0x9fc00  MP table
 *     0x08000  stack (grows down from 0x9000)
 *     0x09000  page tables: 4 GiB identity-mapped with 2 MiB pages
 */
#ifndef SM_ARCH_X86_64_BOOT_H
#define SM_ARCH_X86_64_BOOT_H

#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

#include "arch/arch.h"

#define SM_X86_RAM_LOW_END    0xc0000000ULL /* RAM beyond goes on at 4 GiB */
#define SM_X86_RAM_HIGH_START 0x100000000ULL

#define SM_X86_IOAPIC_PINS 24

#define SM_X86_CMDLINE_MAX 2047 /* COMMAND_LINE_SIZE of x86 Linux is 2048 */

/* sm_arch_boot with the whole command line. */
int sm_x86_boot_load(const struct sm_arch_boot *boot, const char *cmdline,
    struct sm_vcpu_state *vcpu0, sm_error *err);

/* Only GDT and page tables, in RAM of at least 128 KiB; and the registers that go with them, for a
 * guest that begins at `entry` with `arg` in RSI. */
int sm_x86_boot_tables(uint8_t *ram, uint64_t ram_bytes, sm_error *err);
int sm_x86_boot_state(uint64_t entry, uint64_t arg, struct sm_vcpu_state *state, sm_error *err);

/* The kernel command line; malloc'ed. */
int sm_x86_cmdline(const struct sm_arch_boot *boot, char **cmdline, sm_error *err);

/* ---- parts, for tests ---- */

/* Where a kernel lies after loading. */
struct sm_kernel_image {
    uint64_t entry;
    uint64_t end; /* first address past it, what it uses before it knows its memory map included */
    uint8_t setup_header[128]; /* of a bzImage, from file offset 0x1f1 on; else zero */
    size_t setup_header_bytes;
    uint64_t initramfs_max; /* highest address that the initramfs may use */
};

int sm_x86_load_kernel(
    int fd, uint8_t *ram, uint64_t ram_bytes, struct sm_kernel_image *image, sm_error *err);

#define SM_X86_MPTABLE_GPA 0x9fc00
#define SM_X86_MPTABLE_MAX 0x400

/* Writes the MP table to `table`, which will be at SM_X86_MPTABLE_GPA; returns its bytes. */
size_t sm_x86_mptable(uint8_t table[SM_X86_MPTABLE_MAX], unsigned vcpus);

#endif
