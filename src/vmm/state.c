/*
 * Capture and restore of a machine's state (docs/snapshot-format.md). RAM itself is read by the
 * writers of src/snapshot and mapped here.
 *
 * Capture: the machine is paused, that is, all vCPUs are parked with their last exit completed and
 * the device thread is between two events. Restore goes into a machine whose vCPUs have never run,
 * in the order: RAM, vCPUs, interrupt controllers, clock, devices; at the end the devices look into
 * their queues, since a kick of the guest may have been under way at capture.
 */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/page_map.h"
#include "snapshot/snapshot.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"
#include "vmm/machine_internal.h"

_Static_assert(SM_CPU_DIGEST_BYTES <= SM_SNAPSHOT_ID_BYTES, "CPU digest fits");
_Static_assert(SM_VMM_BUILD_ID_BYTES == SM_SNAPSHOT_ID_BYTES, "build id fits");

/* ---- save ---------------------------------------------------------------------------------- */

static void describe_device(const struct sm_machine_device *d, struct sm_snapshot_device *to)
{
    to->virtio_id = d->dev->ops->id;
    memcpy(to->role, d->role, sizeof(to->role));
    to->irq = d->place.irq;
    to->window = d->place.window;
    to->features = d->dev->features;
    memcpy(to->config, d->config, sizeof(to->config));
}

static int save_parts(struct sm_machine *m, struct sm_snapshot *s, sm_error *err)
{
    s->vcpus = calloc(m->n_vcpus, sizeof(*s->vcpus));
    s->devices = calloc(m->n_devices, sizeof(*s->devices));
    if (!s->vcpus || !s->devices)
        return sm_error_set(err, SM_ENOMEM, "no memory for the machine's state");
    s->n_vcpus = m->n_vcpus;
    s->n_devices = m->n_devices;
    int rc = 0;
    for (unsigned i = 0; i < m->n_vcpus && !rc; i++)
        rc = sm_machine_get_vcpu(m, i, &s->vcpus[i], err);
    void *blob = NULL;
    if (!rc)
        rc = sm_hv_vm_save(m->vm, &blob, &s->irqchip_bytes, &s->captured_guest_clock, err);
    s->irqchip = blob;
    for (unsigned i = 0; i < m->n_devices && !rc; i++) {
        describe_device(&m->devices[i], &s->devices[i]);
        sm_virtio_save(m->devices[i].dev, &s->devices[i].state);
    }
    return rc;
}

static int save(struct sm_machine *m, struct sm_snapshot **out, sm_error *err)
{
    pthread_mutex_lock(&m->lock);
    enum machine_state state = m->state;
    pthread_mutex_unlock(&m->lock);
    if (state != MACHINE_PAUSED)
        return sm_error_set(err, SM_EINVAL, "only a paused machine can be captured");
    auto_snapshot s = calloc(1, sizeof(*s));
    if (!s)
        return sm_error_set(err, SM_ENOMEM, "no memory for the machine's state");
    s->captured_host_ns = sm_now_ns();
    s->memory_bytes = m->memory_bytes;
    s->arch = sm_arch_tag();
    s->ram_gpa = m->memory.regions[0].gpa;
    memcpy(s->build.vmm, sm_vmm_build_id, sizeof(s->build.vmm));
    sm_hv_cpu_digest(m->hv, s->cpu_digest);
    uint64_t offset = 0;
    for (unsigned i = 0; i < m->memory.n; i++) {
        const struct sm_gm_region *r = &m->memory.regions[i];
        s->regions[s->n_regions++] =
            (struct sm_snapshot_region){.gpa = r->gpa, .size = r->size, .offset = offset};
        offset += r->size;
    }
    int rc = save_parts(m, s, err);
    if (rc)
        return sm_error_prefix(err, rc, "capture");
    *out = sm_steal_ptr(&s);
    return 0;
}

