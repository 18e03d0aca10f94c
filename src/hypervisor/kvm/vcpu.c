/*
 * One vCPU: creation, first registers, running, kicking.
 *
 * Kicks. The kick signal is blocked in the thread and unblocked only while KVM_RUN is in the kernel
 * (KVM_SET_SIGNAL_MASK). So it is never delivered: it ends a KVM_RUN that goes on, or keeps pending
 * and ends the next one at once, and is then taken off with sigtimedwait. No handler is installed and
 * no kick can fall between a check and KVM_RUN.
 */
#include "hypervisor/kvm/kvm.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "arch/boot.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

SM_DEFINE_CLEANUP(struct sm_hv_vcpu *, sm_hv_vcpu_close)

int sm_hv_vcpu_create(struct sm_hv_vm *vm, unsigned index, struct sm_hv_vcpu **out, sm_error *err)
{
    SM_CLEANUP(sm_hv_vcpu_close_cleanup) struct sm_hv_vcpu *vcpu = calloc(1, sizeof(*vcpu));
    if (!vcpu)
        return sm_error_set(err, SM_ENOMEM, "no memory for a vCPU");
    pthread_mutex_init(&vcpu->lock, NULL);
    vcpu->vm = vm;
    vcpu->index = index;
    vcpu->run = MAP_FAILED;
    vcpu->stats_fd = -1;
    vcpu->fd = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)index);
    if (vcpu->fd < 0)
        return sm_error_errno(err, errno, "KVM cannot create vCPU %u", index);
    vcpu->run = mmap(NULL, vm->hv->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, vcpu->fd, 0);
    if (vcpu->run == MAP_FAILED)
        return sm_error_errno(err, errno, "cannot map the run structure of vCPU %u", index);
    auto_free struct kvm_cpuid2 *cpuid = NULL;
    int rc = sm_kvm_cpuid_for(vm, index, &cpuid, err);
    if (rc)
        return rc;
    if (ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid) < 0)
        return sm_error_errno(err, errno, "KVM does not take the CPU features of vCPU %u", index);
    *out = sm_steal_ptr(&vcpu);
    return 0;
}

void sm_hv_vcpu_close(struct sm_hv_vcpu *vcpu)
{
    if (!vcpu)
        return;
    if (vcpu->run != MAP_FAILED)
        munmap(vcpu->run, vcpu->vm->hv->run_bytes);
    sm_close(vcpu->stats_fd);
    sm_close(vcpu->fd);
    pthread_mutex_destroy(&vcpu->lock);
    free(vcpu->assist);
    free(vcpu);
}

/* ---- first registers ------------------------------------------------------------------------ */

#define CR0_PE_MP_ET_NE_WP_AM_PG 0x80050033ULL
#define CR4_PAE                  (1ULL << 5)
#define EFER_LME_LMA             ((1ULL << 8) | (1ULL << 10))

int sm_hv_vcpu_set_boot(struct sm_hv_vcpu *vcpu, const struct sm_boot_regs *boot, sm_error *err)
{
    /* XCR0 begins with all that the guest may have, not with 1 as after a reset: the guest sets it anyway,
     * and emulators of nested virtualisation (QEMU 7.2) do not let KVM see that, so that the guest would
     * run with KVM's old value and lose its vector registers. */
    struct kvm_xcrs xcrs = {.nr_xcrs = 1};
    xcrs.xcrs[0].value = vcpu->vm->hv->xcr0;
    if (xcrs.xcrs[0].value && ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs) < 0)
        return sm_error_errno(err, errno, "KVM does not take XCR0 of vCPU %u", vcpu->index);
    if (!boot)
        return 0;
    struct kvm_sregs s;
    if (ioctl(vcpu->fd, KVM_GET_SREGS, &s) < 0)
        return sm_error_errno(
            err, errno, "KVM does not give the registers of vCPU %u", vcpu->index);
    struct kvm_segment code = {
        .limit = 0xffffffff, .selector = 0x10, .type = 11, .present = 1, .s = 1, .l = 1, .g = 1};
    struct kvm_segment data = {
        .limit = 0xffffffff, .selector = 0x18, .type = 3, .present = 1, .s = 1, .db = 1, .g = 1};
    s.cs = code;
    s.ds = s.es = s.fs = s.gs = s.ss = data;
    s.gdt.base = boot->gdt;
    s.gdt.limit = (uint16_t)(boot->gdt_bytes - 1);
    s.cr0 = CR0_PE_MP_ET_NE_WP_AM_PG;
    s.cr3 = boot->page_table;
    s.cr4 = CR4_PAE;
    s.efer = EFER_LME_LMA;
    struct kvm_regs r = {.rip = boot->entry, .rsi = boot->arg, .rsp = boot->stack, .rflags = 2};
    if (ioctl(vcpu->fd, KVM_SET_SREGS, &s) < 0 || ioctl(vcpu->fd, KVM_SET_REGS, &r) < 0)
        return sm_error_errno(
            err, errno, "KVM does not take the registers of vCPU %u", vcpu->index);
    return 0;
}

