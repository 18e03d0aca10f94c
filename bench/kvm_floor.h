/*
 * The floor under every restore: the least that the kernel's own calls cost to make a VM with one
 * copy-on-write memory slot, interrupt chips and one vCPU, and to reach its first exit. What a VMM
 * takes beyond that is its own doing.
 */
#ifndef BENCH_KVM_FLOOR_H
#define BENCH_KVM_FLOOR_H

#include <stdint.h>

enum kvm_floor_stage {
    FLOOR_OPEN,
    FLOOR_VM,
    FLOOR_MAP_RAM,
    FLOOR_MEMSLOT, /* before the interrupt chips: after them it waits for an SRCU grace period */
    FLOOR_IRQCHIP,
    FLOOR_PIT,
    FLOOR_VCPU,
    FLOOR_MAP_RUN,
    FLOOR_CPUID,
    FLOOR_REGS,
    FLOOR_RUN,
    FLOOR_STAGES,
};

extern const char *const kvm_floor_names[FLOOR_STAGES];

/* A file of `bytes` whose first page of code ends in an exit; -1 and errno. */
int kvm_floor_make_ram(const char *dir, uint64_t bytes);

/* One VM up to its first exit; microseconds of each stage. Its end is not counted, as it happens
 * off the hot path. 0, or -1 and errno. */
int kvm_floor_run(int ram_fd, uint64_t bytes, double us[FLOOR_STAGES]);

#endif
