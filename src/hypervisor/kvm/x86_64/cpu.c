/*
 * What KVM must have and has on x86_64: capabilities, sizes, the MSRs that a snapshot holds. CPUID
 * is in cpuid.c.
 *
 * System calls at set-up: ioctl(KVM_CHECK_EXTENSION, KVM_GET_MSR_INDEX_LIST).
 */
#include <errno.h>
#include <stdlib.h>

#include "hypervisor/kvm/x86_64/x86.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

/* MSRs that are left out of snapshots, and refused where one has them all the same. */
static bool skip_msr(uint32_t index)
{
    static const struct {
        uint32_t first, last;
    } skipped[] = {
        {0x11,
            0x12}, /* KVM's clock: a request to write guest memory, and an alias of the newer one */
        {0x4b564d00, 0x4b564d00}, /* the newer request */
        /* Of what our guests are not offered (cpuid.c): */
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

bool sm_kvm_msr_offered(const struct sm_kvm_cpu *cpu, uint32_t index, unsigned *at)
{
    const struct kvm_msr_list *list = cpu->msrs;
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
    struct kvm_msr_list *list = calloc(1, sizeof(*list) + probe.nmsrs * sizeof(list->indices[0]));
    if (!list)
        return sm_error_set(err, SM_ENOMEM, "no memory for the list of MSRs");
    hv->cpu->msrs = list;
    list->nmsrs = probe.nmsrs;
    if (ioctl(hv->fd, KVM_GET_MSR_INDEX_LIST, list) < 0)
        return sm_error_errno(err, errno, "KVM does not list its MSRs");
    unsigned kept = 0;
    for (unsigned i = 0; i < list->nmsrs; i++) {
        if (!skip_msr(list->indices[i]))
            list->indices[kept++] = list->indices[i];
    }
    list->nmsrs = kept;
    return 0;
}

int sm_kvm_cpu_open(struct sm_hv *hv, sm_error *err)
{
    static const struct sm_kvm_need needs[] = {
        {KVM_CAP_VCPU_EVENTS, "saving vCPU events"},
        {KVM_CAP_XSAVE, "saving the XSAVE area"},
        {KVM_CAP_XCRS, "saving XCR0"},
        {KVM_CAP_DEBUGREGS, "saving debug registers"},
        {KVM_CAP_ADJUST_CLOCK, "saving the clock"},
    };
    int rc = sm_kvm_need(hv->fd, needs, SM_ARRAY_LEN(needs), err);
    if (rc)
        return rc;
    struct sm_kvm_cpu *cpu = hv->cpu = calloc(1, sizeof(*cpu));
    if (!cpu)
        return sm_error_set(err, SM_ENOMEM, "no memory for what KVM offers");
    const int wanted = SM_KVM_SYNC | KVM_SYNC_X86_EVENTS;
    int sync = ioctl(hv->fd, KVM_CHECK_EXTENSION, KVM_CAP_SYNC_REGS);
    cpu->sync_regs = sync > 0 && (sync & wanted) == wanted;
    int bytes = ioctl(hv->fd, KVM_CHECK_EXTENSION, KVM_CAP_XSAVE2);
    cpu->xsave_bytes =
        bytes > (int)sizeof(struct kvm_xsave) ? (size_t)bytes : sizeof(struct kvm_xsave);
    rc = sm_kvm_cpuid_template(hv, err);
    return rc ? rc : read_msr_list(hv, err);
}

void sm_kvm_cpu_free(struct sm_kvm_cpu *cpu)
{
    if (!cpu)
        return;
    free(cpu->cpuid);
    free(cpu->msrs);
    free(cpu);
}
