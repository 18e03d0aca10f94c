/*
 * Direct boot of an x86_64 Linux kernel by its 64-bit entry (Documentation/arch/x86/boot.rst): the
 * kernel image, boot_params, command line, initramfs, MP table, page tables and GDT go into guest RAM.
 *
 * Kernel and initramfs files are hostile: every number is checked against the file's size and against
 * RAM before use. They are read straight to where they belong.
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

#include "arch/boot.h"

#define SM_X86_RAM_LOW_END    0xc0000000ULL /* RAM beyond goes on at 4 GiB */
#define SM_X86_RAM_HIGH_START 0x100000000ULL

#define SM_X86_CMDLINE_MAX 2047 /* COMMAND_LINE_SIZE of x86 Linux is 2048 */

struct sm_boot_config {
    uint8_t *ram;       /* host address of all RAM, contiguous; GPA 0 first */
    uint64_t ram_bytes; /* multiple of 2 MiB, at least 32 MiB */
    unsigned vcpus;
    int kernel_fd;    /* vmlinux (ELF64) or bzImage */
    int initramfs_fd; /* -1: none */
    const char *cmdline;
};

/* Fills RAM and the registers of vCPU 0. Nothing is promised about RAM after a failure. */
int sm_x86_boot_load(const struct sm_boot_config *config, struct sm_boot_regs *regs, sm_error *err);

/* Only GDT, page tables and stack, in RAM of at least 128 KiB; regs->entry and arg are 0. */
int sm_x86_boot_tables(uint8_t *ram, uint64_t ram_bytes, struct sm_boot_regs *regs, sm_error *err);

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
