/* virtio-mmio transport, version 2. See virtio_mmio.h. */
#include "devices/virtio_mmio.h"

#include <errno.h>
#include <string.h>

#include "util/bytes.h"
#include "util/error.h"

/* Register offsets: virtio 1.2, table 4.1 */
enum {
    REG_MAGIC = 0x000,
    REG_VERSION = 0x004,
    REG_DEVICE_ID = 0x008,
    REG_VENDOR_ID = 0x00c,
    REG_DEVICE_FEATURES = 0x010,
    REG_DEVICE_FEATURES_SEL = 0x014,
    REG_DRIVER_FEATURES = 0x020,
    REG_DRIVER_FEATURES_SEL = 0x024,
    REG_QUEUE_SEL = 0x030,
    REG_QUEUE_NUM_MAX = 0x034,
    REG_QUEUE_NUM = 0x038,
    REG_QUEUE_READY = 0x044,
    REG_QUEUE_NOTIFY = SM_VIRTIO_MMIO_NOTIFY,
    REG_INTERRUPT_STATUS = 0x060,
    REG_INTERRUPT_ACK = 0x064,
    REG_STATUS = 0x070,
    REG_QUEUE_DESC_LOW = 0x080,
    REG_QUEUE_DESC_HIGH = 0x084,
    REG_QUEUE_DRIVER_LOW = 0x090,
    REG_QUEUE_DRIVER_HIGH = 0x094,
    REG_QUEUE_DEVICE_LOW = 0x0a0,
    REG_QUEUE_DEVICE_HIGH = 0x0a4,
    REG_SHM_LEN_LOW = 0x0b0,
    REG_SHM_BASE_HIGH = 0x0bc,
    REG_CONFIG_GENERATION = 0x0fc,
    REG_CONFIG = 0x100,
};

#define MAGIC     0x74726976u /* "virt" */
#define VENDOR_ID 0x4d534d53u

#define CHAINS_PER_TURN 16

#define STATUS_ORDER                                                                               \
    (SM_VIRTIO_STATUS_ACKNOWLEDGE | SM_VIRTIO_STATUS_DRIVER | SM_VIRTIO_STATUS_FEATURES_OK |       \
        SM_VIRTIO_STATUS_DRIVER_OK)

static void raise(struct sm_virtio_dev *dev, unsigned why)
{
    atomic_fetch_or(&dev->interrupt_status, why);
    atomic_fetch_add_explicit(&dev->interrupts, 1, memory_order_relaxed);
    sm_bell_ring(&dev->env.irq);
}

static uint64_t driver_features(const uint32_t words[2])
{
    return words[0] | (uint64_t)words[1] << 32;
}

static bool features_acceptable(const struct sm_virtio_dev *dev, const uint32_t words[2])
{
    uint64_t f = driver_features(words);
    return (f & SM_VIRTIO_F_VERSION_1) && !(f & ~dev->features);
}

/* ---- what happens on the loop's thread ------------------------------------------------------ */

void sm_virtio_broken(struct sm_virtio_dev *dev)
{
    sm_loop_check_here(dev->env.loop);
    for (unsigned q = 0; q < dev->ops->n_queues; q++)
        dev->vq[q].broken = true;
    unsigned old = atomic_fetch_or(&dev->status, SM_VIRTIO_STATUS_NEEDS_RESET);
    if (!(old & SM_VIRTIO_STATUS_NEEDS_RESET) && (old & SM_VIRTIO_STATUS_DRIVER_OK))
        raise(dev, SM_VIRTIO_INT_CONFIG);
}

void sm_virtio_publish(struct sm_virtio_dev *dev, unsigned q)
{
    sm_loop_check_here(dev->env.loop);
    if (sm_virtq_publish(&dev->vq[q]))
        raise(dev, SM_VIRTIO_INT_USED);
    if (dev->vq[q].broken)
        sm_virtio_broken(dev);
}

void sm_virtio_interrupt(struct sm_virtio_dev *dev)
{
    sm_loop_check_here(dev->env.loop);
    raise(dev, SM_VIRTIO_INT_USED);
}

void sm_virtio_again(struct sm_virtio_dev *dev, unsigned q)
{
    sm_bell_ring(&dev->kick[q].bell);
}

