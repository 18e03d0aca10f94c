/*
 * vCPU threads, how they are parked, and how a machine ends.
 *
 * `request` tells the threads what to do; they look at it before every entry into the guest, and
 * whoever changes it kicks them, so a thread in the guest comes out (kicks are never lost, see
 * hypervisor.h). To park, a thread first completes what is left of its last exit (an MMIO read
 * whose value the guest has not got yet is not part of the registers), then it waits for the
 * request to change. A new thread gets ready while create makes the devices, and holds until boot
 * or resume.
 *
 * A vCPU that holds or is parked is read and written by whoever needs it, or, where the hypervisor
 * wants it so, by its own thread, which is handed a task and does it in between
 * (sm_hv_state_from_any_thread).
 *
 * What the console says is anybody's word: the guest's root writes there as the kernel does. So a
 * line about a panic is believed at a reset that left the devices as they were. A kernel that
 * reboots in order takes its drivers off them first, one that panics does nothing of the kind.
 *
 * The end is decided by the first thread that calls sm_machine_finish; it asks all vCPU threads to
 * quit. The device thread then resets all devices, which closes the vsock streams, so nobody waits
 * for a guest that is gone.
 */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/text.h"
#include "vmm/machine_internal.h"

/* Of the guest's own time: a vCPU that waits for a CPU of the host, or for the device thread, comes
 * in the end. */
#define PAUSE_MS 30000

/* ---- the end ------------------------------------------------------------------------------- */

/* Appends the last lines of the console that fit. */
static void append_console(struct sm_machine *m, char *message, size_t size)
{
    static const char title[] = "\nlast lines of the console:\n";
    char tail[768];
    size_t used = strlen(message);
    if (used + sizeof(title) + 80 > size)
        return;
    sm_machine_last_lines(m, tail, SM_MIN(sizeof(tail), size - used - sizeof(title) + 1));
    if (*tail)
        snprintf(message + used, size - used, "%s%s", title, tail);
}

/* A guest whose memory is gone ends in any way: where KVM emulates, it even takes a fault of its
 * own. */
static void blame_lost_file(const struct sm_machine *m, struct sm_machine_end *end)
{
    const char *file = sm_machine_lost_file(m);
    if (!file)
        return;
    end->how = SM_VM_INTERNAL_ERROR;
    snprintf(end->message, sizeof(end->message), "the file '%s' was cut short while the VM used it",
        file);
    sm_text_clean(end->message, false);
}

static void reset_devices(void *arg)
{
    struct sm_machine *m = arg;
    if (m->vsock)
        sm_vsock_end(m->vsock); /* what the guest has sent still arrives, then its streams end */
    for (unsigned i = 0; i < m->n_devices; i++)
        sm_virtio_reset(m->devices[i].dev);
}

void sm_machine_finish(struct sm_machine *m, enum sm_vm_end how, const char *fmt, ...)
{
    struct sm_machine_end end = {.how = how};
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(end.message, sizeof(end.message), fmt, ap);
    va_end(ap);
    if (how != SM_VM_POWERED_OFF && how != SM_VM_KILLED) {
        blame_lost_file(m, &end);
        append_console(m, end.message, sizeof(end.message));
    }

    pthread_mutex_lock(&m->lock);
    bool first = m->state != MACHINE_ENDED;
    if (first) {
        m->state = MACHINE_ENDED;
        m->end = end;
        atomic_store(&m->request, REQUEST_QUIT);
        sm_bell_ring(&m->ended);
        pthread_cond_broadcast(&m->changed);
    }
    pthread_mutex_unlock(&m->lock);
    if (!first)
        return;
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        if (m->vcpus[i].hv)
            sm_hv_vcpu_kick(m->vcpus[i].hv);
    }
    sm_loop_post(m->loop, reset_devices, m, NULL);
}

/* Has the guest's kernel reset the devices that it had? True, too, if it never had one. */
static bool devices_left_alone(struct sm_machine *m)
{
    bool used = false;
    for (unsigned i = 0; i < m->n_devices; i++) {
        if (sm_virtio_is_driven(m->devices[i].dev))
            return true;
        used |= sm_virtio_was_driven(m->devices[i].dev);
    }
    return !used;
}

/* The guest has reset or shut down its CPU, in whatever way. */
static void finish_in_order(struct sm_machine *m, const char *what)
{
    if (atomic_load(&m->said_panic) && devices_left_alone(m))
        sm_machine_finish(m, SM_VM_PANICKED, "the guest kernel panicked");
    else
        sm_machine_finish(m, SM_VM_POWERED_OFF, "%s", what);
}

void sm_machine_console_line(void *arg, const char *line)
{
    struct sm_machine *m = arg;
    if (sm_serial_line_is_panic(line))
        atomic_store(&m->said_panic, true);
}

