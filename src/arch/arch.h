/*
 * The architecture: all that vmm asks of one, as plain functions of which one folder (x86_64/) is
 * linked. stub/ answers "not here" to all of it.
 *
 * An architecture decides where things are in a machine and how a kernel is entered. It deals in
 * numbers only: it makes no device, opens no file and calls no hypervisor. What a vCPU is to begin
 * with is told as a saved state is, in the lists of vcpu_state.h, so there is one door for
 * registers on every architecture and hypervisor.
 *
 * Thread-safe: everything here is pure, or writes to what the caller gave.
 */
#ifndef SM_ARCH_ARCH_H
#define SM_ARCH_ARCH_H

#include <stdbool.h>
#include <stdint.h>

#include <supermachine.h>

#include "arch/vcpu_state.h"

/* Of snapshots that this architecture makes and takes. */
enum sm_arch_tag sm_arch_tag(void);

/* ---- where things are ---------------------------------------------------------------------- */

/* Guest RAM of `bytes` bytes: in what pieces, in the order of the addresses, it appears to the
 * guest. */
#define SM_ARCH_MAX_RAM 2
struct sm_arch_ram {
    unsigned n;
    struct {
        uint64_t gpa, bytes;
    } piece[SM_ARCH_MAX_RAM];
};
int sm_arch_ram(uint64_t bytes, struct sm_arch_ram *ram, sm_error *err);

/* The address from which on files may be mapped for the guest: 2 MiB aligned, above all RAM that a
 * machine may have, 1 TiB is free from there. */
uint64_t sm_arch_files_base(void);

/* The place of virtio-mmio device `index`: its register window (SM_ARCH_WINDOW_BYTES long) and its
 * interrupt. SM_ELIMIT where the chips have no further interrupt. */
#define SM_ARCH_WINDOW_BYTES 4096
#define SM_ARCH_MAX_PLACES   32 /* no architecture has more */
struct sm_arch_place {
    uint64_t window;
    unsigned irq;
};
int sm_arch_place(unsigned index, struct sm_arch_place *place, sm_error *err);

/* What every machine has beside virtio. bytes 0: there is none. */
struct sm_arch_port {
    bool pio; /* an I/O port, not memory-mapped */
    uint64_t base, bytes;
};
struct sm_arch_platform {
    struct sm_arch_port serial; /* 16550 */
    struct sm_arch_port reset;  /* a store of reset_command resets the machine */
    uint8_t reset_command;
};
const struct sm_arch_platform *sm_arch_platform(void);

/* ---- boot ---------------------------------------------------------------------------------- */

struct sm_arch_boot {
    uint8_t *ram;       /* host address of all RAM, contiguous, the pieces one after the other */
    uint64_t ram_bytes; /* multiple of 2 MiB, at least 32 MiB */
    unsigned vcpus;
    int kernel_fd;
    int initramfs_fd;  /* -1: none */
    bool emulated;     /* guest kernel mode is: the kernel is told to be easy on the emulator */
    const char *words; /* come last on the kernel command line, and so win; NULL: none */
    const struct sm_arch_place *places; /* of the devices that the guest is to find */
    unsigned n_places;
};

/* Puts kernel, initramfs, command line and what describes the machine into RAM, and into *vcpu0
 * (empty before) the first state of vCPU 0; all others have an empty one. Nothing is promised about
 * RAM after a failure; *vcpu0 is the caller's to clear in any case. */
int sm_arch_boot(const struct sm_arch_boot *boot, struct sm_vcpu_state *vcpu0, sm_error *err);

#endif
