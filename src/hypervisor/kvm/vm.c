/*
 * One VM: memory slots, vCPUs, eventfds. Chips and clock are in kvm/ARCH/.
 *
 * System calls at set-up: ioctl(KVM_CREATE_VM, KVM_SET_USER_MEMORY_REGION, KVM_IRQFD,
 * KVM_IOEVENTFD).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/kvm/arch.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

SM_DEFINE_CLEANUP(struct sm_hv_vm *, sm_hv_vm_close)

int sm_hv_vm_create(struct sm_hv *hv, struct sm_hv_vm **out, sm_error *err)
{
    SM_CLEANUP(sm_hv_vm_close_cleanup) struct sm_hv_vm *vm = calloc(1, sizeof(*vm));
    if (!vm)
        return sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    vm->hv = hv;
    do {
        vm->fd = ioctl(hv->fd, KVM_CREATE_VM, 0);
    } while (vm->fd < 0 && errno == EINTR);
    if (vm->fd < 0)
        return sm_error_errno(err, errno, "KVM cannot create a VM");
    int rc = sm_kvm_vm_init(vm, err);
    if (rc)
        return rc;
    *out = sm_steal_ptr(&vm);
    return 0;
}

void sm_hv_vm_close(struct sm_hv_vm *vm)
{
    if (!vm)
        return;
    for (unsigned i = 0; i < vm->n_vcpus; i++)
        sm_kvm_vcpu_free(vm->vcpus[i]);
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

int sm_kvm_make_vcpus(struct sm_hv_vm *vm, unsigned n, sm_error *err)
{
    if (n < 1 || n > SM_ARRAY_LEN(vm->vcpus))
        return sm_error_set(
            err, SM_EINVAL, "%u vCPUs: 1 to %zu are possible", n, SM_ARRAY_LEN(vm->vcpus));
    int rc = 0;
    vm->n_vcpus = n; /* each one's CPUID tells how many there will be */
    for (unsigned i = 0; i < n && !rc; i++)
        rc = sm_kvm_vcpu_create(vm, i, &vm->vcpus[i], err);
    return rc;
}

struct sm_hv_vcpu *sm_hv_vm_vcpu(struct sm_hv_vm *vm, unsigned index)
{
    return vm->vcpus[index];
}

static int irqfd(struct sm_hv_vm *vm, int fd, unsigned irq, uint32_t flags, sm_error *err)
{
    struct kvm_irqfd req = {.fd = (uint32_t)fd, .gsi = irq, .flags = flags};
    if (ioctl(vm->fd, KVM_IRQFD, &req) < 0)
        return sm_error_errno(err, errno, "KVM does not take the irqfd of interrupt %u", irq);
    return 0;
}

int sm_hv_vm_irqfd(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err)
{
    return irqfd(vm, fd, irq, 0, err);
}

int sm_hv_vm_irqfd_remove(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err)
{
    return irqfd(vm, fd, irq, KVM_IRQFD_FLAG_DEASSIGN, err);
}

int sm_hv_vm_raise(struct sm_hv_vm *vm, unsigned irq, sm_error *err)
{
    (void)vm;
    return sm_error_set(err, SM_EUNSUPPORTED, "KVM raises interrupt %u by its irqfd", irq);
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