static void reset_read(void *dev, uint64_t offset, void *data, unsigned len)
{
    (void)dev, (void)offset, (void)data, (void)len; /* zeros: ready for a command */
}

static void reset_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
    (void)offset, (void)len;
    if (*(const uint8_t *)data == sm_arch_platform()->reset_command)
        finish_in_order(dev, "the guest powered off");
}

const struct sm_bus_ops sm_machine_reset_ops = {.read = reset_read, .write = reset_write};

/* ---- exits --------------------------------------------------------------------------------- */

static void access_bus(
    const struct sm_bus *bus, uint64_t address, uint8_t *data, unsigned size, bool write)
{
    if (size != 1 && size != 2 && size != 4 && size != 8) { /* no bus does that */
        if (!write)
            memset(data, 0xff, size);
        return;
    }
    if (write)
        sm_bus_write(bus, address, data, size);
    else
        sm_bus_read(bus, address, data, size);
}

static void handle_exit(struct sm_machine_vcpu *v, const struct sm_hv_exit *exit)
{
    struct sm_machine *m = v->machine;
    switch (exit->kind) {
    case SM_HV_EXIT_INTR:
    case SM_HV_EXIT_KINDS:
        break;
    case SM_HV_EXIT_MMIO:
        access_bus(&m->mmio, exit->address, exit->data, exit->size, exit->write);
        break;
    case SM_HV_EXIT_PIO:
        for (uint32_t i = 0; i < exit->count; i++)
            access_bus(&m->pio, exit->address, exit->data + (size_t)i * exit->size, exit->size,
                exit->write);
        break;
    case SM_HV_EXIT_HALT:
        sm_machine_finish(
            m, SM_VM_INTERNAL_ERROR, "vCPU %u halted and nothing will wake it", v->index);
        break;
    case SM_HV_EXIT_SHUTDOWN:
        sm_machine_finish(
            m, SM_VM_TRIPLE_FAULT, "the guest's CPU %u shut down after a triple fault", v->index);
        break;
    case SM_HV_EXIT_POWER_OFF:
        finish_in_order(m, "the guest powered off");
        break;
    case SM_HV_EXIT_RESET:
        finish_in_order(m, "the guest reset itself");
        break;
    case SM_HV_EXIT_CRASH:
        sm_machine_finish(m, SM_VM_PANICKED, "the guest reported a crash");
        break;
    }
}

/* ---- threads ------------------------------------------------------------------------------- */

/* A vCPU's state to be read or written. Under the machine's lock but for the doing. */
struct sm_machine_task {
    struct sm_vcpu_state *get; /* one of the two */
    const struct sm_vcpu_state *set;
    sm_error *err;
    int rc;
    bool taken, done;
};

static int do_task(const struct sm_machine_vcpu *v, const struct sm_machine_task *task)
{
    return task->get ? sm_hv_vcpu_get_state(v->hv, task->get, task->err)
                     : sm_hv_vcpu_set_state(v->hv, task->set, task->err);
}

/* While that is what is asked for: waits, and does what it is handed. With the lock. */
static void stay(struct sm_machine_vcpu *v, unsigned request)
{
    struct sm_machine *m = v->machine;
    while (atomic_load(&m->request) == request) {
        struct sm_machine_task *task = v->task;
        if (!task) {
            pthread_cond_wait(&m->changed, &m->lock);
            continue;
        }
        v->task = NULL;
        task->taken = true;
        pthread_mutex_unlock(&m->lock);
        int rc = do_task(v, task);
        pthread_mutex_lock(&m->lock);
        task->rc = rc;
        task->done = true;
        pthread_cond_broadcast(&m->changed);
    }
}

/* Completes the last exit and waits. False: it cannot. */
static int park(struct sm_machine_vcpu *v, sm_error *err)
{
    struct sm_machine *m = v->machine;
    struct sm_hv_exit exit;
    do {
        int rc = sm_hv_vcpu_complete(v->hv, &exit, err);
        if (rc)
            return rc;
        handle_exit(v, &exit);
    } while (exit.kind != SM_HV_EXIT_INTR && atomic_load(&m->request) != REQUEST_QUIT);
    pthread_mutex_lock(&m->lock);
    m->n_parked++;
    pthread_cond_broadcast(&m->changed);
    stay(v, REQUEST_PARK);
    m->n_parked--;
    pthread_mutex_unlock(&m->lock);
    return 0;
}

static int run(struct sm_machine_vcpu *v, sm_error *err)
{
    struct sm_machine *m = v->machine;
    struct sm_hv_exit exit;
    int rc = 0;
    while (!rc) {
        unsigned request = atomic_load(&m->request);
        if (request == REQUEST_QUIT)
            break;
        if (request == REQUEST_PARK) {
            rc = park(v, err);
            continue;
        }
        rc = sm_hv_vcpu_run(v->hv, &exit, err);
        if (!rc)
            handle_exit(v, &exit);
    }
    return rc;
}

