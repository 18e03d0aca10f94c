/*
 * /dev/kvm: opening it with errors that say what to do, and the capabilities that every
 * architecture needs.
 *
 * System calls before a list: open.
 * System calls at set-up: ioctl(KVM_CHECK_EXTENSION, KVM_GET_API_VERSION, KVM_GET_VCPU_MMAP_SIZE).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/kvm/arch.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

#define DEV_KVM "/dev/kvm"

SM_DEFINE_CLEANUP(struct sm_hv *, sm_hv_close)

static int open_error(int errnum, sm_error *err)
{
    switch (errnum) {
    case ENOENT:
    case ENODEV:
    case ENXIO:
        return sm_error_set(err, SM_EHYPERVISOR,
            DEV_KVM
            " is missing: load the module kvm_intel or kvm_amd, and switch on virtualisation "
            "in the firmware (or for this virtual machine, where it is one)");
    case EACCES:
    case EPERM:
        return sm_error_set(err, SM_EPERM,
            "no permission to open " DEV_KVM ": add yourself to the group that owns it "
            "(usually: sudo usermod -aG kvm $USER, then log in again)");
    case EBUSY:
        return sm_error_set(
            err, SM_EBUSY, DEV_KVM " is in use by another hypervisor: stop its virtual machines");
    default:
        return sm_error_errno(err, errnum, "cannot open " DEV_KVM);
    }
}

int sm_kvm_need(int fd, const struct sm_kvm_need *needs, size_t n, sm_error *err)
{
    for (size_t i = 0; i < n; i++) {
        if (ioctl(fd, KVM_CHECK_EXTENSION, needs[i].cap) <= 0)
            return sm_error_set(err, SM_EUNSUPPORTED,
                "this kernel's KVM lacks %s: Linux 5.10 or later is needed", needs[i].name);
    }
    return 0;
}

int sm_hv_open(struct sm_hv **out, sm_error *err)
{
    int fd = open(DEV_KVM, O_RDWR | O_CLOEXEC);
    return fd < 0 ? open_error(errno, err) : sm_hv_adopt(fd, out, err);
}

int sm_hv_fd(const struct sm_hv *hv)
{
    return hv->fd;
}

int sm_hv_adopt(int fd, struct sm_hv **out, sm_error *err)
{
    SM_CLEANUP(sm_hv_close_cleanup) struct sm_hv *hv = calloc(1, sizeof(*hv));
    if (!hv) {
        sm_close(fd);
        return sm_error_set(err, SM_ENOMEM, "no memory to open " DEV_KVM);
    }
    hv->fd = fd;
    int version = ioctl(hv->fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return sm_error_errno(err, errno, DEV_KVM " does not answer as KVM does");
    if (version != KVM_API_VERSION)
        return sm_error_set(
            err, SM_EUNSUPPORTED, "KVM has API version %d, %d is needed", version, KVM_API_VERSION);
    static const struct sm_kvm_need needs[] = {
        {KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
        {KVM_CAP_USER_MEMORY, "user memory slots"},
        {KVM_CAP_READONLY_MEM, "read-only memory slots"},
        {KVM_CAP_IRQFD, "irqfd"},
        {KVM_CAP_IOEVENTFD, "ioeventfd"},
        {KVM_CAP_MP_STATE, "saving the MP state"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    };
    int rc = sm_kvm_need(hv->fd, needs, SM_ARRAY_LEN(needs), err);
    if (rc)
        return rc;
    int bytes = ioctl(hv->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (bytes < (int)sizeof(struct kvm_run))
        return sm_error_set(err, SM_EHYPERVISOR, "KVM's run structure has %d bytes", bytes);
    hv->run_bytes = (size_t)bytes;
    rc = sm_kvm_cpu_open(hv, err);
    if (rc)
        return rc;
    *out = sm_steal_ptr(&hv);
    return 0;
}

void sm_hv_close(struct sm_hv *hv)
{
    if (!hv)
        return;
    sm_close(hv->fd);
    sm_kvm_cpu_free(hv->cpu);
    free(hv);
}

void sm_hv_cpu_digest(const struct sm_hv *hv, uint8_t digest[SM_CPU_DIGEST_BYTES])
{
    memcpy(digest, hv->digest, SM_CPU_DIGEST_BYTES);
}

bool sm_hv_state_from_any_thread(const struct sm_hv *hv)
{
    (void)hv;
    return true;
}