void sm_virtio_serve(struct sm_virtio_dev *dev, unsigned q, sm_virtio_serve_fn *fn)
{
    sm_loop_check_here(dev->env.loop);
    struct sm_virtq *vq = &dev->vq[q];
    struct sm_virtq_chain chain;
    unsigned budget = CHAINS_PER_TURN;
    sm_virtq_notify_off(vq);
    do {
        while (budget > 0 && sm_virtq_pop(vq, &chain)) {
            sm_virtq_push(vq, chain.head, fn(dev, &chain));
            budget--;
        }
    } while (budget > 0 && sm_virtq_notify_on(vq));
    sm_virtio_publish(dev, q);
    if (budget == 0)
        sm_virtio_again(dev, q);
}

void sm_virtio_config_changed(struct sm_virtio_dev *dev)
{
    pthread_mutex_lock(&dev->lock);
    dev->config_generation++;
    pthread_mutex_unlock(&dev->lock);
    if (atomic_load(&dev->status) & SM_VIRTIO_STATUS_DRIVER_OK)
        raise(dev, SM_VIRTIO_INT_CONFIG);
}

static void look_into(struct sm_virtio_dev *dev, unsigned q)
{
    sm_loop_check_here(dev->env.loop);
    struct sm_virtq *vq = &dev->vq[q];
    if (!dev->active || !vq->running || vq->broken)
        return;
    atomic_fetch_add_explicit(&dev->kicks, 1, memory_order_relaxed);
    if (dev->ops->notify)
        dev->ops->notify(dev, q);
    if (vq->broken)
        sm_virtio_broken(dev);
}

static void on_kick(void *arg, uint32_t events)
{
    (void)events;
    struct sm_virtio_kick *kick = arg;
    sm_bell_clear(&kick->bell);
    look_into(kick->dev, kick->q);
}

void sm_virtio_wake(struct sm_virtio_dev *dev)
{
    for (unsigned q = 0; q < dev->ops->n_queues; q++)
        look_into(dev, q);
    if (dev->active && atomic_load(&dev->interrupt_status))
        sm_bell_ring(&dev->env.irq);
}

/* Starts the queues that are ready; false if one of them makes no sense. */
static bool start_queues(struct sm_virtio_dev *dev)
{
    bool good = true;
    for (unsigned q = 0; q < dev->ops->n_queues; q++) {
        memset(&dev->vq[q], 0, sizeof(dev->vq[q]));
        if (dev->queue_regs[q].ready)
            good &= sm_virtq_start(&dev->vq[q], dev->env.memory, &dev->queue_regs[q],
                sm_virtio_has(dev, SM_VIRTIO_F_EVENT_IDX),
                sm_virtio_has(dev, SM_VIRTIO_F_INDIRECT_DESC));
    }
    return good;
}

static void do_activate(void *arg)
{
    struct sm_virtio_dev *dev = arg;
    pthread_mutex_lock(&dev->lock);
    bool wanted = (atomic_load(&dev->status) & SM_VIRTIO_STATUS_DRIVER_OK) && !dev->active;
    bool good = wanted && start_queues(dev);
    dev->active |= wanted;
    if (wanted)
        atomic_store(&dev->was_driven, true);
    pthread_mutex_unlock(&dev->lock);
    if (wanted && !good)
        sm_virtio_broken(dev);
    else if (wanted && dev->ops->activate)
        dev->ops->activate(dev);
}

static void do_reset(void *arg)
{
    struct sm_virtio_dev *dev = arg;
    if (dev->active && dev->ops->reset)
        dev->ops->reset(dev);
    pthread_mutex_lock(&dev->lock);
    dev->active = false;
    for (unsigned q = 0; q < dev->ops->n_queues; q++) {
        sm_virtq_stop(&dev->vq[q]);
        dev->vq[q].broken = false;
        dev->queue_regs[q] = (struct sm_virtq_state){0};
    }
    dev->features_sel = dev->driver_features_sel = dev->queue_sel = 0;
    dev->driver_features[0] = dev->driver_features[1] = 0;
    atomic_store(&dev->interrupt_status, 0);
    atomic_store(&dev->status, 0);
    pthread_mutex_unlock(&dev->lock);
}

void sm_virtio_reset(struct sm_virtio_dev *dev)
{
    sm_loop_run(dev->env.loop, do_reset, dev);
}

/* ---- registers, on vCPU threads ------------------------------------------------------------- */