static void hold(struct sm_machine_vcpu *v)
{
    struct sm_machine *m = v->machine;
    pthread_mutex_lock(&m->lock);
    stay(v, REQUEST_HOLD);
    if (v->index == 0 && atomic_load(&m->request) == REQUEST_RUN)
        m->timing.entered_ns = sm_now_ns();
    pthread_mutex_unlock(&m->lock);
}

static void vcpu_main(void *arg)
{
    struct sm_machine_vcpu *v = arg;
    sm_error err;
    atomic_store(&v->tid, gettid());
    int rc = sm_hv_vcpu_bind(v->hv, &err);
    if (!rc) {
        hold(v);
        rc = v->machine->vcpu_begins ? v->machine->vcpu_begins(&err) : 0;
    }
    if (!rc) {
        rc = run(v, &err);
    }
    if (rc)
        sm_machine_finish(v->machine, SM_VM_INTERNAL_ERROR, "%s", err.message);
    sm_hv_vcpu_unbind(v->hv);
}

/* On failure those that were started are joined by close. */
int sm_machine_start_vcpus(struct sm_machine *m, sm_error *err)
{
    for (unsigned i = 0; i < m->n_vcpus; i++) {
        struct sm_machine_vcpu *v = &m->vcpus[i];
        v->hv = sm_hv_vm_vcpu(m->vm, i);
        if (m->count_instructions)
            sm_hv_vcpu_count_instructions(v->hv);
        v->machine = m;
        v->index = i;
    }
    int rc = 0;
    for (unsigned i = 0; i < m->n_vcpus && !rc; i++) {
        struct sm_machine_vcpu *v = &m->vcpus[i];
        char name[16];
        snprintf(name, sizeof(name), "vcpu%u", i);
        rc = sm_thread_start(&v->thread, name, vcpu_main, v, 0, err);
    }
    return rc;
}

/* Under `control`, after the end. */
void sm_machine_join_vcpus(struct sm_machine *m)
{
    for (unsigned i = 0; i < m->n_vcpus; i++)
        sm_thread_join(&m->vcpus[i].thread);
}

static int has_ended(const struct sm_machine *m, sm_error *err)
{
    return sm_error_set(err, SM_EGUEST, "the machine has ended: %s", m->end.message);
}

/* ---- state --------------------------------------------------------------------------------- */

static int hand_over(struct sm_machine_vcpu *v, struct sm_machine_task *task)
{
    struct sm_machine *m = v->machine;
    if (sm_hv_state_from_any_thread(m->hv))
        return do_task(v, task);
    pthread_mutex_lock(&m->lock);
    v->task = task;
    pthread_cond_broadcast(&m->changed);
    while (!task->done && (task->taken || m->state != MACHINE_ENDED))
        pthread_cond_wait(&m->changed, &m->lock);
    if (!task->done) {
        v->task = NULL;
        task->rc = has_ended(m, task->err);
    }
    pthread_mutex_unlock(&m->lock);
    return task->rc;
}

int sm_machine_get_vcpu(
    struct sm_machine *m, unsigned index, struct sm_vcpu_state *state, sm_error *err)
{
    return hand_over(&m->vcpus[index], &(struct sm_machine_task){.get = state, .err = err});
}

int sm_machine_set_vcpu(
    struct sm_machine *m, unsigned index, const struct sm_vcpu_state *state, sm_error *err)
{
    return hand_over(&m->vcpus[index], &(struct sm_machine_task){.set = state, .err = err});
}

/* ---- pause and resume ---------------------------------------------------------------------- */

/* Until all are parked. True: in vain. With the lock, which is let go while the kernel is asked for
 * the vCPUs' time. */
static bool wait_for_all(struct sm_machine *m, struct sm_wait *wait)
{
    bool over = false;
    while (m->n_parked < m->n_vcpus && m->state != MACHINE_ENDED && !over) {
        if (sm_cond_wait_until(&m->changed, &m->lock, sm_deadline(sm_wait_slice(wait))))
            continue;
        pthread_mutex_unlock(&m->lock);
        over = sm_wait_over(wait);
        pthread_mutex_lock(&m->lock);
    }
    return m->n_parked < m->n_vcpus;
}

