/*
 * A hypervisor that is not there: what a build without one links, and what keeps hypervisor.h
 * honest, as arch/stub/arch.c does arch.h. As sm_hv_open fails, nothing else is reached but by who
 * ignores that; all of it is defined, and all that can fail says so.
 */
#include <stdio.h>
#include <string.h>

#include "hypervisor/hypervisor.h"
#include "util/cleanup.h"
#include "util/error.h"

static int not_here(sm_error *err)
{
    return sm_error_set(
        err, SM_EUNSUPPORTED, "supermachine has no hypervisor to use on this system");
}

int sm_hv_open(struct sm_hv **hv, sm_error *err)
{
    (void)hv;
    return not_here(err);
}

int sm_hv_adopt(int fd, struct sm_hv **hv, sm_error *err)
{
    (void)hv;
    sm_close(fd);
    return not_here(err);
}

int sm_hv_fd(const struct sm_hv *hv)
{
    (void)hv;
    return -1;
}

void sm_hv_close(struct sm_hv *hv)
{
    (void)hv;
}

void sm_hv_cpu_digest(const struct sm_hv *hv, uint8_t digest[SM_CPU_DIGEST_BYTES])
{
    (void)hv;
    memset(digest, 0, SM_CPU_DIGEST_BYTES);
}

int sm_hv_needs_assist(struct sm_hv *hv, bool *needed, sm_error *err)
{
    (void)hv, (void)needed;
    return not_here(err);
}

bool sm_hv_state_from_any_thread(const struct sm_hv *hv)
{
    (void)hv;
    return false;
}

/* ---- VMs ---------------------------------------------------------------------------------- */

int sm_hv_vm_create(struct sm_hv *hv, struct sm_hv_vm **vm, sm_error *err)
{
    (void)hv, (void)vm;
    return not_here(err);
}

void sm_hv_vm_close(struct sm_hv_vm *vm)
{
    (void)vm;
}

int sm_hv_vm_map(struct sm_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t bytes,
    bool read_only, sm_error *err)
{
    (void)vm, (void)slot, (void)gpa, (void)host, (void)bytes, (void)read_only;
    return not_here(err);
}

int sm_hv_vm_unmap(struct sm_hv_vm *vm, unsigned slot, sm_error *err)
{
    (void)vm, (void)slot;
    return not_here(err);
}

int sm_hv_vm_make_cpus(struct sm_hv_vm *vm, unsigned n, sm_error *err)
{
    (void)vm, (void)n;
    return not_here(err);
}

struct sm_hv_vcpu *sm_hv_vm_vcpu(struct sm_hv_vm *vm, unsigned index)
{
    (void)vm, (void)index;
    return NULL;
}

int sm_hv_vm_irqfd(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err)
{
    (void)vm, (void)fd, (void)irq;
    return not_here(err);
}

int sm_hv_vm_irqfd_remove(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err)
{
    (void)vm, (void)fd, (void)irq;
    return not_here(err);
}

int sm_hv_vm_raise(struct sm_hv_vm *vm, unsigned irq, sm_error *err)
{
    (void)vm, (void)irq;
    return not_here(err);
}

int sm_hv_vm_ioeventfd(struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err)
{
    (void)vm, (void)fd, (void)gpa, (void)value;
    return not_here(err);
}

int sm_hv_vm_ioeventfd_remove(
    struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err)
{
    (void)vm, (void)fd, (void)gpa, (void)value;
    return not_here(err);
}

int sm_hv_vm_save(
    struct sm_hv_vm *vm, void **blob, size_t *bytes, uint64_t *clock_ns, sm_error *err)
{
    (void)vm, (void)blob, (void)bytes, (void)clock_ns;
    return not_here(err);
}

int sm_hv_vm_restore(struct sm_hv_vm *vm, const void *blob, size_t bytes, sm_error *err)
{
    (void)vm, (void)blob, (void)bytes;
    return not_here(err);
}

int sm_hv_vm_set_clock(struct sm_hv_vm *vm, uint64_t clock_ns, sm_error *err)
{
    (void)vm, (void)clock_ns;
    return not_here(err);
}

/* ---- vCPUs -------------------------------------------------------------------------------- */

int sm_hv_vcpu_get_state(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err)
{
    (void)vcpu, (void)state;
    return not_here(err);
}

int sm_hv_vcpu_set_state(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    (void)vcpu, (void)state;
    return not_here(err);
}

int sm_hv_vcpu_bind(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    (void)vcpu;
    return not_here(err);
}

void sm_hv_vcpu_unbind(struct sm_hv_vcpu *vcpu)
{
    (void)vcpu;
}

int sm_hv_vcpu_run(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err)
{
    (void)vcpu, (void)exit;
    return not_here(err);
}

int sm_hv_vcpu_complete(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err)
{
    (void)vcpu, (void)exit;
    return not_here(err);
}

void sm_hv_vcpu_kick(struct sm_hv_vcpu *vcpu)
{
    (void)vcpu;
}

void sm_hv_vcpu_count_instructions(struct sm_hv_vcpu *vcpu)
{
    (void)vcpu;
}

void sm_hv_vcpu_add_counters(const struct sm_hv_vcpu *vcpu, struct sm_hv_counters *sum)
{
    (void)vcpu, (void)sum;
}

void sm_hv_vcpu_describe(struct sm_hv_vcpu *vcpu, char *text, size_t size)
{
    (void)vcpu;
    snprintf(text, size, "no hypervisor");
}