int sm_machine_save(struct sm_machine *m, struct sm_snapshot **out, sm_error *err)
{
    pthread_mutex_lock(&m->control);
    int rc = save(m, out, err);
    pthread_mutex_unlock(&m->control);
    return rc;
}

/* ---- load ----------------------------------------------------------------------------------- */

static int __attribute__((format(printf, 2, 3))) refuse(sm_error *err, const char *fmt, ...)
{
    char how[128];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(how, sizeof(how), fmt, ap);
    va_end(ap);
    return sm_error_set(err, SM_EUNSUPPORTED,
        "the snapshot cannot be restored here: it was made %s; make a new one", how);
}

/* What the snapshot has of a device of ours: the same kind of device, in the same role. NULL:
 * nothing. */
static const struct sm_snapshot_device *find_device(
    const struct sm_snapshot *s, const struct sm_machine_device *d)
{
    for (uint32_t i = 0; i < s->n_devices; i++) {
        const struct sm_snapshot_device *there = &s->devices[i];
        if (there->virtio_id == d->dev->ops->id && !strcmp(there->role, d->role))
            return there;
    }
    return NULL;
}

/* What the snapshot has, and the machine has not. NULL: nothing. */
static const struct sm_snapshot_device *find_other(
    const struct sm_machine *m, const struct sm_snapshot *s)
{
    for (uint32_t i = 0; i < s->n_devices; i++) {
        unsigned k = 0;
        while (k < m->n_devices && find_device(s, &m->devices[k]) != &s->devices[i])
            k++;
        if (k == m->n_devices)
            return &s->devices[i];
    }
    return NULL;
}

/* Each of ours has its counterpart, and none is over. */
static int check_devices(const struct sm_machine *m, const struct sm_snapshot *s, sm_error *err)
{
    for (unsigned i = 0; i < m->n_devices; i++) {
        const struct sm_machine_device *d = &m->devices[i];
        const struct sm_snapshot_device *there = find_device(s, d);
        struct sm_snapshot_device here = {0};
        if (!there)
            return refuse(err, "without the device '%s'", d->role);
        describe_device(d, &here);
        if (here.irq != there->irq || here.window != there->window ||
            here.features != there->features ||
            memcmp(here.config, there->config, sizeof(here.config)))
            return refuse(err, "with another device '%s'", d->role);
    }
    const struct sm_snapshot_device *other = find_other(m, s);
    return other ? refuse(err, "with a device '%s' that is not here", other->role) : 0;
}

static int check_fits(const struct sm_machine *m, const struct sm_snapshot *s, sm_error *err)
{
    uint8_t cpu[SM_SNAPSHOT_ID_BYTES] = {0};
    if (s->arch != sm_arch_tag())
        return refuse(err, "on another architecture");
    sm_hv_cpu_digest(m->hv, cpu);
    if (memcmp(cpu, s->cpu_digest, sizeof(cpu)))
        return refuse(err, "on a CPU (or by a KVM) with other features");
    if (memcmp(sm_vmm_build_id, s->build.vmm, sizeof(s->build.vmm)))
        return refuse(err, "by another build of supermachine");
    if (s->memory_bytes != m->memory_bytes || s->ram_gpa != m->memory.regions[0].gpa)
        return refuse(err, "with another memory size");
    if (s->n_vcpus != m->n_vcpus)
        return refuse(err, "with another number of vCPUs");
    uint64_t offset = 0;
    bool same = s->n_regions == m->memory.n;
    for (unsigned i = 0; same && i < m->memory.n; i++) {
        const struct sm_gm_region *r = &m->memory.regions[i];
        same = s->regions[i].gpa == r->gpa && s->regions[i].size == r->size &&
               s->regions[i].offset == offset;
        offset += r->size;
    }
    if (!same)
        return refuse(err, "with another memory map");
    return check_devices(m, s, err);
}