static void write_status(struct sm_virtio_dev *dev, uint32_t value)
{
    if (value == 0) {
        sm_virtio_reset(dev);
        return;
    }
    pthread_mutex_lock(&dev->lock);
    unsigned old = atomic_load(&dev->status);
    unsigned fresh = old;
    /* Bits cannot be taken back but by a reset; each needs the one before it. */
    if ((value & STATUS_ORDER & old) == (STATUS_ORDER & old)) {
        if (value & SM_VIRTIO_STATUS_ACKNOWLEDGE)
            fresh |= SM_VIRTIO_STATUS_ACKNOWLEDGE;
        if ((value & SM_VIRTIO_STATUS_DRIVER) && (fresh & SM_VIRTIO_STATUS_ACKNOWLEDGE))
            fresh |= SM_VIRTIO_STATUS_DRIVER;
        if ((value & SM_VIRTIO_STATUS_FEATURES_OK) && (fresh & SM_VIRTIO_STATUS_DRIVER) &&
            features_acceptable(dev, dev->driver_features))
            fresh |= SM_VIRTIO_STATUS_FEATURES_OK;
        if ((value & SM_VIRTIO_STATUS_DRIVER_OK) && (fresh & SM_VIRTIO_STATUS_FEATURES_OK))
            fresh |= SM_VIRTIO_STATUS_DRIVER_OK;
    }
    fresh |= value & SM_VIRTIO_STATUS_FAILED;
    atomic_fetch_or(&dev->status, fresh);
    pthread_mutex_unlock(&dev->lock);
    if (fresh & ~old & SM_VIRTIO_STATUS_DRIVER_OK)
        sm_loop_run(dev->env.loop, do_activate, dev);
}

static void set_low(uint64_t *addr, uint32_t v)
{
    *addr = (*addr & 0xffffffff00000000ULL) | v;
}

static void set_high(uint64_t *addr, uint32_t v)
{
    *addr = (*addr & 0xffffffffULL) | (uint64_t)v << 32;
}

static void write_queue_reg(struct sm_virtio_dev *dev, uint64_t reg, uint32_t value)
{
    unsigned status = atomic_load(&dev->status);
    if (!(status & SM_VIRTIO_STATUS_FEATURES_OK) || (status & SM_VIRTIO_STATUS_DRIVER_OK) ||
        dev->queue_sel >= dev->ops->n_queues)
        return;
    struct sm_virtq_state *q = &dev->queue_regs[dev->queue_sel];
    if (reg == REG_QUEUE_READY) {
        q->ready = value == 1 && q->size;
        return;
    }
    if (q->ready)
        return;
    switch (reg) {
    case REG_QUEUE_NUM:
        if (value <= dev->ops->queue_max && (value & (value - 1)) == 0)
            q->size = (uint16_t)value;
        break;
    case REG_QUEUE_DESC_LOW:
        set_low(&q->desc, value);
        break;
    case REG_QUEUE_DESC_HIGH:
        set_high(&q->desc, value);
        break;
    case REG_QUEUE_DRIVER_LOW:
        set_low(&q->avail, value);
        break;
    case REG_QUEUE_DRIVER_HIGH:
        set_high(&q->avail, value);
        break;
    case REG_QUEUE_DEVICE_LOW:
        set_low(&q->used, value);
        break;
    default:
        set_high(&q->used, value);
        break;
    }
}

static void write_locked(struct sm_virtio_dev *dev, uint64_t reg, uint32_t value)
{
    switch (reg) {
    case REG_DEVICE_FEATURES_SEL:
        dev->features_sel = value;
        break;
    case REG_DRIVER_FEATURES_SEL:
        dev->driver_features_sel = value;
        break;
    case REG_DRIVER_FEATURES:
        if (dev->driver_features_sel < 2 &&
            (atomic_load(&dev->status) &
                (SM_VIRTIO_STATUS_DRIVER | SM_VIRTIO_STATUS_FEATURES_OK)) ==
                SM_VIRTIO_STATUS_DRIVER)
            dev->driver_features[dev->driver_features_sel] = value;
        break;
    case REG_QUEUE_SEL:
        dev->queue_sel = value;
        break;
    case REG_QUEUE_NUM:
    case REG_QUEUE_READY:
    case REG_QUEUE_DESC_LOW:
    case REG_QUEUE_DESC_HIGH:
    case REG_QUEUE_DRIVER_LOW:
    case REG_QUEUE_DRIVER_HIGH:
    case REG_QUEUE_DEVICE_LOW:
    case REG_QUEUE_DEVICE_HIGH:
        write_queue_reg(dev, reg, value);
        break;
    default: /* read-only or not there */
        break;
    }
}

