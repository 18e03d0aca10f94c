/*
 * Address windows -> devices: where the VMM sends the guest's MMIO and port accesses.
 *
 * Windows are added before the vCPUs run; look-ups take no lock. A device's functions are called on
 * vCPU threads, several at once, and do their own locking.
 */
#ifndef SM_DEVICES_BUS_H
#define SM_DEVICES_BUS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

struct sm_bus_ops {
    /* `len` is 1, 2, 4 or 8 and offset + len is inside of the window. data is little-endian. A read
     * that makes no sense fills zeros (the caller has set them), such a write is dropped. */
    void (*read)(void *dev, uint64_t offset, void *data, unsigned len);
    void (*write)(void *dev, uint64_t offset, const void *data, unsigned len);
};

#define SM_BUS_MAX_WINDOWS 32

struct sm_bus_window {
    uint64_t base, size;
    const struct sm_bus_ops *ops;
    void *dev;
};

struct sm_bus {
    unsigned n;
    struct sm_bus_window windows[SM_BUS_MAX_WINDOWS]; /* sorted by base */
};

/* SM_EEXIST: overlaps with another window. */
int sm_bus_add(struct sm_bus *bus, uint64_t base, uint64_t size, const struct sm_bus_ops *ops,
    void *dev, sm_error *err);

/* False: nobody is there; a read has filled data with ones then, as real buses do. */
bool sm_bus_read(const struct sm_bus *bus, uint64_t addr, void *data, unsigned len);
bool sm_bus_write(const struct sm_bus *bus, uint64_t addr, const void *data, unsigned len);

#endif
