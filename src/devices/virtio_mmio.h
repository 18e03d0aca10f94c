/*
 * virtio-mmio transport, version 2 (virtio 1.2, 4.2), and the base of every virtio device.
 *
 * Threads. The register file belongs to `lock`: vCPU threads read and write it in
 * sm_virtio_mmio_ops. The data path (queues, activate, notify, reset, save, load) belongs to the
 * loop's thread alone and takes no lock; a vCPU that writes STATUS such that the device is
 * activated or reset waits for the loop's thread to have done it (sm_loop_run, not holding the
 * lock). interrupt_status and status are atomics, so that interrupt acknowledgement never waits for
 * a device at work.
 *
 * Interrupts go out by ringing `irq` (edge-like: the MP table must say edge). A kick of queue q
 * comes in as kick[q].bell, which a hypervisor that can rings for a store of q at window + 0x50, 4
 * bytes; a QUEUE_NOTIFY that arrives as an exit rings the same bell.
 *
 * The status register is a state machine: bits are only added, in the order of the standard, until
 * a reset; features are frozen by FEATURES_OK (refused without VERSION_1 or with bits that were not
 * offered); queues are set up between FEATURES_OK and DRIVER_OK only. What is out of order is
 * ignored.
 */
#ifndef SM_DEVICES_VIRTIO_MMIO_H
#define SM_DEVICES_VIRTIO_MMIO_H

#include <pthread.h>
#include <stdatomic.h>

#include "devices/bus.h"
#include "devices/virtqueue.h"
#include "util/bell.h"
#include "util/loop.h"

#define SM_VIRTIO_MMIO_SIZE   0x1000 /* of a register window */
#define SM_VIRTIO_MMIO_NOTIFY 0x50   /* offset of QUEUE_NOTIFY, where the bells of kicks are */

/* Device types (virtio 1.2, 5) */
enum sm_virtio_id {
    SM_VIRTIO_ID_NET = 1,
    SM_VIRTIO_ID_BLOCK = 2,
    SM_VIRTIO_ID_RNG = 4,
    SM_VIRTIO_ID_BALLOON = 5,
    SM_VIRTIO_ID_VSOCK = 19,
    SM_VIRTIO_ID_PMEM = 27,
};

/* Feature bits that the transport offers for every device, and their word */
#define SM_VIRTIO_F_INDIRECT_DESC (1ULL << 28)
#define SM_VIRTIO_F_EVENT_IDX     (1ULL << 29)
#define SM_VIRTIO_F_VERSION_1     (1ULL << 32)

/* Device status */
#define SM_VIRTIO_STATUS_ACKNOWLEDGE 1u
#define SM_VIRTIO_STATUS_DRIVER      2u
#define SM_VIRTIO_STATUS_DRIVER_OK   4u
#define SM_VIRTIO_STATUS_FEATURES_OK 8u
#define SM_VIRTIO_STATUS_NEEDS_RESET 64u
#define SM_VIRTIO_STATUS_FAILED      128u

/* Interrupt status */
#define SM_VIRTIO_INT_USED   1u
#define SM_VIRTIO_INT_CONFIG 2u

struct sm_virtio_dev;

struct sm_virtio_ops {
    const char *name; /* "vsock", for messages */
    enum sm_virtio_id id;
    unsigned n_queues;
    uint16_t queue_max; /* <= SM_VIRTQ_MAX_SIZE, power of two */
    unsigned config_size;

    /* Config space; [offset, offset + len) is inside of config_size. vCPU threads, under the lock.
     * The write is NULL where the device has nothing to write. */
    void (*config_read)(struct sm_virtio_dev *dev, unsigned offset, void *buf, unsigned len);
    void (*config_write)(struct sm_virtio_dev *dev, unsigned offset, const void *buf, unsigned len);

    /* All on the loop's thread; each may be NULL. */
    void (*activate)(struct sm_virtio_dev *dev);           /* DRIVER_OK: queues run */
    void (*notify)(struct sm_virtio_dev *dev, unsigned q); /* the guest kicked q, which runs */
    void (*reset)(struct sm_virtio_dev *dev);              /* drop everything; queues still there */
    void (*save)(struct sm_virtio_dev *dev, uint64_t extra[SM_VIRTIO_EXTRA]);
    /* After a reset, with the queues of the state running; activate is not called. */
    void (*load)(struct sm_virtio_dev *dev, const uint64_t extra[SM_VIRTIO_EXTRA]);
    void (*destroy)(struct sm_virtio_dev *dev); /* frees the device's own parts and itself */
};

/* What the machine gives to every device. All of it outlives the device. */
struct sm_virtio_env {
    struct sm_loop *loop;
    const struct sm_guest_memory *memory;
    struct sm_bell irq; /* rung for an interrupt; borrowed */
};