static void mmio_write(void *arg, uint64_t offset, const void *data, unsigned len)
{
    struct sm_virtio_dev *dev = arg;
    if (offset >= REG_CONFIG) {
        offset -= REG_CONFIG;
        if (dev->ops->config_write && offset < dev->ops->config_size &&
            len <= dev->ops->config_size - offset) {
            pthread_mutex_lock(&dev->lock);
            dev->ops->config_write(dev, (unsigned)offset, data, len);
            pthread_mutex_unlock(&dev->lock);
        }
        return;
    }
    if (len != 4)
        return;
    uint32_t value = sm_load_le32(data);
    switch (offset) {
    case REG_INTERRUPT_ACK:
        atomic_fetch_and(&dev->interrupt_status, ~value);
        break;
    case REG_QUEUE_NOTIFY:
        if (value < dev->ops->n_queues)
            sm_bell_ring(&dev->kick[value].bell);
        break;
    case REG_STATUS:
        write_status(dev, value);
        break;
    default:
        pthread_mutex_lock(&dev->lock);
        write_locked(dev, offset, value);
        pthread_mutex_unlock(&dev->lock);
        break;
    }
}

static uint32_t read_locked(struct sm_virtio_dev *dev, uint64_t reg)
{
    switch (reg) {
    case REG_MAGIC:
        return MAGIC;
    case REG_VERSION:
        return 2;
    case REG_DEVICE_ID:
        return dev->ops->id;
    case REG_VENDOR_ID:
        return VENDOR_ID;
    case REG_DEVICE_FEATURES:
        return dev->features_sel < 2 ? (uint32_t)(dev->features >> (32 * dev->features_sel)) : 0;
    case REG_QUEUE_NUM_MAX:
        return dev->queue_sel < dev->ops->n_queues ? dev->ops->queue_max : 0;
    case REG_QUEUE_READY:
        return dev->queue_sel < dev->ops->n_queues ? dev->queue_regs[dev->queue_sel].ready : 0;
    case REG_CONFIG_GENERATION:
        return dev->config_generation;
    default:
        /* No shared memory regions: their length and base read as all ones. */
        return reg >= REG_SHM_LEN_LOW && reg <= REG_SHM_BASE_HIGH ? UINT32_MAX : 0;
    }
}

static void mmio_read(void *arg, uint64_t offset, void *data, unsigned len)
{
    struct sm_virtio_dev *dev = arg;
    if (offset >= REG_CONFIG) {
        offset -= REG_CONFIG;
        if (offset < dev->ops->config_size && len <= dev->ops->config_size - offset) {
            pthread_mutex_lock(&dev->lock);
            dev->ops->config_read(dev, (unsigned)offset, data, len);
            pthread_mutex_unlock(&dev->lock);
        }
        return;
    }
    if (len != 4)
        return;
    uint32_t value;
    if (offset == REG_INTERRUPT_STATUS) {
        value = atomic_load(&dev->interrupt_status);
    } else if (offset == REG_STATUS) {
        value = atomic_load(&dev->status);
    } else {
        pthread_mutex_lock(&dev->lock);
        value = read_locked(dev, offset);
        pthread_mutex_unlock(&dev->lock);
    }
    sm_store_le32(data, value);
}

const struct sm_bus_ops sm_virtio_mmio_ops = {.read = mmio_read, .write = mmio_write};

/* ---- save and load -------------------------------------------------------------------------- */

struct transfer {
    struct sm_virtio_dev *dev;
    struct sm_virtio_state *out;
    const struct sm_virtio_state *in;
    sm_error *err;
    int rc;
};

static void do_save(void *arg)
{
    struct transfer *t = arg;
    struct sm_virtio_dev *dev = t->dev;
    *t->out = (struct sm_virtio_state){0};
    if (dev->ops->save)
        dev->ops->save(dev, t->out->extra);
    pthread_mutex_lock(&dev->lock);
    t->out->driver_features[0] = dev->driver_features[0];
    t->out->driver_features[1] = dev->driver_features[1];
    t->out->status = atomic_load(&dev->status);
    t->out->interrupt_status = atomic_load(&dev->interrupt_status);
    t->out->n_queues = dev->ops->n_queues;
    for (unsigned q = 0; q < dev->ops->n_queues; q++)
        t->out->queues[q] = dev->vq[q].running ? dev->vq[q].state : dev->queue_regs[q];
    pthread_mutex_unlock(&dev->lock);
}

void sm_virtio_save(struct sm_virtio_dev *dev, struct sm_virtio_state *state)
{
    struct transfer t = {.dev = dev, .out = state};
    sm_loop_run(dev->env.loop, do_save, &t);
}