void sm_hv_vcpu_describe(struct sm_hv_vcpu *vcpu, char *text, size_t size)
{
    struct kvm_regs r;
    struct kvm_sregs s;
    if (ioctl(vcpu->fd, KVM_GET_REGS, &r) < 0 || ioctl(vcpu->fd, KVM_GET_SREGS, &s) < 0)
        snprintf(text, size, "vCPU %u, registers not known", vcpu->index);
    else
        snprintf(text, size, "vCPU %u at RIP %#llx, CPL %u, CR2 %#llx", vcpu->index,
            (unsigned long long)r.rip, s.cs.dpl, (unsigned long long)s.cr2);
}

/* ---- kicks ----------------------------------------------------------------------------------- */

int sm_kvm_kick_signal(void)
{
    return SIGRTMIN + 5;
}

int sm_hv_vcpu_bind(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sm_kvm_kick_signal());
    int e = pthread_sigmask(SIG_BLOCK, &set, NULL);
    if (e)
        return sm_error_errno(err, e, "cannot block the kick signal");
    /* The kernel's signal set has 8 bytes, the C library's more. */
    uint64_t running = ~(1ULL << (sm_kvm_kick_signal() - 1));
    struct { /* struct kvm_signal_mask */
        uint32_t len;
        uint8_t set[8];
    } mask = {.len = 8};
    memcpy(mask.set, &running, 8);
    if (ioctl(vcpu->fd, KVM_SET_SIGNAL_MASK, &mask) < 0)
        return sm_error_errno(err, errno, "KVM does not take a signal mask");

    pthread_mutex_lock(&vcpu->lock);
    vcpu->thread = pthread_self();
    vcpu->bound = true;
    if (vcpu->kicked_unbound)
        pthread_kill(vcpu->thread, sm_kvm_kick_signal());
    vcpu->kicked_unbound = false;
    pthread_mutex_unlock(&vcpu->lock);
    return 0;
}

void sm_hv_vcpu_unbind(struct sm_hv_vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    vcpu->bound = false;
    pthread_mutex_unlock(&vcpu->lock);
}

void sm_hv_vcpu_kick(struct sm_hv_vcpu *vcpu)
{
    pthread_mutex_lock(&vcpu->lock);
    if (vcpu->bound)
        pthread_kill(vcpu->thread, sm_kvm_kick_signal());
    else
        vcpu->kicked_unbound = true;
    pthread_mutex_unlock(&vcpu->lock);
}

static void take_kick(void)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, sm_kvm_kick_signal());
    sigtimedwait(&set, NULL, &(struct timespec){0});
}

/* ---- running --------------------------------------------------------------------------------- */

static int internal_error(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    const struct kvm_run *run = vcpu->run;
    char where[128];
    if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
        return sm_kvm_assist(vcpu, err);
    sm_hv_vcpu_describe(vcpu, where, sizeof(where));
    return sm_error_set(err, SM_EHYPERVISOR, "KVM reports internal error %u (%#llx, %#llx), %s",
        run->internal.suberror,
        run->internal.ndata > 0 ? (unsigned long long)run->internal.data[0] : 0,
        run->internal.ndata > 1 ? (unsigned long long)run->internal.data[1] : 0, where);
}

static int other_exit(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    const struct kvm_run *run = vcpu->run;
    char where[128];
    sm_hv_vcpu_describe(vcpu, where, sizeof(where));
    if (run->exit_reason == KVM_EXIT_FAIL_ENTRY)
        return sm_error_set(err, SM_EHYPERVISOR,
            "the CPU refused to enter the guest (reason %#llx), %s",
            (unsigned long long)run->fail_entry.hardware_entry_failure_reason, where);
    return sm_error_set(
        err, SM_EHYPERVISOR, "KVM ended with exit reason %u, %s", run->exit_reason, where);
}

static enum sm_hv_exit_kind system_event(const struct kvm_run *run)
{
    switch (run->system_event.type) {
    case KVM_SYSTEM_EVENT_SHUTDOWN:
        return SM_HV_EXIT_POWER_OFF;
    case KVM_SYSTEM_EVENT_RESET:
        return SM_HV_EXIT_RESET;
    default:
        return SM_HV_EXIT_CRASH;
    }
}

