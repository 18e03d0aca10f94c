/* See fake_hypervisor.h. One VM at a time may be given stores. */
#include "fake_hypervisor.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/vcpu_state.h"
#include "hypervisor/hypervisor.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

#define IRQS 64

struct sm_hv {
    int unused;
};

struct sm_hv_vcpu {
    unsigned index;
    bool bound, kicked;
    pthread_t thread;
    struct sm_vcpu_state state;
    uint8_t data[8]; /* of the exit that goes on */
};

struct sm_hv_vm {
    struct sm_hv_vcpu vcpus[SM_MACHINE_MAX_VCPUS];
    unsigned n_vcpus;
};

struct fake_hv_rules fake_hv;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER; /* of all that follows, and of the vCPUs */
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static atomic_uint raised[IRQS];
static struct {
    enum { NONE, ASKED, UNDER_WAY } is;
    uint64_t address;
    uint32_t value;
} store;

static void must(bool is_so, const char *what)
{
    if (!is_so) {
        fprintf(stderr, "fake hypervisor: %s\n", what);
        abort();
    }
}

/* The contract of hypervisor.h. */
static void check_thread(const struct sm_hv_vcpu *vcpu, bool state)
{
    pthread_mutex_lock(&lock); /* its thread may be about to bind it */
    bool own = vcpu->bound && pthread_equal(vcpu->thread, pthread_self());
    pthread_mutex_unlock(&lock);
    must(own || (state && fake_hv.any_thread), "a vCPU is used from another thread than its own");
}

/* ---- the hypervisor ------------------------------------------------------------------------- */

int sm_hv_open(struct sm_hv **hv, sm_error *err)
{
    *hv = calloc(1, sizeof(**hv));
    return *hv ? 0 : sm_error_set(err, SM_ENOMEM, "no memory");
}

int sm_hv_adopt(int fd, struct sm_hv **hv, sm_error *err)
{
    (void)hv;
    sm_close(fd);
    return sm_error_set(err, SM_EUNSUPPORTED, "it has no descriptor");
}

int sm_hv_fd(const struct sm_hv *hv)
{
    (void)hv;
    return -1;
}

void sm_hv_close(struct sm_hv *hv)
{
    free(hv);
}

void sm_hv_cpu_digest(const struct sm_hv *hv, uint8_t digest[SM_CPU_DIGEST_BYTES])
{
    (void)hv;
    memset(digest, 0xfa, SM_CPU_DIGEST_BYTES);
}

int sm_hv_needs_assist(struct sm_hv *hv, bool *needed, sm_error *err)
{
    (void)hv, (void)err;
    *needed = false;
    return 0;
}

bool sm_hv_state_from_any_thread(const struct sm_hv *hv)
{
    (void)hv;
    return fake_hv.any_thread;
}

/* ---- VMs ------------------------------------------------------------------------------------ */

int sm_hv_vm_create(struct sm_hv *hv, struct sm_hv_vm **vm, sm_error *err)
{
    (void)hv;
    for (unsigned i = 0; i < IRQS; i++)
        atomic_store(&raised[i], 0);
    *vm = calloc(1, sizeof(**vm));
    return *vm ? 0 : sm_error_set(err, SM_ENOMEM, "no memory");
}

void sm_hv_vm_close(struct sm_hv_vm *vm)
{
    if (!vm)
        return;
    for (unsigned i = 0; i < vm->n_vcpus; i++) {
        must(!vm->vcpus[i].bound, "a VM is closed while a thread has a vCPU");
        sm_vcpu_state_clear(&vm->vcpus[i].state);
    }
    free(vm);
}

int sm_hv_vm_map(struct sm_hv_vm *vm, unsigned slot, uint64_t gpa, void *host, uint64_t bytes,
    bool read_only, sm_error *err)
{
    (void)gpa, (void)host, (void)bytes, (void)read_only, (void)err;
    must(slot < SM_HV_MAX_SLOTS && !vm->n_vcpus, "memory comes before the CPUs");
    return 0;
}

int sm_hv_vm_unmap(struct sm_hv_vm *vm, unsigned slot, sm_error *err)
{
    (void)vm, (void)slot, (void)err;
    return 0;
}

int sm_hv_vm_make_cpus(struct sm_hv_vm *vm, unsigned n, sm_error *err)
{
    (void)err;
    vm->n_vcpus = n;
    for (unsigned i = 0; i < n; i++)
        vm->vcpus[i].index = i;
    return 0;
}

struct sm_hv_vcpu *sm_hv_vm_vcpu(struct sm_hv_vm *vm, unsigned index)
{
    return &vm->vcpus[index];
}

static int no_eventfds(sm_error *err)
{
    return sm_error_set(err, SM_EUNSUPPORTED, "no eventfds here");
}

int sm_hv_vm_irqfd(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err)
{
    (void)vm, (void)fd, (void)irq;
    return no_eventfds(err);
}

int sm_hv_vm_irqfd_remove(struct sm_hv_vm *vm, int fd, unsigned irq, sm_error *err)
{
    (void)vm, (void)fd, (void)irq;
    return no_eventfds(err);
}

int sm_hv_vm_raise(struct sm_hv_vm *vm, unsigned irq, sm_error *err)
{
    (void)vm, (void)err;
    must(irq < IRQS, "an interrupt beyond all");
    atomic_fetch_add(&raised[irq], 1);
    return 0;
}

unsigned fake_hv_raised(unsigned irq)
{
    return atomic_load(&raised[irq]);
}

int sm_hv_vm_ioeventfd(struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err)
{
    (void)vm, (void)fd, (void)gpa, (void)value;
    return no_eventfds(err);
}

