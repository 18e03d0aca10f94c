/*
 * One vCPU: creation, running, kicking. What is in it is in kvm/ARCH/.
 *
 * Kicks. The kick signal is blocked in the thread and unblocked only while KVM_RUN is in the kernel
 * (KVM_SET_SIGNAL_MASK). So it is never delivered: it ends a KVM_RUN that goes on, or keeps pending
 * and ends the next one at once, and is then taken off with sigtimedwait. No handler is installed
 * and no kick can fall between a check and KVM_RUN.
 *
 * System calls: munmap, tgkill.
 * System calls at set-up: ioctl(KVM_CREATE_VCPU), mmap.
 * System calls of vCPU threads: ioctl(KVM_RUN, KVM_SET_SIGNAL_MASK), rt_sigprocmask,
 * rt_sigtimedwait.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "hypervisor/kvm/arch.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

SM_DEFINE_CLEANUP(struct sm_hv_vcpu *, sm_kvm_vcpu_free)

int sm_kvm_vcpu_create(struct sm_hv_vm *vm, unsigned index, struct sm_hv_vcpu **out, sm_error *err)
{
    SM_CLEANUP(sm_kvm_vcpu_free_cleanup) struct sm_hv_vcpu *vcpu = calloc(1, sizeof(*vcpu));
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
    int rc = sm_kvm_vcpu_init(vcpu, err);
    if (rc)
        return rc;
    *out = sm_steal_ptr(&vcpu);
    return 0;
}

void sm_kvm_vcpu_free(struct sm_hv_vcpu *vcpu)
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

/* ---- counters ------------------------------------------------------------------------------ */

void sm_hv_vcpu_add_counters(const struct sm_hv_vcpu *vcpu, struct sm_hv_counters *sum)
{
    sum->instructions += sm_kvm_instructions(vcpu);
    sum->exits += atomic_load_explicit(&vcpu->exits, memory_order_relaxed);
    for (int i = 0; i < SM_HV_EXIT_KINDS; i++)
        sum->by_kind[i] += atomic_load_explicit(&vcpu->by_kind[i], memory_order_relaxed);
    sum->assists += atomic_load_explicit(&vcpu->assists, memory_order_relaxed);
}