/* Only what our own state machine can reach. */
static const char *implausible(const struct sm_virtio_dev *dev, const struct sm_virtio_state *s)
{
    uint32_t order = s->status & STATUS_ORDER;
    if (s->n_queues != dev->ops->n_queues)
        return "another number of queues";
    if (order != 0 && order != 1 && order != 3 && order != 11 && order != STATUS_ORDER)
        return "an impossible status";
    if ((order & SM_VIRTIO_STATUS_FEATURES_OK) && !features_acceptable(dev, s->driver_features))
        return "features that are not offered";
    for (unsigned q = 0; q < s->n_queues; q++) {
        const struct sm_virtq_state *vq = &s->queues[q];
        if (vq->size > dev->ops->queue_max || (vq->size & (vq->size - 1)) || vq->ready > 1 ||
            (vq->ready && !vq->size))
            return "an impossible queue";
    }
    return NULL;
}

static void do_load(void *arg)
{
    struct transfer *t = arg;
    struct sm_virtio_dev *dev = t->dev;
    const struct sm_virtio_state *s = t->in;
    do_reset(dev);
    const char *why = implausible(dev, s);
    if (!why) {
        pthread_mutex_lock(&dev->lock);
        dev->driver_features[0] = s->driver_features[0];
        dev->driver_features[1] = s->driver_features[1];
        memcpy(dev->queue_regs, s->queues, sizeof(dev->queue_regs[0]) * s->n_queues);
        atomic_store(&dev->interrupt_status, s->interrupt_status);
        atomic_store(&dev->status, s->status);
        dev->active = s->status & SM_VIRTIO_STATUS_DRIVER_OK;
        atomic_store(&dev->was_driven, dev->active);
        if (dev->active && !start_queues(dev) && !(s->status & SM_VIRTIO_STATUS_NEEDS_RESET))
            why = "queues that are not in guest RAM";
        pthread_mutex_unlock(&dev->lock);
    }
    if (why) {
        do_reset(dev);
        t->rc = sm_error_set(
            t->err, SM_ECORRUPT, "the saved state of virtio-%s has %s", dev->ops->name, why);
        return;
    }
    if (s->status & SM_VIRTIO_STATUS_NEEDS_RESET)
        for (unsigned q = 0; q < dev->ops->n_queues; q++)
            dev->vq[q].broken = true;
    if (dev->active && dev->ops->load)
        dev->ops->load(dev, s->extra);
}

int sm_virtio_load(struct sm_virtio_dev *dev, const struct sm_virtio_state *state, sm_error *err)
{
    struct transfer t = {.dev = dev, .in = state, .err = err};
    sm_loop_run(dev->env.loop, do_load, &t);
    return t.rc;
}

/* ---- life ----------------------------------------------------------------------------------- */

int sm_virtio_init(struct sm_virtio_dev *dev, const struct sm_virtio_ops *ops,
    const struct sm_virtio_env *env, uint64_t features, sm_error *err)
{
    *dev = (struct sm_virtio_dev){.ops = ops, .env = *env};
    dev->features =
        features | SM_VIRTIO_F_VERSION_1 | SM_VIRTIO_F_EVENT_IDX | SM_VIRTIO_F_INDIRECT_DESC;
    pthread_mutex_init(&dev->lock, NULL);
    for (unsigned q = 0; q < SM_VIRTIO_MAX_QUEUES; q++)
        dev->kick[q] = (struct sm_virtio_kick){.dev = dev, .q = q, .bell = SM_BELL_NONE};
    int rc = 0;
    for (unsigned q = 0; q < ops->n_queues && rc == 0; q++) {
        struct sm_virtio_kick *kick = &dev->kick[q];
        rc = sm_bell_make(&kick->bell, err);
        if (!rc)
            rc = sm_loop_add(
                env->loop, sm_bell_fd(&kick->bell), SM_LOOP_IN, on_kick, kick, &dev->watch[q], err);
        if (rc)
            sm_error_prefix(err, rc, "virtio-%s", ops->name);
    }
    if (rc)
        sm_virtio_fini(dev);
    return rc;
}

void sm_virtio_fini(struct sm_virtio_dev *dev)
{
    sm_loop_check_here(dev->env.loop);
    for (unsigned q = 0; q < SM_VIRTIO_MAX_QUEUES; q++) {
        sm_loop_remove(dev->watch[q]);
        dev->watch[q] = NULL;
        sm_bell_close(&dev->kick[q].bell);
    }
    pthread_mutex_destroy(&dev->lock);
}

static void do_destroy(void *arg)
{
    struct sm_virtio_dev *dev = arg;
    if (dev->active && dev->ops->reset)
        dev->ops->reset(dev);
    dev->ops->destroy(dev);
}

void sm_virtio_destroy(struct sm_virtio_dev *dev)
{
    if (dev)
        sm_loop_run(dev->env.loop, do_destroy, dev);
}