/* The base; the first member of every device. */
struct sm_virtio_dev {
    const struct sm_virtio_ops *ops;
    struct sm_virtio_env env;
    uint64_t features; /* offered */

    pthread_mutex_t lock; /* the register file: */
    uint32_t features_sel, driver_features_sel, queue_sel;
    uint32_t driver_features[2];
    uint32_t config_generation;
    struct sm_virtq_state queue_regs[SM_VIRTIO_MAX_QUEUES];

    atomic_uint status, interrupt_status;
    atomic_bool was_driven; /* DRIVER_OK has been set since power-on */

    bool active; /* the loop's thread: */
    struct sm_virtq vq[SM_VIRTIO_MAX_QUEUES];
    struct sm_loop_watch *watch[SM_VIRTIO_MAX_QUEUES];
    struct sm_virtio_kick {
        struct sm_virtio_dev *dev;
        unsigned q;
        struct sm_bell bell;
    } kick[SM_VIRTIO_MAX_QUEUES];
    atomic_ullong kicks, interrupts; /* counters, for benchmarks */
};

/* Register window; the device pointer of the bus is the struct sm_virtio_dev. */
extern const struct sm_bus_ops sm_virtio_mmio_ops;

/* Frees any device. The vCPUs must not run any more; the loop may. NULL: nothing. */
void sm_virtio_destroy(struct sm_virtio_dev *dev);
SM_DEFINE_CLEANUP(struct sm_virtio_dev *, sm_virtio_destroy)

/* What the driver's write of 0 to STATUS does: drops everything, as at power-on. Any thread. */
void sm_virtio_reset(struct sm_virtio_dev *dev);

/* Mirror state, with the vCPUs stopped. Both go to the loop's thread by themselves and work while
 * the loop is paused. Load replaces everything, drops what was open, and refuses (SM_ECORRUPT,
 * device reset) what the device could not have saved. */
void sm_virtio_save(struct sm_virtio_dev *dev, struct sm_virtio_state *state);
int sm_virtio_load(struct sm_virtio_dev *dev, const struct sm_virtio_state *state, sm_error *err);

/* Once after a load, when interrupt controller and vCPUs are in place: looks into all queues (a
 * kick may have been under way at capture) and repeats an interrupt that was not yet acknowledged.
 * The loop's thread. */
void sm_virtio_wake(struct sm_virtio_dev *dev);

/* Is a driver of the guest's at work, has there been one? From any thread. */
static inline bool sm_virtio_is_driven(struct sm_virtio_dev *dev)
{
    return atomic_load(&dev->status) & SM_VIRTIO_STATUS_DRIVER_OK;
}
static inline bool sm_virtio_was_driven(struct sm_virtio_dev *dev)
{
    return atomic_load(&dev->was_driven);
}

/* ---- for devices --------------------------------------------------------------------------- */

/* Prepares the base: bells, watches, register file. `features` are those of the device type. On
 * failure nothing is left behind. */
int sm_virtio_init(struct sm_virtio_dev *dev, const struct sm_virtio_ops *ops,
    const struct sm_virtio_env *env, uint64_t features, sm_error *err);
/* The opposite, called by the device's destroy on the loop's thread. */
void sm_virtio_fini(struct sm_virtio_dev *dev);

static inline bool sm_virtio_has(const struct sm_virtio_dev *dev, uint64_t feature)
{
    uint64_t f = dev->driver_features[0] | (uint64_t)dev->driver_features[1] << 32;
    return (f & feature) == feature;
}

/* Shows what was pushed to the guest, interrupts it if it wants that, and checks for a broken
 * queue. */
void sm_virtio_publish(struct sm_virtio_dev *dev, unsigned q);
/* Interrupts the guest for what was published, for devices that look at several queues first. */
void sm_virtio_interrupt(struct sm_virtio_dev *dev);

/* Serves q: takes chains, hands each to fn, which returns the bytes it has written, and publishes.
 * Stops after a bounded number of chains and comes back by itself, so that no queue keeps the
 * others, or a call to the loop, waiting. */
typedef uint32_t sm_virtio_serve_fn(struct sm_virtio_dev *dev, struct sm_virtq_chain *chain);
void sm_virtio_serve(struct sm_virtio_dev *dev, unsigned q, sm_virtio_serve_fn *fn);
/* Has the queue looked at again on a later turn of the loop, as if it had been kicked. */
void sm_virtio_again(struct sm_virtio_dev *dev, unsigned q);
/* Config space has changed: new generation, config interrupt. */
void sm_virtio_config_changed(struct sm_virtio_dev *dev);
/* The guest broke the protocol: DEVICE_NEEDS_RESET, queues stop. */
void sm_virtio_broken(struct sm_virtio_dev *dev);

#endif
