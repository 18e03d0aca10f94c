/*
 * Making, booting, waiting for and closing a machine. See machine.h; threads are in vcpus.c.
 *
 * System calls before a list: open.
 */
#include "vmm/machine.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/arch.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "vmm/machine_internal.h"

#define MEMORY_UNIT (2ULL << 20)
#define MEMORY_MIN  (32ULL << 20)
#define MEMORY_MAX  (64ULL << 30)

SM_DEFINE_CLEANUP(struct sm_machine *, sm_machine_close)

int sm_machine_check_shape(uint64_t memory_bytes, unsigned vcpus, sm_error *err)
{
    if (memory_bytes < MEMORY_MIN || memory_bytes > MEMORY_MAX || memory_bytes % MEMORY_UNIT)
        return sm_error_set(err, SM_EINVAL,
            "a machine cannot have %llu bytes of memory: a multiple of 2 MiB from 32 MiB to 64 GiB",
            (unsigned long long)memory_bytes);
    if (vcpus < 1 || vcpus > SM_MACHINE_MAX_VCPUS)
        return sm_error_set(
            err, SM_EINVAL, "a machine cannot have %u vCPUs: 1 to %d", vcpus, SM_MACHINE_MAX_VCPUS);
    return 0;
}

static int copy(char **to, const char *from, sm_error *err)
{
    if (!from)
        return 0;
    *to = strdup(from);
    return *to ? 0 : sm_error_set(err, SM_ENOMEM, "no memory for a machine");
}

static void init_sync(struct sm_machine *m)
{
    sm_cond_init(&m->changed);
    pthread_mutex_init(&m->lock, NULL);
    pthread_mutex_init(&m->control, NULL);
}

/* The part that talks to the hypervisor, in the order that hypervisor.h wants. */
static int make_vm(struct sm_machine *m, sm_error *err)
{
    int rc;
    if ((rc = sm_hv_vm_create(m->hv, &m->vm, err)) || (rc = sm_machine_set_slots(m, err)) ||
        (rc = sm_hv_vm_make_cpus(m->vm, m->n_vcpus, err)))
        return rc;
    return sm_machine_start_vcpus(m, err);
}

static int open_path(void *arg, const char *path)
{
    (void)arg;
    return open(path, O_RDONLY | O_CLOEXEC);
}

static int fill(struct sm_machine *m, const struct sm_machine_config *c, sm_error *err)
{
    int rc;
    if ((rc = copy(&m->kernel, c->kernel, err)) || (rc = copy(&m->initramfs, c->initramfs, err)) ||
        (rc = copy(&m->cmdline, c->cmdline, err)) ||
        (rc = copy(&m->snapshot_name, c->snapshot_name, err)))
        return rc;
    rc = sm_bell_make(&m->ended, err);
    if (rc)
        return rc;
    m->page_sources = c->page_sources;
    m->vcpu_begins = c->vcpu_begins;
    m->open = c->open ? c->open : open_path;
    m->opens_nothing = c->open != NULL;
    m->open_arg = c->open_arg;
    m->hv = c->hv;
    if (!m->hv) {
        rc = sm_hv_open(&m->own_hv, err);
        if (rc)
            return rc;
        m->hv = m->own_hv;
    }
    if ((rc = sm_machine_map_ram(m, err)) ||
        (rc = c->snapshot ? sm_machine_map_snapshot(m, c->snapshot_fd, c->snapshot, err)
                          : sm_machine_back_ram(m, err)) ||
        (rc = sm_machine_map_files(m, c->parts, c->n_parts, err)) ||
        (rc = sm_loop_create(&m->loop, err)) ||
        (rc = sm_serial_create(&m->serial, c->console_bytes, sm_machine_console_line, m, err)) ||
        (rc = make_vm(m, err)) || (rc = sm_machine_make_devices(m, c, err)))
        return rc;
    return sm_machine_attach_devices(m, err);
}

/* ---- the guest's time ------------------------------------------------------------------------ */

/* What the kernel says of one thread: time on a CPU, time in the queue of one. */
static bool read_schedstat(int tid, uint64_t *ran_ns, uint64_t *waited_ns)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/self/task/%d/schedstat", tid);
    auto_file file = fopen(path, "re");
    unsigned long long ran, waited;
    if (!file || fscanf(file, "%llu %llu", &ran, &waited) != 2)
        return false;
    *ran_ns += ran;
    *waited_ns += waited;
    return true;
}