void sm_machine_ram(const struct sm_machine *m, struct sm_ram *ram)
{
    *ram = (struct sm_ram){
        .base = m->ram.host,
        .bytes = m->ram.bytes,
        .backing = m->ram_fd >= 0 ? SM_RAM_PRIVATE_FILE : SM_RAM_ANONYMOUS,
        .fd = m->ram_fd,
        .file_offset = m->ram_offset,
        .sources = m->page_sources,
    };
}

static void wake_devices(void *arg)
{
    struct sm_machine *m = arg;
    for (unsigned i = 0; i < m->n_devices; i++)
        sm_virtio_wake(m->devices[i].dev);
}

static int load_devices(struct sm_machine *m, const struct sm_snapshot *s, sm_error *err)
{
    for (unsigned i = 0; i < m->n_devices; i++) {
        const struct sm_machine_device *d = &m->devices[i];
        int rc = sm_virtio_load(d->dev, &find_device(s, d)->state, err);
        if (rc)
            return sm_error_prefix(err, rc, "device '%s'", d->role);
    }
    if (m->vsock)
        sm_vsock_transport_reset(m->vsock);
    return sm_loop_post(m->loop, wake_devices, m, err); /* when it runs */
}

/* A first state is for a boot. */
static int load_vcpu(
    struct sm_machine *m, unsigned index, const struct sm_vcpu_state *state, sm_error *err)
{
    if (sm_vcpu_state_is_first(state))
        return sm_error_set(err, SM_ECORRUPT, "the snapshot says too little of vCPU %u", index);
    return sm_machine_set_vcpu(m, index, state, err);
}

/* Microseconds since *last, which becomes now. */
static uint64_t lap(uint64_t *last)
{
    uint64_t now = sm_now_ns(), us = (now - *last) / 1000;
    *last = now;
    return us;
}

static int load(struct sm_machine *m, int fd, const struct sm_snapshot *s,
    struct sm_machine_load_times *t, sm_error *err)
{
    uint64_t start = sm_now_ns(), last = start;
    int rc = check_fits(m, s, err);
    if (!rc && m->ram_fd < 0)
        rc = sm_machine_map_snapshot(m, fd, s, err);
    t->ram_map = lap(&last);
    for (unsigned i = 0; i < m->n_vcpus && !rc; i++)
        rc = load_vcpu(m, i, &s->vcpus[i], err);
    t->vcpu_restore = lap(&last);
    if (!rc)
        rc = sm_hv_vm_restore(m->vm, s->irqchip, s->irqchip_bytes, err);
    t->irqchip_restore = lap(&last);
    if (!rc)
        rc = sm_hv_vm_set_clock(m->vm, s->captured_guest_clock, err);
    t->clock = lap(&last);
    if (!rc)
        rc = load_devices(m, s, err);
    t->device_restore = lap(&last);
    t->total = (last - start) / 1000;
    return rc;
}

int sm_machine_load(struct sm_machine *m, int fd, const struct sm_snapshot *snapshot,
    struct sm_machine_load_times *times, sm_error *err)
{
    struct sm_machine_load_times t = {0};
    pthread_mutex_lock(&m->control);
    pthread_mutex_lock(&m->lock);
    bool fresh = m->state == MACHINE_CREATED;
    pthread_mutex_unlock(&m->lock);
    int rc = fresh ? load(m, fd, snapshot, &t, err)
                   : sm_error_set(err, SM_EINVAL, "the machine has been started before");
    if (!rc) {
        pthread_mutex_lock(&m->lock);
        m->timing.loaded_ns = sm_now_ns();
        if (m->state == MACHINE_CREATED)
            m->state = MACHINE_LOADED;
        pthread_mutex_unlock(&m->lock);
        if (times)
            *times = t;
    } else if (fresh) {
        sm_machine_finish(m, SM_VM_KILLED, "the restore failed");
    }
    pthread_mutex_unlock(&m->control);
    return rc;
}
