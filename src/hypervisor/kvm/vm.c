/* One VM: memory slots, interrupt controllers, eventfds, VM-wide state. */
#include "hypervisor/kvm/kvm.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

/* Three pages that KVM on Intel hides from the guest and one more for an identity page table: below the
 * 4 GiB firmware area, where no RAM or device of ours is. */
#define IDENTITY_MAP_GPA 0xfffbc000ULL
#define TSS_GPA          0xfffbd000ULL

SM_DEFINE_CLEANUP(struct sm_hv_vm *, sm_hv_vm_close)

int sm_hv_vm_create(struct sm_hv *hv, unsigned vcpus, struct sm_hv_vm **out, sm_error *err)
{
    SM_CLEANUP(sm_hv_vm_close_cleanup) struct sm_hv_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    vm->hv = hv;
    vm->vcpus = vcpus;
    do {
        vm->fd = ioctl(hv->fd, KVM_CREATE_VM, 0);
    } while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0)
        return sm_error_errno(err, errno, "KVM cannot create a VM");
    uint64_t identity_map = IDENTITY_MAP_GPA;
    if (ioctl(vm->fd, KVM_SET_IDENTITY_MAP_ADDR, &identity_map) < 0 ||
        ioctl(vm->fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0)
        return sm_error_errno(err, errno, "KVM does not take the address of its private pages");
    *out = sm_steal_ptr(&vm);
    return 0;
}

void sm_hv_vm_close(struct sm_hv_vm *vm)
{
    if (!vm)
        return;
    sm_kvm_dispose(vm->fd);
    free(vm);
}

static int set_slot(struct sm_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t bytes,
    bool read_only, sm_error *err)
{
    struct kvm_userspace_memory_region region = {
        .slot = slot,
        .flags = read_only ? KVM_MEM_READONLY : 0,
        .guest_phys_addr = gpa,
        .memory_size = bytes,
        .userspace_addr = (uint64_t)(uintptr_t)host,
    };
    if (ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
        return sm_error_errno(err, errno, "KVM does not take memory slot %u (%#llx bytes at %#llx)",
            slot, (unsigned long long)bytes, (unsigned long long)gpa);
    vm->slots[slot] =
        (struct sm_kvm_slot){.gpa = gpa, .bytes = bytes, .host = host, .read_only = read_only};
    if (bytes && slot >= vm->n_slots)
        vm->n_slots = slot + 1;
    return 0;
}

int sm_hv_vm_map(struct sm_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t bytes,
    bool read_only, sm_error *err)
{
    if (slot >= SM_HV_MAX_SLOTS || !bytes || bytes % 4096 || gpa % 4096 || gpa + bytes < gpa)
        return sm_error_set(err, SM_EINVAL, "memory slot %u: %#llx bytes at %#llx make no sense",
            slot, (unsigned long long)bytes, (unsigned long long)gpa);
    return set_slot(vm, slot, gpa, host, bytes, read_only, err);
}

int sm_hv_vm_unmap(struct sm_hv_vm *vm, unsigned slot, sm_error *err)
{
    if (slot >= SM_HV_MAX_SLOTS || !vm->slots[slot].bytes)
        return sm_error_set(err, SM_EINVAL, "memory slot %u is not in use", slot);
    return set_slot(vm, slot, vm->slots[slot].gpa, NULL, 0, false, err);
}

void *sm_kvm_host(const struct sm_hv_vm *vm, uint64_t gpa, uint64_t bytes, bool write)
{
    for (unsigned i = 0; i < vm->n_slots; i++) {
        const struct sm_kvm_slot *s = &vm->slots[i];
        if (gpa >= s->gpa && gpa - s->gpa < s->bytes && bytes <= s->bytes - (gpa - s->gpa))
            return write && s->read_only ? NULL : s->host + (gpa - s->gpa);
    }
    return NULL;
}

int sm_hv_vm_create_irqchip(struct sm_hv_vm *vm, sm_error *err)
{
    if (ioctl(vm->fd, KVM_CREATE_IRQCHIP, 0) < 0)
        return sm_error_errno(err, errno, "KVM cannot create the interrupt controllers");
    return 0;
}

static int irqfd(struct sm_hv_vm *vm, int fd, unsigned gsi, uint32_t flags, sm_error *err)
{
    struct kvm_irqfd req = {.fd = (uint32_t)fd, .gsi = gsi, .flags = flags};
    if (ioctl(vm->fd, KVM_IRQFD, &req) < 0)
        return sm_error_errno(err, errno, "KVM does not take the irqfd of GSI %u", gsi);
    return 0;
}

int sm_hv_vm_irqfd(struct sm_hv_vm *vm, int fd, unsigned gsi, sm_error *err)
{
    return irqfd(vm, fd, gsi, 0, err);
}

int sm_hv_vm_irqfd_remove(struct sm_hv_vm *vm, int fd, unsigned gsi, sm_error *err)
{
    return irqfd(vm, fd, gsi, KVM_IRQFD_FLAG_DEASSIGN, err);
}

static int ioeventfd(
    struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, uint32_t flags, sm_error *err)
{
    struct kvm_ioeventfd req = {
        .datamatch = value,
        .addr = gpa,
        .len = 4,
        .fd = fd,
        .flags = KVM_IOEVENTFD_FLAG_DATAMATCH | flags,
    };
    if (ioctl(vm->fd, KVM_IOEVENTFD, &req) < 0)
        return sm_error_errno(
            err, errno, "KVM does not take the ioeventfd at %#llx", (unsigned long long)gpa);
    return 0;
}

int sm_hv_vm_ioeventfd(struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err)
{
    return ioeventfd(vm, fd, gpa, value, 0, err);
}

int sm_hv_vm_ioeventfd_remove(
    struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err)
{
    return ioeventfd(vm, fd, gpa, value, KVM_IOEVENTFD_FLAG_DEASSIGN, err);
}

/* ---- VM-wide state -------------------------------------------------------------------------- */

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
