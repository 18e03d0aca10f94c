/*
 * What the guest's CPUID says: what KVM supports, plus the topology of this VM. The digest covers
 * all of it that does not depend on which core asked, and the features of the bare CPU too, because
 * guests of hosts that emulate kernel mode read the real CPUID (see assist.c).
 *
 * Not offered, though KVM has them: nested virtualisation and performance counters. Both are much
 * code of the host's kernel that a guest could reach, and a snapshot holds no state of either.
 * Their MSRs are left out of snapshots with them (cpu.c).
 *
 * System calls at set-up: ioctl(KVM_CHECK_EXTENSION, KVM_GET_SUPPORTED_CPUID, KVM_SET_CPUID2).
 */
#include <asm/kvm_para.h>
#include <cpuid.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/kvm/x86_64/x86.h"
#include "util/cleanup.h"
#include "util/error.h"

#define MAX_ENTRIES 256
#define SPARE       4 /* room for topology leaves that KVM's list lacks */

#define LEAF1_ECX_VMX          (1u << 5)
#define LEAF1_ECX_PDCM         (1u << 15)
#define LEAF1_ECX_TSC_DEADLINE (1u << 24)
#define LEAF1_ECX_HYPERVISOR   (1u << 31)
#define LEAF1_EDX_HTT          (1u << 28)
#define LEAF7_EDX_ARCH_LBR     (1u << 19)
#define EXT1_ECX_SVM           (1u << 2)
#define EXT1_ECX_TOPOEXT       (1u << 22)
/* core, northbridge, last level cache */
#define EXT1_ECX_PERFCTR (1u << 23 | 1u << 24 | 1u << 28)

/* Of KVM's paravirtual features a guest gets: clock (0, 3, 24), no I/O delay (1), steal time (5),
 * EOI (6), TLB flush (9), halt polling control (12). Not those that make it do hypercalls (kicks,
 * IPIs, yields): where kernel mode is emulated, KVM rewrites the hypercall instruction in the
 * guest's read-only text and the guest dies of the page fault. Nor asynchronous page faults: they
 * would be one more thing under way at a capture. */
#define PV_FEATURES 0x0100126bu

static void digest_bytes(uint64_t h[2], const void *data, size_t n)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) {
        h[0] = (h[0] ^ p[i]) * 0x100000001b3ULL; /* FNV-1a, twice with different starts */
        h[1] = (h[1] ^ p[i] ^ (h[0] >> 56)) * 0x100000001b3ULL;
    }
}

static void digest(struct sm_hv *hv)
{
    uint64_t h[2] = {0xcbf29ce484222325ULL, 0x84222325cbf29ce4ULL};
    for (unsigned i = 0; i < hv->cpu->cpuid->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &hv->cpu->cpuid->entries[i];
        uint32_t v[] = {e->function, e->index, e->eax, e->ebx, e->ecx, e->edx};
        digest_bytes(h, v, sizeof(v));
    }
    static const uint32_t bare[][2] = {{1, 0}, {7, 0}, {7, 1}, {0xd, 0}, {0xd, 1}};
    for (size_t i = 0; i < sizeof(bare) / sizeof(bare[0]); i++) {
        uint32_t a, b, c, d; /* an unknown leaf reads as something that is the same every time */
        __cpuid_count(bare[i][0], bare[i][1], a, b, c, d);
        if (bare[i][0] != 7)
            b = 0; /* APIC id, or size for what is switched on now */
        const uint32_t v[] = {a, b, c, d};
        digest_bytes(h, v, sizeof(v));
    }
    memcpy(hv->digest, h, sizeof(h));
}

/* Takes out of an entry what is not offered, and notes what it tells of the CPU. False: the leaf is
 * left out. */
static bool clean(struct kvm_cpuid_entry2 *e, struct sm_kvm_cpu *cpu, bool deadline)
{
    switch (e->function) {
    case 1:
        e->ebx &= 0x0000ffff; /* APIC id and count of the core that asked */
        e->ecx &= ~(LEAF1_ECX_VMX | LEAF1_ECX_PDCM);
        e->ecx |= LEAF1_ECX_HYPERVISOR | (deadline ? LEAF1_ECX_TSC_DEADLINE : 0);
        break;
    case KVM_CPUID_FEATURES:
        e->eax &= PV_FEATURES;
        break;
    case 7:
        if (e->index == 0)
            e->edx &= ~LEAF7_EDX_ARCH_LBR;
        break;
    case 0xa:        /* performance counters */
    case 0x1c:       /* last branch records */
    case 0x8000000a: /* SVM */
    case 0x80000022: /* performance counters, AMD */
        e->eax = e->ebx = e->ecx = e->edx = 0;
        break;
    case 0xb:
    case 0x1f: /* ours, see below */
        return false;
    case 0xd:
        if (e->index == 0)
            cpu->xcr0 = e->eax | (uint64_t)e->edx << 32;
        break;
    case 0x80000001:
        e->ecx &= ~(EXT1_ECX_SVM | EXT1_ECX_TOPOEXT | EXT1_ECX_PERFCTR);
        break;
    case 0x80000008:
        cpu->physical_bits = e->eax & 0xff;
        e->ecx = 0;
        break;
    default:
        break;
    }
    return true;
}