int sm_hv_vm_ioeventfd_remove(
    struct sm_hv_vm *vm, int fd, uint64_t gpa, uint32_t value, sm_error *err)
{
    (void)vm, (void)fd, (void)gpa, (void)value;
    return no_eventfds(err);
}

int sm_hv_vm_save(
    struct sm_hv_vm *vm, void **blob, size_t *bytes, uint64_t *clock_ns, sm_error *err)
{
    (void)vm;
    *bytes = 4;
    *clock_ns = 1;
    *blob = strdup("fak");
    return *blob ? 0 : sm_error_set(err, SM_ENOMEM, "no memory");
}

int sm_hv_vm_restore(struct sm_hv_vm *vm, const void *blob, size_t bytes, sm_error *err)
{
    (void)vm;
    return bytes == 4 && !memcmp(blob, "fak", 4) ? 0
                                                 : sm_error_set(err, SM_ECORRUPT, "not our blob");
}

int sm_hv_vm_set_clock(struct sm_hv_vm *vm, uint64_t clock_ns, sm_error *err)
{
    (void)vm, (void)clock_ns, (void)err;
    return 0;
}

/* ---- vCPUs ---------------------------------------------------------------------------------- */

static int copy_list(struct sm_reg_list *to, const struct sm_reg_list *from, sm_error *err)
{
    int rc = 0;
    to->n = 0;
    for (uint32_t i = 0; i < from->n && !rc; i++)
        rc = sm_reg_list_add(to, from->v[i].id, from->v[i].value, err);
    return rc;
}

static int copy_state(struct sm_vcpu_state *to, const struct sm_vcpu_state *from, sm_error *err)
{
    int rc;
    to->simd.n = 0;
    for (uint32_t i = 0; i < from->simd.n; i++) {
        const struct sm_reg128 *r = &from->simd.v[i];
        if ((rc = sm_reg128_list_add(&to->simd, r->id, r->lo, r->hi, err)))
            return rc;
    }
    if ((rc = copy_list(&to->gp, &from->gp, err)) || (rc = copy_list(&to->sys, &from->sys, err)) ||
        (rc = copy_list(&to->icc, &from->icc, err)))
        return rc;
    return copy_list(&to->redist, &from->redist, err);
}

int sm_hv_vcpu_get_state(struct sm_hv_vcpu *vcpu, struct sm_vcpu_state *state, sm_error *err)
{
    check_thread(vcpu, true);
    *state = (struct sm_vcpu_state){0};
    return copy_state(state, &vcpu->state, err);
}

int sm_hv_vcpu_set_state(struct sm_hv_vcpu *vcpu, const struct sm_vcpu_state *state, sm_error *err)
{
    check_thread(vcpu, true);
    int rc = copy_state(&vcpu->state, state, err);
    if (!rc && sm_vcpu_state_is_first(state)) /* what is in it from now on is more than that */
        rc = sm_reg_list_add(&vcpu->state.redist, 0, vcpu->index, err);
    return rc;
}

int sm_hv_vcpu_bind(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    (void)err;
    pthread_mutex_lock(&lock);
    vcpu->thread = pthread_self();
    vcpu->bound = true;
    pthread_mutex_unlock(&lock);
    return 0;
}

void sm_hv_vcpu_unbind(struct sm_hv_vcpu *vcpu)
{
    pthread_mutex_lock(&lock);
    vcpu->bound = false;
    pthread_mutex_unlock(&lock);
}

/* The last exit is done once its vCPU comes again. */
static void end_store(const struct sm_hv_vcpu *vcpu)
{
    if (vcpu->index == 0 && store.is == UNDER_WAY) {
        store.is = NONE;
        pthread_cond_broadcast(&changed);
    }
}

int sm_hv_vcpu_run(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err)
{
    (void)err;
    check_thread(vcpu, false);
    *exit = (struct sm_hv_exit){.kind = SM_HV_EXIT_INTR};
    pthread_mutex_lock(&lock);
    end_store(vcpu);
    while (!vcpu->kicked && (vcpu->index || store.is != ASKED))
        pthread_cond_wait(&changed, &lock);
    if (!vcpu->kicked) {
        store.is = UNDER_WAY;
        sm_store_le32(vcpu->data, store.value);
        *exit = (struct sm_hv_exit){.kind = SM_HV_EXIT_MMIO,
            .address = store.address,
            .size = 4,
            .count = 1,
            .write = true,
            .data = vcpu->data};
    }
    vcpu->kicked = false;
    pthread_mutex_unlock(&lock);
    return 0;
}

int sm_hv_vcpu_complete(struct sm_hv_vcpu *vcpu, struct sm_hv_exit *exit, sm_error *err)
{
    (void)err;
    check_thread(vcpu, false);
    *exit = (struct sm_hv_exit){.kind = SM_HV_EXIT_INTR};
    pthread_mutex_lock(&lock);
    end_store(vcpu);
    pthread_mutex_unlock(&lock);
    return 0;
}

void sm_hv_vcpu_kick(struct sm_hv_vcpu *vcpu)
{
    pthread_mutex_lock(&lock);
    vcpu->kicked = true;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
}

void fake_hv_store(uint64_t address, uint32_t value)
{
    pthread_mutex_lock(&lock);
    store.address = address;
    store.value = value;
    store.is = ASKED;
    pthread_cond_broadcast(&changed);
    while (store.is != NONE)
        pthread_cond_wait(&changed, &lock);
    pthread_mutex_unlock(&lock);
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
    snprintf(text, size, "a vCPU that runs nothing");
}