/* Translates the exit; 1: handled here, run again. */
static int translate(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err)
{
    struct kvm_run *run = vcpu->run;
    switch (run->exit_reason) {
    case KVM_EXIT_MMIO:
        *exit = (struct sm_hv_exit){
            .kind = SM_HV_EXIT_MMIO,
            .address = run->mmio.phys_addr,
            .size = (uint8_t)SM_MIN(run->mmio.len, 8u),
            .count = 1,
            .write = run->mmio.is_write,
            .data = run->mmio.data,
        };
        return 0;
    case KVM_EXIT_IO:
        *exit = (struct sm_hv_exit){
            .kind = SM_HV_EXIT_PIO,
            .address = run->io.port,
            .size = run->io.size,
            .count = run->io.count,
            .write = run->io.direction == KVM_EXIT_IO_OUT,
            .data = (uint8_t *)run + run->io.data_offset,
        };
        return 0;
    case KVM_EXIT_HLT:
        exit->kind = SM_HV_EXIT_HALT;
        return 0;
    case KVM_EXIT_SHUTDOWN:
        exit->kind = SM_HV_EXIT_SHUTDOWN;
        return 0;
    case KVM_EXIT_SYSTEM_EVENT:
        exit->kind = system_event(run);
        return 0;
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
        return 1;
    case KVM_EXIT_INTERNAL_ERROR: {
        int rc = internal_error(vcpu, err);
        return rc ? rc : 1;
    }
    default:
        return other_exit(vcpu, err);
    }
}

static int step(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, bool complete, sm_error *err)
{
    *exit = (struct sm_hv_exit){.kind = SM_HV_EXIT_INTR};
    int rc;
    do {
        rc = ioctl(vcpu->fd, KVM_RUN, 0);
        sm_kvm_count(&vcpu->exits);
        if (rc < 0) {
            if (errno == EAGAIN) {
                rc = 1;
                continue;
            }
            if (errno != EINTR)
                return sm_error_errno(err, errno, "KVM cannot run vCPU %u", vcpu->index);
            if (!complete)
                take_kick();
            rc = 0;
        } else {
            rc = translate(vcpu, exit, err);
        }
    } while (rc == 1);
    if (rc == 0)
        sm_kvm_count(&vcpu->by_kind[exit->kind]);
    return rc;
}

int sm_hv_vcpu_run(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err)
{
    return step(vcpu, exit, false, err);
}

int sm_hv_vcpu_complete(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err)
{
    vcpu->run->immediate_exit = 1;
    int rc = step(vcpu, exit, true, err);
    vcpu->run->immediate_exit = 0;
    return rc;
}

/* ---- counters --------------------------------------------------------------------------------- */

void sm_hv_vcpu_add_counters(const struct sm_hv_vcpu *vcpu, struct sm_hv_counters *sum)
{
    sum->instructions += sm_kvm_instructions(vcpu);
    sum->exits += atomic_load_explicit(&vcpu->exits, memory_order_relaxed);
    for (int i = 0; i < SM_HV_EXIT_KINDS; i++)
        sum->by_kind[i] += atomic_load_explicit(&vcpu->by_kind[i], memory_order_relaxed);
    for (int i = 0; i < SM_HV_ASSIST_KINDS; i++)
        sum->assists[i] += atomic_load_explicit(&vcpu->assists[i], memory_order_relaxed);
}

const char *sm_hv_assist_name(enum sm_hv_assist kind)
{
    static const char *const names[SM_HV_ASSIST_KINDS] = {
        [SM_HV_ASSIST_INT3] = "int3",
        [SM_HV_ASSIST_POPCNT] = "popcnt",
        [SM_HV_ASSIST_LSL] = "lsl",
        [SM_HV_ASSIST_CMPXCHG16B] = "cmpxchg16b",
        [SM_HV_ASSIST_XSAVE] = "xsave",
        [SM_HV_ASSIST_XRSTOR] = "xrstor",
        [SM_HV_ASSIST_XCR] = "xcr",
        [SM_HV_ASSIST_CLAC_STAC] = "clac/stac",
        [SM_HV_ASSIST_FWAIT] = "fwait",
        [SM_HV_ASSIST_SYSCALL] = "syscall",
        [SM_HV_ASSIST_FAULT] = "fault",
    };
    return kind < SM_HV_ASSIST_KINDS ? names[kind] : "?";
}