int sm_kvm_cpuid_template(struct sm_hv *hv, sm_error *err)
{
    size_t room = MAX_ENTRIES + SPARE;
    struct kvm_cpuid2 *list = calloc(1, sizeof(*list) + room * sizeof(list->entries[0]));
    if (!list)
        return sm_error_set(err, SM_ENOMEM, "no memory for the list of CPU features");
    hv->cpu->cpuid = list; /* sm_kvm_cpu_free frees it */
    list->nent = MAX_ENTRIES;
    if (ioctl(hv->fd, KVM_GET_SUPPORTED_CPUID, list) < 0)
        return sm_error_errno(err, errno, "KVM does not tell the CPU features it supports");

    bool deadline = ioctl(hv->fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
    unsigned kept = 0;
    hv->cpu->physical_bits = 36;
    for (unsigned i = 0; i < list->nent; i++) {
        struct kvm_cpuid_entry2 e = list->entries[i];
        if (clean(&e, hv->cpu, deadline))
            list->entries[kept++] = e;
    }
    list->nent = kept;
    unsigned bits = hv->cpu->physical_bits;
    if (bits < 36 || bits > 52)
        return sm_error_set(
            err, SM_EHYPERVISOR, "KVM tells a physical address width of %u bits", bits);
    digest(hv);
    return 0;
}

/* Bits that an APIC id needs for n vCPUs. */
static unsigned id_bits(unsigned n)
{
    unsigned bits = 0;
    while ((1u << bits) < n)
        bits++;
    return bits;
}

static void add_topology(struct kvm_cpuid2 *list, unsigned n, unsigned id)
{
    const struct kvm_cpuid_entry2 levels[] = {
        {.function = 0xb, .index = 0, .eax = 0, .ebx = 1, .ecx = 1 << 8 | 0, .edx = id},
        {.function = 0xb, .index = 1, .eax = id_bits(n), .ebx = n, .ecx = 2 << 8 | 1, .edx = id},
        {.function = 0xb, .index = 2, .ecx = 2, .edx = id},
    };
    for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
        list->entries[list->nent] = levels[i];
        list->entries[list->nent++].flags = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
    }
}

static int cpuid_for(
    const struct sm_hv_vm *vm, unsigned index, struct kvm_cpuid2 **cpuid, sm_error *err)
{
    const struct kvm_cpuid2 *from = vm->hv->cpu->cpuid;
    unsigned n = vm->n_vcpus;
    struct kvm_cpuid2 *list =
        calloc(1, sizeof(*list) + (from->nent + SPARE) * sizeof(list->entries[0]));
    if (!list)
        return sm_error_set(err, SM_ENOMEM, "no memory for the list of CPU features");
    memcpy(list, from, sizeof(*from) + from->nent * sizeof(from->entries[0]));
    bool has_b = false;
    for (unsigned i = 0; i < list->nent; i++) {
        struct kvm_cpuid_entry2 *e = &list->entries[i];
        if (e->function == 0)
            has_b = e->eax >= 0xb;
        if (e->function == 1) {
            e->ebx |= index << 24 | (1u << id_bits(n)) << 16;
            e->edx = n > 1 ? e->edx | LEAF1_EDX_HTT : e->edx & ~LEAF1_EDX_HTT;
        } else if (e->function == 4 && (e->eax & 0x1f)) {
            bool last = (e->eax >> 5 & 7) >= 3; /* L3 and beyond are shared by all */
            e->eax =
                (e->eax & 0x3fff) | (last ? (n - 1) << 14 : 0) | ((1u << id_bits(n)) - 1) << 26;
        } else if (e->function == 0x80000008) {
            e->ecx = (n - 1) | id_bits(n) << 12;
        }
    }
    if (has_b)
        add_topology(list, n, index);
    *cpuid = list;
    return 0;
}

int sm_kvm_vcpu_init(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    auto_free struct kvm_cpuid2 *cpuid = NULL;
    int rc = cpuid_for(vcpu->vm, vcpu->index, &cpuid, err);
    if (rc)
        return rc;
    if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0)
        return sm_error_errno(
            err, errno, "KVM does not take the CPU features of vCPU %u", vcpu->index);
    return 0;
}
