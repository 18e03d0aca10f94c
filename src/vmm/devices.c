/*
 * The devices of a machine, always the same ones in the same order: it is the order of the windows, of
 * the interrupts and of the snapshot file.
 */
#include <errno.h>
#include <string.h>

#include "devices/virtio_balloon.h"
#include "devices/virtio_net.h"
#include "devices/virtio_pmem.h"
#include "devices/virtio_rng.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "vmm/machine_internal.h"

_Static_assert(SM_VIRTIO_MMIO_SIZE == SM_ARCH_WINDOW_BYTES, "a place is for one device");

/* Prepares the next place: window, interrupt, bell. The device itself is made by the caller and then
 * handed to place(). */
static int next_env(struct sm_machine *m, struct sm_virtio_env *env, sm_error *err)
{
    struct sm_arch_place where;
    int rc = sm_arch_place(m->n_devices, &where, err);
    if (rc)
        return rc;
    struct sm_machine_device *d = &m->devices[m->n_devices];
    *d = (struct sm_machine_device){.machine = m, .place = where};
    rc = sm_bell_make(&d->irq, err);
    if (rc)
        return rc;
    *env = (struct sm_virtio_env){.loop = m->loop, .memory = &m->memory, .irq = d->irq};
    m->n_devices++; /* from here on drop_devices closes it */
    return 0;
}

static int place(struct sm_machine *m, struct sm_virtio_dev *dev, uint64_t config0,
    uint64_t config1, sm_error *err)
{
    struct sm_machine_device *d = &m->devices[m->n_devices - 1];
    d->dev = dev;
    d->config[0] = config0;
    d->config[1] = config1;
    return sm_bus_add(
        &m->mmio, d->place.window, SM_VIRTIO_MMIO_SIZE, &sm_virtio_mmio_ops, dev, err);
}

static int make_pmem(struct sm_machine *m, sm_error *err)
{
    struct sm_virtio_env env;
    struct sm_virtio_dev *dev;
    const struct sm_pmem_config config = {
        .start = m->rootfs_map.gpa, .size = m->rootfs_map.bytes, .flush_fd = -1};
    int rc = next_env(m, &env, err);
    if (!rc)
        rc = sm_virtio_pmem_create(&env, &config, &dev, err);
    return rc ? rc : place(m, dev, config.start, config.size, err);
}

static int make_vsock(struct sm_machine *m, sm_error *err)
{
    struct sm_virtio_env env;
    const struct sm_vsock_config config = {.guest_cid = m->guest_cid};
    int rc = next_env(m, &env, err);
    if (!rc)
        rc = sm_vsock_create(&env, &config, &m->vsock, err);
    return rc ? rc : place(m, sm_vsock_dev(m->vsock), m->guest_cid, 0, err);
}

static int make_simple(struct sm_machine *m,
    int (*create)(const struct sm_virtio_env *, struct sm_virtio_dev **, sm_error *), sm_error *err)
{
    struct sm_virtio_env env;
    struct sm_virtio_dev *dev;
    int rc = next_env(m, &env, err);
    if (!rc)
        rc = create(&env, &dev, err);
    return rc ? rc : place(m, dev, 0, 0, err);
}

static int make_net(struct sm_machine *m, const struct sm_machine_config *config, sm_error *err)
{
    struct sm_virtio_env env;
    struct sm_virtio_dev *dev;
    struct sm_net_backend *backend = NULL;
    int rc = next_env(m, &env, err);
    if (!rc)
        rc = config->network(config->network_arg, m->loop, &backend, err);
    if (rc)
        return rc;
    static const uint8_t none[6], some[6] = {0x02, 0x53, 0x4d, 0, 0, 1};
    const uint8_t *mac = memcmp(config->mac, none, sizeof(none)) ? config->mac : some;
    rc = sm_virtio_net_create(&env, mac, backend, &dev, err);
    if (rc) {
        backend->ops->destroy(backend);
        return rc;
    }
    return place(m, dev, 0, 0, err);
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
    if (m->rootfs_map.host && (rc = make_pmem(m, err)))
        return rc;
    if ((rc = make_vsock(m, err)) || (rc = make_simple(m, sm_virtio_rng_create, err)))
        return rc;
    rc = make_simple(m, sm_virtio_balloon_create, err);
    return rc || !config->network ? rc : make_net(m, config, err);
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
            return sm_error_prefix(err, rc, "device %s", d->dev->ops->name);
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
