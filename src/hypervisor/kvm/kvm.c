/*
 * /dev/kvm: opening it with errors that say what to do, capabilities, and the self-test that tells
 * whether guest kernel mode is emulated.
 */
#include "hypervisor/kvm/kvm.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "arch/boot.h"
#include "arch/x86_64/boot.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

#define DEV_KVM "/dev/kvm"

SM_DEFINE_CLEANUP(struct sm_hv *, sm_hv_close)
SM_DEFINE_CLEANUP(struct sm_hv_vm *, sm_hv_vm_close)
SM_DEFINE_CLEANUP(struct sm_hv_vcpu *, sm_hv_vcpu_close)

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

static int check_capabilities(int fd, sm_error *err)
{
    static const struct {
        int cap;
        const char *name;
    } needed[] = {
        {KVM_CAP_IRQCHIP, "in-kernel interrupt controllers"},
        {KVM_CAP_USER_MEMORY, "user memory slots"},
        {KVM_CAP_READONLY_MEM, "read-only memory slots"},
        {KVM_CAP_IRQFD, "irqfd"},
        {KVM_CAP_IOEVENTFD, "ioeventfd"},
        {KVM_CAP_MP_STATE, "saving the MP state"},
        {KVM_CAP_VCPU_EVENTS, "saving vCPU events"},
        {KVM_CAP_XSAVE, "saving the XSAVE area"},
        {KVM_CAP_XCRS, "saving XCR0"},
        {KVM_CAP_DEBUGREGS, "saving debug registers"},
        {KVM_CAP_ADJUST_CLOCK, "saving the clock"},
        {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(needed); i++) {
        if (ioctl(fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
            return sm_error_set(err, SM_EUNSUPPORTED,
                "this kernel's KVM lacks %s: Linux 5.10 or later is needed", needed[i].name);
    }
    return 0;
}

/* MSRs that are left out of snapshots, and refused where one has them all the same. */
static bool skip_msr(uint32_t index)
{
    static const struct {
        uint32_t first, last;
    } skipped[] = {
        {0x11,
            0x12}, /* KVM's clock: a request to write guest memory, and an alias of the newer one */
        {0x4b564d00, 0x4b564d00}, /* the newer request */
        /* Of what our guests are not offered (x86_64/cpuid.c): */
        {0x40000000, 0x40000fff}, /* Hyper-V */
        {0x4b564d02, 0x4b564d02}, /* KVM's asynchronous page faults */
        {0x4b564d06, 0x4b564d08}, /* theirs, and migration control */
        {0x480, 0x493},           /* VMX */
        {0xc0000104, 0xc0000104}, /* SVM: TSC ratio, */
        {0xc0010114, 0xc0010117}, /* VM_CR to the host's save area */
        {0xc1, 0xc8},             /* performance counters: general, */
        {0x186, 0x18d},
        {0x309, 0x30c}, /* fixed, */
        {0x345, 0x345}, /* capabilities, */
        {0x38d, 0x390}, /* control, */
        {0x3f1, 0x3f2}, /* PEBS */
        {0x4c1, 0x4c8},
        {0x600, 0x600},
        {0x14ce, 0x14cf},         /* last branch records */
        {0xc0000300, 0xc0000303}, /* AMD's */
        {0xc0010000, 0xc0010007},
        {0xc0010200, 0xc001020b},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(skipped); i++) {
        if (index >= skipped[i].first && index <= skipped[i].last)
            return true;
    }
    return false;
}

bool sm_kvm_msr_offered(const struct sm_hv *hv, uint32_t index, unsigned *at)
{
    const struct kvm_msr_list *list = hv->msrs;
    for (unsigned tries = 0; tries < list->nmsrs; tries++, (*at)++) {
        if (*at >= list->nmsrs)
            *at = 0;
        if (list->indices[*at] == index)
            return true;
    }
    return false;
}

static int read_msr_list(struct sm_hv *hv, sm_error *err)
{
    struct kvm_msr_list probe = {.nmsrs = 0};
    if (ioctl(hv->fd, KVM_GET_MSR_INDEX_LIST, &probe) < 0 && errno != E2BIG)
        return sm_error_errno(err, errno, "KVM does not list its MSRs");
    if (probe.nmsrs > 4096)
        return sm_error_set(err, SM_EHYPERVISOR, "KVM lists %u MSRs", probe.nmsrs);
    hv->msrs = calloc(1, sizeof(*hv->msrs) + probe.nmsrs * sizeof(hv->msrs->indices[0]));
    if (!hv->msrs)
        return sm_error_set(err, SM_ENOMEM, "no memory for the list of MSRs");
    hv->msrs->nmsrs = probe.nmsrs;
    if (ioctl(hv->fd, KVM_GET_MSR_INDEX_LIST, hv->msrs) < 0)
        return sm_error_errno(err, errno, "KVM does not list its MSRs");
    unsigned kept = 0;
    for (unsigned i = 0; i < hv->msrs->nmsrs; i++) {
        if (!skip_msr(hv->msrs->indices[i]))
            hv->msrs->indices[kept++] = hv->msrs->indices[i];
    }
    hv->msrs->nmsrs = kept;
    return 0;
}

int sm_hv_open(struct sm_hv **out, sm_error *err)
{
    SM_CLEANUP(sm_hv_close_cleanup) struct sm_hv *hv = calloc(1, sizeof(*hv));
    if (!hv)
        return sm_error_set(err, SM_ENOMEM, "no memory to open " DEV_KVM);
    hv->fd = open(DEV_KVM, O_RDWR | O_CLOEXEC);
    if (hv->fd < 0)
        return open_error(errno, err);
    int version = ioctl(hv->fd, KVM_GET_API_VERSION, 0);
    if (version < 0)
        return sm_error_errno(err, errno, DEV_KVM " does not answer as KVM does");
    if (version != KVM_API_VERSION)
        return sm_error_set(
            err, SM_EUNSUPPORTED, "KVM has API version %d, %d is needed", version, KVM_API_VERSION);
    int rc = check_capabilities(hv->fd, err);
    if (rc)
        return rc;
    int bytes = ioctl(hv->fd, KVM_GET_VCPU_MMAP_SIZE, 0);
    if (bytes < (int)sizeof(struct kvm_run))
        return sm_error_set(err, SM_EHYPERVISOR, "KVM's run structure has %d bytes", bytes);
    hv->run_bytes = (size_t)bytes;
    const int wanted = SM_KVM_SYNC | KVM_SYNC_X86_EVENTS;
    int sync = ioctl(hv->fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
    hv->sync_regs = sync > 0 && (sync & wanted) == wanted;
    bytes = ioctl(hv->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    hv->xsave_bytes =
        bytes > (int)sizeof(struct kvm_xsave) ? (size_t)bytes : sizeof(struct kvm_xsave);
    rc = sm_kvm_cpuid_template(hv, err);
    if (!rc)
        rc = read_msr_list(hv, err);
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
    free(hv->cpuid);
    free(hv->msrs);
    free(hv);
}

/* A few pages of guest: popcnt in kernel mode, then a port write. Hardware runs it; an emulator that
 * lacks the instruction fails, which is what the assist is for. */
static int self_test(struct sm_hv *hv, uint8_t *ram, size_t bytes, bool *needed, sm_error *err)
{
    static const uint8_t code[] = {0xf3, 0x48, 0x0f, 0xb8, 0xc0, 0xe6, 0x80}; /* popcnt; out */
    SM_CLEANUP(sm_hv_vm_close_cleanup) struct sm_hv_vm *vm = NULL;
    SM_CLEANUP(sm_hv_vcpu_close_cleanup) struct sm_hv_vcpu *vcpu = NULL;
    struct sm_boot_regs regs;
    int rc = sm_x86_boot_tables(ram, bytes, &regs, err);
    if (rc)
        return rc;
    regs.entry = bytes - 4096;
    memcpy(ram + regs.entry, code, sizeof(code));
    if ((rc = sm_hv_vm_create(hv, 1, &vm, err)) ||
        (rc = sm_hv_vm_map(vm, 0, 0, ram, bytes, false, err)) ||
        (rc = sm_hv_vcpu_create(vm, 0, &vcpu, err)) || (rc = sm_hv_vcpu_set_boot(vcpu, &regs, err)))
        return rc;
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
