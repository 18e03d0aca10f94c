/*
 * A machine's parts become devices: each gets its place (register window and interrupt, by its
 * index in the list) and is put on the bus, and later connected to the VM. The order of the list is
 * the order of the windows, of the interrupts and of the snapshot file.
 */
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "vmm/machine_internal.h"

_Static_assert(SM_VIRTIO_MMIO_SIZE == SM_ARCH_WINDOW_BYTES, "a place is for one device");

int sm_machine_check_parts(const struct sm_machine_part *parts, unsigned n, sm_error *err)
{
    if (n > SM_MACHINE_MAX_PARTS)
        return sm_error_set(
            err, SM_ELIMIT, "a machine has at most %d devices", SM_MACHINE_MAX_PARTS);
    for (unsigned i = 0; i < n; i++) {
        if (!*parts[i].role || strlen(parts[i].role) >= SM_SNAPSHOT_ROLE_BYTES)
            return sm_error_set(err, SM_EINVAL,
                "the role '%s' of a device does not have 1 to %d bytes", parts[i].role,
                SM_SNAPSHOT_ROLE_BYTES - 1);
        for (unsigned k = 0; k < i; k++) {
            if (!strcmp(parts[i].role, parts[k].role))
                return sm_error_set(err, SM_EINVAL,
                    "a machine cannot have two devices with the role '%s'", parts[i].role);
        }
    }
    return 0;
}

static int make_device(struct sm_machine *m, const struct sm_machine_part *part, sm_error *err)
{
    struct sm_arch_place place;
    int rc = sm_arch_place(m->n_devices, &place, err);
    if (rc)
        return rc;
    struct sm_machine_device *d = &m->devices[m->n_devices];
    *d = (struct sm_machine_device){.machine = m, .place = place};
    strcpy(d->role, part->role);
    rc = sm_bell_make(&d->irq, err);
    if (rc)
        return rc;
    const struct sm_machine_file *file = &m->files[m->n_devices];
    m->n_devices++; /* from here on drop_devices closes it */
    const struct sm_part_env env = {
        .virtio = {.loop = m->loop, .memory = &m->memory, .irq = d->irq},
        .gpa = file->map.gpa,
        .bytes = file->map.bytes,
    };
    struct sm_part_device made = {0};
    rc = part->make(part, &env, &made, err);
    if (rc)
        return rc;
    d->dev = made.dev;
    memcpy(d->config, made.config, sizeof(d->config));
    if (made.vsock)
        m->vsock = made.vsock;
    return sm_bus_add(
        &m->mmio, place.window, SM_VIRTIO_MMIO_SIZE, &sm_virtio_mmio_ops, d->dev, err);
}

static int add_port(struct sm_machine *m, const struct sm_arch_port *port,
    const struct sm_bus_ops *ops, void *dev, sm_error *err)
{
    if (!port->bytes)
        return 0;
    return sm_bus_add(port->pio ? &m->pio : &m->mmio, port->base, port->bytes, ops, dev, err);
}

int sm_machine_make_devices(
    struct sm_machine *m, const struct sm_machine_config *config, sm_error *err)
{
    const struct sm_arch_platform *platform = sm_arch_platform();
    int rc;
    if ((rc = add_port(m, &platform->serial, &sm_serial_ops, m->serial, err)) ||
        (rc = add_port(m, &platform->reset, &sm_machine_reset_ops, m, err)))
        return rc;
    for (unsigned i = 0; i < config->n_parts; i++) {
        rc = make_device(m, &config->parts[i], err);
        if (rc)
            return sm_error_prefix(err, rc, "device '%s'", config->parts[i].role);
    }
    return 0;
}

/* The device thread's part where the hypervisor hears no bells. */
static void raise_interrupt(void *arg, uint32_t events)
{
    struct sm_machine_device *d = arg;
    (void)events;
    if (sm_bell_clear(&d->irq))
        (void)sm_hv_vm_raise(d->machine->vm, d->place.irq, NULL);
}

static int attach_interrupt(struct sm_machine *m, struct sm_machine_device *d, sm_error *err)
{
    int rc = sm_hv_vm_irqfd(m->vm, sm_bell_fd(&d->irq), d->place.irq, err);
    if (rc != -SM_EUNSUPPORTED)
        return rc;
    return sm_loop_add(
        m->loop, sm_bell_fd(&d->irq), SM_LOOP_IN, raise_interrupt, d, &d->irq_watch, err);
}

/* Where the hypervisor does not ring, the store exits and the bus does. */
static int attach_doorbell(
    struct sm_machine *m, const struct sm_machine_device *d, unsigned q, sm_error *err)
{
    uint64_t gpa = d->place.window + SM_VIRTIO_MMIO_NOTIFY;
    int rc = sm_hv_vm_ioeventfd(m->vm, sm_bell_fd(&d->dev->kick[q].bell), gpa, q, err);
    return rc == -SM_EUNSUPPORTED ? 0 : rc;
}

int sm_machine_attach_devices(struct sm_machine *m, sm_error *err)
{
    for (unsigned i = 0; i < m->n_devices; i++) {
        struct sm_machine_device *d = &m->devices[i];
        int rc = attach_interrupt(m, d, err);
        for (unsigned q = 0; q < d->dev->ops->n_queues && !rc; q++)
            rc = attach_doorbell(m, d, q, err);
        if (rc)
            return sm_error_prefix(err, rc, "device '%s'", d->role);
    }
    return 0;
}

void sm_machine_drop_devices(struct sm_machine *m)
{
    for (unsigned i = 0; i < m->n_devices; i++) {
        sm_virtio_destroy(m->devices[i].dev);
        sm_loop_remove(m->devices[i].irq_watch);
        sm_bell_close(&m->devices[i].irq);
    }
    m->n_devices = 0;
    m->vsock = NULL;
}