static int park_all(struct sm_machine *m, sm_error *err)
{
    struct sm_guest_wait w;
    int rc = 0;
    pthread_mutex_lock(&m->lock);
    if (m->state != MACHINE_RUNNING) {
        rc = m->state == MACHINE_ENDED ? has_ended(m, err)
                                       : sm_error_set(err, SM_EINVAL, "the machine does not run");
        pthread_mutex_unlock(&m->lock);
        return rc;
    }
    atomic_store(&m->request, REQUEST_PARK);
    pthread_mutex_unlock(&m->lock);
    for (unsigned i = 0; i < m->n_vcpus; i++)
        sm_hv_vcpu_kick(m->vcpus[i].hv);

    sm_guest_wait_begin(&w, &m->clock, PAUSE_MS);
    pthread_mutex_lock(&m->lock);
    bool in_vain = wait_for_all(m, &w.wait);
    if (m->state == MACHINE_ENDED) {
        rc = has_ended(m, err);
    } else if (in_vain) {
        char what[64];
        snprintf(what, sizeof(what), "%u of %u vCPUs did not stop", m->n_vcpus - m->n_parked,
            m->n_vcpus);
        rc = sm_wait_failed(&w.wait, err, what);
        atomic_store(&m->request, REQUEST_RUN);
        pthread_cond_broadcast(&m->changed);
    } else {
        m->state = MACHINE_PAUSED;
    }
    pthread_mutex_unlock(&m->lock);
    return rc;
}

static int is_not_paused(struct sm_machine *m, sm_error *err)
{
    pthread_mutex_lock(&m->lock);
    int rc = m->state == MACHINE_ENDED ? has_ended(m, err)
                                       : sm_error_set(err, SM_EINVAL, "the machine is not paused");
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* From a pause, or loaded. Under `control`. */
static int run_again(struct sm_machine *m, sm_error *err)
{
    int rc = 0;
    pthread_mutex_lock(&m->lock);
    if (m->state == MACHINE_ENDED) {
        rc = has_ended(m, err);
    } else {
        m->state = MACHINE_RUNNING;
        atomic_store(&m->request, REQUEST_RUN);
    }
    pthread_cond_broadcast(&m->changed);
    pthread_mutex_unlock(&m->lock);
    return rc;
}

/* Under `control`. */
static int stand_still(struct sm_machine *m, sm_error *err)
{
    int rc = park_all(m, err);
    if (rc)
        return rc;
    sm_loop_pause(m->loop);
    m->loop_paused = true;
    return 0;
}

/* A kill has ended all pauses. Under `control`. */
static bool holds(const struct sm_machine *m, const struct sm_pause *pause)
{
    return m->n_pauses && pause->held;
}

int sm_machine_pause(struct sm_machine *m, struct sm_pause *pause, sm_error *err)
{
    int rc = 0;
    pthread_mutex_lock(&m->control);
    if (holds(m, pause))
        rc = sm_error_set(err, SM_EINVAL, "the machine is paused already");
    else if (!m->n_pauses)
        rc = stand_still(m, err);
    if (!rc) {
        pause->held = true;
        m->n_pauses++;
    }
    pthread_mutex_unlock(&m->control);
    return rc;
}

bool sm_machine_is_paused(struct sm_machine *m, const struct sm_pause *pause)
{
    pthread_mutex_lock(&m->control);
    bool held = holds(m, pause);
    pthread_mutex_unlock(&m->control);
    return held;
}

int sm_machine_go(struct sm_machine *m, sm_error *err)
{
    /* The vCPUs first, a thread takes its time to start: until then what they want of the devices
     * is done by them. */
    int rc = run_again(m, err);
    if (rc || m->loop_started)
        return rc;
    rc = sm_loop_start(m->loop, "devices", err);
    if (rc)
        sm_machine_finish(m, SM_VM_INTERNAL_ERROR, "the device thread does not start");
    m->loop_started = !rc;
    return rc;
}

int sm_machine_start(struct sm_machine *m, sm_error *err)
{
    pthread_mutex_lock(&m->control);
    pthread_mutex_lock(&m->lock);
    bool fresh = m->state == MACHINE_LOADED;
    pthread_mutex_unlock(&m->lock);
    int rc = fresh ? sm_machine_go(m, err)
                   : sm_error_set(err, SM_EINVAL, "no snapshot was loaded into the machine");
    pthread_mutex_unlock(&m->control);
    return rc;
}

int sm_machine_resume(struct sm_machine *m, struct sm_pause *pause, sm_error *err)
{
    int rc = 0;
    pthread_mutex_lock(&m->control);
    bool last = m->n_pauses == 1;
    if (!holds(m, pause))
        rc = is_not_paused(m, err);
    else if (last)
        rc = run_again(m, err);
    if (!rc) {
        pause->held = false;
        m->n_pauses--;
    }
    if (!rc && last && m->loop_paused) {
        sm_loop_resume(m->loop);
        m->loop_paused = false;
    }
    pthread_mutex_unlock(&m->control);
    return rc;
}
