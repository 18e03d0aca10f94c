/*
 * The self-test that tells whether guest kernel mode is emulated.
 *
 * System calls at set-up: ioctl(KVM_RUN), mmap, munmap.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/x86_64/boot.h"
#include "hypervisor/kvm/x86_64/x86.h"
#include "util/cleanup.h"
#include "util/error.h"

SM_DEFINE_CLEANUP(struct sm_hv_vm *, sm_hv_vm_close)

/* A few pages of guest: popcnt in kernel mode, then a port write. Hardware runs it; an emulator
 * that lacks the instruction fails, which is what the assist is for. */
static int self_test(struct sm_hv *hv, uint8_t *ram, size_t bytes, bool *needed, sm_error *err)
{
    static const uint8_t code[] = {0xf3, 0x48, 0x0f, 0xb8, 0xc0, 0xe6, 0x80}; /* popcnt; out */
    SM_CLEANUP(sm_hv_vm_close_cleanup) struct sm_hv_vm *vm = NULL;
    auto_vcpu_state state = {0};
    uint64_t entry = bytes - 4096;
    int rc = sm_x86_boot_tables(ram, bytes, err);
    if (!rc)
        rc = sm_x86_boot_state(entry, 0, &state, err);
    if (rc)
        return rc;
    memcpy(ram + entry, code, sizeof(code));
    if ((rc = sm_hv_vm_create(hv, &vm, err)) ||
        (rc = sm_hv_vm_map(vm, 0, 0, ram, bytes, false, err)) ||
        (rc = sm_kvm_make_vcpus(vm, 1, err)) ||
        (rc = sm_hv_vcpu_set_state(vm->vcpus[0], &state, err)))
        return rc;
    struct sm_hv_vcpu *vcpu = vm->vcpus[0];
    struct kvm_run *run = vcpu->run;
    do {
        rc = ioctl(vcpu->fd, KVM_RUN, 0);
    } while (rc < 0 && (errno == EINTR || errno == EAGAIN));
    if (rc < 0)
        return sm_error_errno(err, errno, "KVM cannot run a guest");
    if (run->exit_reason != KVM_EXIT_IO && run->exit_reason != KVM_EXIT_INTERNAL_ERROR)
        return sm_error_set(err, SM_EHYPERVISOR, "KVM's self-test guest ended with exit reason %u",
            run->exit_reason);
    *needed = run->exit_reason == KVM_EXIT_INTERNAL_ERROR;
    return 0;
}

int sm_hv_needs_assist(struct sm_hv *hv, bool *needed, sm_error *err)
{
    size_t bytes = 256 * 1024;
    void *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (ram == MAP_FAILED)
        return sm_error_errno(err, errno, "cannot map memory for the self-test");
    int rc = self_test(hv, ram, bytes, needed, err);
    munmap(ram, bytes);
    return rc;
}
