/*
 * What the files of kvm/ share, on every architecture. Nothing outside of this directory includes
 * it.
 *
 * What an architecture adds (arch.h) lies in kvm/ARCH/, and is reached through the two pointers
 * whose structures only that folder knows.
 */
#ifndef SM_HYPERVISOR_KVM_H
#define SM_HYPERVISOR_KVM_H

#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>

#include "arch/vcpu_state.h"
#include "hypervisor/hypervisor.h"

struct sm_kvm_cpu;    /* kvm/ARCH/: what KVM offers of the host's CPU */
struct sm_kvm_assist; /* kvm/ARCH/: what a vCPU needs whose instructions are completed */

struct sm_hv {
    int fd;
    size_t run_bytes; /* of the shared run structure of a vCPU */
    struct sm_kvm_cpu *cpu;
    uint8_t digest[SM_CPU_DIGEST_BYTES];
};

struct sm_kvm_slot {
    uint64_t gpa, bytes; /* bytes 0: free */
    uint8_t *host;
    bool read_only;
};

struct sm_hv_vm {
    const struct sm_hv *hv;
    int fd;
    struct sm_hv_vcpu *vcpus[SM_MACHINE_MAX_VCPUS];
    unsigned n_vcpus;
    struct sm_kvm_slot slots[SM_HV_MAX_SLOTS]; /* changed only while no vCPU runs */
    unsigned n_slots;                          /* highest used + 1 */
};

struct sm_hv_vcpu {
    struct sm_hv_vm *vm;
    int fd;
    unsigned index;
    struct kvm_run *run;

    pthread_mutex_t lock; /* of the next three */
    bool bound;
    bool kicked_unbound;
    pthread_t thread;

    int stats_fd; /* of stats.c; -1: instructions are not counted */
    off_t instructions_at;
    struct sm_kvm_assist *assist; /* made on its first use, freed with the vCPU */
    atomic_ullong exits;
    atomic_ullong by_kind[SM_HV_EXIT_KINDS];
    atomic_ullong assists;
};

/* One thing that KVM must have (KVM_CHECK_EXTENSION); SM_EUNSUPPORTED names the first that is
 * missing. */
struct sm_kvm_need {
    int cap;
    const char *name;
};
int sm_kvm_need(int fd, const struct sm_kvm_need *needs, size_t n, sm_error *err);

/* The real-time signal that kicks use. */
int sm_kvm_kick_signal(void);

/* Closes the descriptor of a VM off the caller's time. */
void sm_kvm_dispose(int fd);

/* Host address of guest-physical [gpa, gpa + bytes) if it lies in one slot (that may be written, if
 * `write`); else NULL. */
void *sm_kvm_host(const struct sm_hv_vm *vm, uint64_t gpa, uint64_t bytes, bool write);

/* Makes vCPUs 0..n-1 and nothing else; when, among the chips, is the architecture's to say. */
int sm_kvm_make_vcpus(struct sm_hv_vm *vm, unsigned n, sm_error *err);

int sm_kvm_vcpu_create(
    struct sm_hv_vm *vm, unsigned index, struct sm_hv_vcpu **vcpu, sm_error *err);
void sm_kvm_vcpu_free(struct sm_hv_vcpu *vcpu); /* NULL: nothing */

/* Emulated so far; 0 where they are not counted. */
uint64_t sm_kvm_instructions(const struct sm_hv_vcpu *vcpu);

static inline void sm_kvm_count(atomic_ullong *counter)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + 1,
        memory_order_relaxed); /* one writer: the vCPU's thread */
}

#endif