/* A kernel without these figures still has the thread's clock, and so has a process that can open
 * nothing: what its vCPUs wait for a CPU counts as having nothing to do there. */
static void read_thread_clock(int tid, uint64_t *ran_ns)
{
    struct timespec t;
    clockid_t clock =
        ~(clockid_t)tid << 3 | 6; /* as pthread_getcpuclockid, of a thread that may have ended */
    if (clock_gettime(clock, &t) == 0)
        *ran_ns += (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static void cpu_time(void *arg, uint64_t *ran_ns, uint64_t *waited_ns)
{
    const struct sm_machine *m = arg;
    *ran_ns = *waited_ns = 0;
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        int tid = atomic_load(&m->vcpus[i].tid);
        if (tid && (m->opens_nothing || !read_schedstat(tid, ran_ns, waited_ns)))
            read_thread_clock(tid, ran_ns);
    }
}

static bool is_emulated(void *arg)
{
    const struct sm_machine *m = arg;
    bool assisted;
    return sm_hv_needs_assist(m->hv, &assisted, NULL) == 0 && assisted;
}

/* ---- its beginning and end ------------------------------------------------------------------- */

int sm_machine_create(
    struct sm_machine **out, const struct sm_machine_config *config, sm_error *err)
{
    uint64_t start = sm_now_ns();
    int rc = sm_machine_check_shape(config->memory_bytes, config->vcpus, err);
    if (!rc)
        rc = sm_machine_check_parts(config->parts, config->n_parts, err);
    if (rc)
        return rc;
    struct sm_machine *fresh = calloc(1, sizeof(*fresh));
    if (!fresh)
        return sm_error_set(err, SM_ENOMEM, "no memory for a machine");
    fresh->ended = SM_BELL_NONE;
    fresh->ram_fd = -1;
    init_sync(fresh);
    fresh->clock =
        (struct sm_guest_clock){.cpu_time = cpu_time, .is_emulated = is_emulated, .arg = fresh};
    SM_CLEANUP(sm_machine_close_cleanup) struct sm_machine *m = fresh;
    m->timing.start_ns = start;
    m->memory_bytes = config->memory_bytes;
    m->n_vcpus = config->vcpus;
    m->count_instructions = config->count_instructions;
    rc = fill(m, config, err);
    if (rc)
        return rc;
    m->timing.created_ns = sm_now_ns();
    *out = sm_steal_ptr(&m);
    return 0;
}

void sm_machine_close(struct sm_machine *m)
{
    if (!m)
        return;
    if (m->loop) {
        sm_machine_kill(m);
        sm_loop_stop(m->loop); /* after it has reset the devices, see vcpus.c */
    }
    sm_machine_drop_devices(m);
    sm_loop_destroy(m->loop);
    sm_serial_destroy(m->serial);
    sm_hv_vm_close(m->vm);
    for (unsigned i = 0; i < m->memory.n; i++)
        free(m->memory.regions[i].replaced);
    sm_machine_unmap(m);
    sm_hv_close(m->own_hv);
    sm_bell_close(&m->ended);
    pthread_mutex_destroy(&m->control);
    pthread_mutex_destroy(&m->lock);
    pthread_cond_destroy(&m->changed);
    free(m->kernel);
    free(m->initramfs);
    free(m->cmdline);
    free(m->snapshot_name);
    free(m);
}

/* ---- boot ------------------------------------------------------------------------------------ */

static int open_file(
    struct sm_machine *m, const char *path, const char *what, int *fd, sm_error *err)
{
    *fd = m->open(m->open_arg, path);
    return *fd < 0 ? sm_error_errno(err, errno, "cannot open the %s %s", what, path) : 0;
}

/* vCPU 0 gets what the boot protocol wants, the others are started by the guest. */
static int load_first_states(struct sm_machine *m, const struct sm_vcpu_state *vcpu0, sm_error *err)
{
    static const struct sm_vcpu_state nothing;
    int rc = 0;
    for (unsigned i = 0; i < m->n_vcpus && !rc; i++)
        rc = sm_machine_set_vcpu(m, i, i == 0 ? vcpu0 : &nothing, err);
    return rc;
}

static int load(struct sm_machine *m, sm_error *err)
{
    if (!m->kernel)
        return sm_error_set(err, SM_EINVAL, "a machine without a kernel cannot boot");
    auto_fd kernel = -1;
    auto_fd initramfs = -1;
    bool emulated = false;
    int rc = open_file(m, m->kernel, "kernel", &kernel, err);
    if (!rc && m->initramfs)
        rc = open_file(m, m->initramfs, "initramfs", &initramfs, err);
    if (!rc)
        rc = sm_hv_needs_assist(m->hv, &emulated, err);
    if (rc)
        return rc;
    struct sm_arch_place places[SM_MACHINE_MAX_PARTS];
    for (unsigned i = 0; i < m->n_devices; i++)
        places[i] = m->devices[i].place;
    const struct sm_arch_boot config = {
        .ram = m->ram.host,
        .ram_bytes = m->memory_bytes,
        .vcpus = m->n_vcpus,
        .kernel_fd = kernel,
        .initramfs_fd = initramfs,
        .emulated = emulated,
        .words = m->cmdline,
        .places = places,
        .n_places = m->n_devices,
    };
    auto_vcpu_state vcpu0 = {0};
    rc = sm_arch_boot(&config, &vcpu0, err);
    if (rc)
        return sm_error_prefix(err, rc, "kernel %s", m->kernel);
    return load_first_states(m, &vcpu0, err);
}

static int load_kernel(struct sm_machine *m, sm_error *err)
{
    pthread_mutex_lock(&m->lock);
    enum machine_state state = m->state;
    pthread_mutex_unlock(&m->lock);
    if (state != MACHINE_CREATED)
        return sm_error_set(err, SM_EINVAL, "the machine has been started before");
    int rc = load(m, err);
    if (rc)
        return rc;
    pthread_mutex_lock(&m->lock);
    m->timing.loaded_ns = sm_now_ns();
    if (m->state == MACHINE_CREATED)
        m->state = MACHINE_LOADED;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

int sm_machine_load_kernel(struct sm_machine *m, sm_error *err)
{
    pthread_mutex_lock(&m->control);
    int rc = load_kernel(m, err);
    pthread_mutex_unlock(&m->control);
    return rc;
}

int sm_machine_boot(struct sm_machine *m, sm_error *err)
{
    int rc = sm_machine_load_kernel(m, err);
    return rc ? rc : sm_machine_start(m, err);
}

/* ---- end ------------------------------------------------------------------------------------- */

int sm_machine_wait(struct sm_machine *m, int timeout_ms, struct sm_machine_end *end, sm_error *err)
{
    int64_t deadline = sm_deadline(timeout_ms);
    int rc = 0;
    bool over = false;
    pthread_mutex_lock(&m->lock);
    while (m->state != MACHINE_ENDED && !over)
        over = !sm_cond_wait_until(&m->changed, &m->lock, deadline);
    if (m->state == MACHINE_ENDED)
        *end = m->end;
    else
        rc = sm_error_set(err, SM_ETIMEOUT, "the machine still runs");
    pthread_mutex_unlock(&m->lock);
    return rc;
}

int sm_machine_end_fd(const struct sm_machine *m)
{
    return sm_bell_fd(&m->ended);
}

bool sm_machine_end_halted(struct sm_machine *m)
{
    if (!m->vsock || sm_virtio_is_driven(sm_vsock_dev(m->vsock)))
        return false;
    sm_machine_finish(m, SM_VM_POWERED_OFF, "the guest halted");
    return true;
}

void sm_machine_kill(struct sm_machine *m)
{
    sm_machine_finish(m, SM_VM_KILLED, "the machine was stopped");
    pthread_mutex_lock(&m->control);
    if (m->loop_paused) {
        sm_loop_resume(m->loop);
        m->loop_paused = false;
    }
    m->n_pauses = 0;
    sm_machine_join_vcpus(m);
    pthread_mutex_unlock(&m->control);
}

/* ---- looking at it --------------------------------------------------------------------------- */

struct sm_vsock *sm_machine_vsock(struct sm_machine *m)
{
    return m->vsock;
}

struct sm_loop *sm_machine_loop(struct sm_machine *m)
{
    return m->loop;
}
