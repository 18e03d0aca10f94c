/*
 * One VM's own of x86_64: pages that KVM hides, interrupt controllers, clock, and their state.
 *
 * System calls at set-up: ioctl(KVM_SET_IDENTITY_MAP_ADDR, KVM_SET_TSS_ADDR, KVM_CREATE_IRQCHIP,
 * KVM_SET_IRQCHIP, KVM_SET_CLOCK).
 * System calls at a capture: ioctl(KVM_GET_IRQCHIP, KVM_GET_CLOCK).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/kvm/x86_64/x86.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

/* Three pages that KVM on Intel hides from the guest and one more for an identity page table: below
 * the 4 GiB firmware area, where no RAM or device of ours is. */
#define IDENTITY_MAP_GPA 0xfffbc000ULL
#define TSS_GPA          0xfffbd000ULL

int sm_kvm_vm_init(struct sm_hv_vm *vm, sm_error *err)
{
    uint64_t identity_map = IDENTITY_MAP_GPA;
    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
        ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0)
        return sm_error_errno(err, errno, "KVM does not take the address of its private pages");
    return 0;
}

/* The chips first: a vCPU gets its local APIC when it is made. */
int sm_hv_vm_make_cpus(struct sm_hv_vm *vm, unsigned n, sm_error *err)
{
    if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return sm_error_errno(err, errno, "KVM cannot create the interrupt controllers");
    return sm_kvm_make_vcpus(vm, n, err);
}

/* ---- their state ----------------------------------------------------------------------------- */

/* The blob: a mark, then the three chips as KVM has them (little-endian, as all of x86), then the
 * clock, for the record. Lengths are fixed, so there is nothing to lie about. */
struct blob {
    char mark[8];
    struct kvm_irqchip chips[3]; /* master PIC, slave PIC, IOAPIC */
    uint64_t clock_ns;
    uint64_t realtime_ns; /* 0: the kernel did not tell */
    uint64_t host_tsc;    /* likewise */
};

static const char blob_mark[8] = "x86irq1";

int sm_hv_vm_save(struct sm_hv_vm *vm, void **out, size_t *bytes, uint64_t *clock_ns, sm_error *err)
{
    auto_free struct blob *blob = calloc(1, sizeof(*blob));
    if (!blob)
        return sm_error_set(err, SM_ENOMEM, "no memory for the interrupt controllers' state");
    memcpy(blob->mark, blob_mark, sizeof(blob_mark));
    for (uint32_t i = 0; i < SM_ARRAY_LEN(blob->chips); i++) {
        blob->chips[i].chip_id = i;
        if (ioctl(vm->fd, KVM_GET_IRQCHIP, &blob->chips[i]) < 0)
            return sm_error_errno(
                err, errno, "KVM does not give the state of interrupt chip %u", i);
    }
    struct kvm_clock_data clock = {0};
    if (ioctl(vm->fd, KVM_GET_CLOCK, &clock) < 0)
        return sm_error_errno(err, errno, "KVM does not give the guest's clock");
    blob->clock_ns = clock.clock;
    blob->realtime_ns = clock.flags & KVM_CLOCK_REALTIME ? clock.realtime : 0;
    blob->host_tsc = clock.flags & KVM_CLOCK_HOST_TSC ? clock.host_tsc : 0;
    *clock_ns = clock.clock;
    *bytes = sizeof(*blob);
    *out = sm_steal_ptr(&blob);
    return 0;
}

int sm_hv_vm_restore(struct sm_hv_vm *vm, const void *data, size_t bytes, sm_error *err)
{
    struct blob blob;
    if (bytes != sizeof(blob) || memcmp(data, blob_mark, sizeof(blob_mark)))
        return sm_error_set(err, SM_ECORRUPT,
            "the interrupt controllers' state is not that of an x86_64 KVM machine (%zu bytes)",
            bytes);
    memcpy(&blob, data, sizeof(blob));
    for (uint32_t i = 0; i < SM_ARRAY_LEN(blob.chips); i++) {
        if (blob.chips[i].chip_id != i)
            return sm_error_set(
                err, SM_ECORRUPT, "interrupt chip %u is called %u", i, blob.chips[i].chip_id);
    }
    for (uint32_t i = 0; i < SM_ARRAY_LEN(blob.chips); i++) {
        if (ioctl(vm->fd, KVM_SET_IRQCHIP, &blob.chips[i]) < 0)
            return sm_error_errno(
                err, errno, "KVM does not take the state of interrupt chip %u", i);
    }
    return 0;
}

int sm_hv_vm_set_clock(struct sm_hv_vm *vm, uint64_t clock_ns, sm_error *err)
{
    struct kvm_clock_data clock = {.clock = clock_ns};
    if (ioctl(vm->fd, KVM_SET_CLOCK, &clock) < 0)
        return sm_error_errno(err, errno, "KVM does not take the guest's clock");
    return 0;
}
