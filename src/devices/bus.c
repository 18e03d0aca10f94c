/* Address windows -> devices. See bus.h. */
#include "devices/bus.h"

#include <inttypes.h>
#include <string.h>

#include "util/error.h"

int sm_bus_add(struct sm_bus *bus, uint64_t base, uint64_t size, const struct sm_bus_ops *ops,
    void *dev, sm_error *err)
{
    uint64_t last;
    if (size == 0 || __builtin_add_overflow(base, size - 1, &last))
        return sm_error_set(
            err, SM_EINVAL, "no window of 0x%" PRIx64 " bytes at 0x%" PRIx64, size, base);
    if (bus->n == SM_BUS_MAX_WINDOWS)
        return sm_error_set(err, SM_ELIMIT, "the bus has no room for another device");
    unsigned at = 0;
    while (at < bus->n && bus->windows[at].base < base)
        at++;
    if ((at < bus->n && bus->windows[at].base <= last) ||
        (at > 0 && base - bus->windows[at - 1].base < bus->windows[at - 1].size))
        return sm_error_set(
            err, SM_EEXIST, "the window at 0x%" PRIx64 " overlaps with another device", base);
    memmove(&bus->windows[at + 1], &bus->windows[at], (bus->n - at) * sizeof(bus->windows[0]));
    bus->windows[at] = (struct sm_bus_window){.base = base, .size = size, .ops = ops, .dev = dev};
    bus->n++;
    return 0;
}

static const struct sm_bus_window *find(const struct sm_bus *bus, uint64_t addr, unsigned len)
{
    unsigned lo = 0, hi = bus->n;
    while (lo < hi) {
        unsigned mid = (lo + hi) / 2;
        if (bus->windows[mid].base <= addr)
            lo = mid + 1;
        else
            hi = mid;
    }
    if (lo == 0)
        return NULL;
    const struct sm_bus_window *w = &bus->windows[lo - 1];
    uint64_t offset = addr - w->base;
    return offset < w->size && len <= w->size - offset ? w : NULL;
}

bool sm_bus_read(const struct sm_bus *bus, uint64_t addr, void *data, unsigned len)
{
    const struct sm_bus_window *w = find(bus, addr, len);
    memset(data, w ? 0 : 0xff, len);
    if (w)
        w->ops->read(w->dev, addr - w->base, data, len);
    return w != NULL;
}

bool sm_bus_write(const struct sm_bus *bus, uint64_t addr, const void *data, unsigned len)
{
    const struct sm_bus_window *w = find(bus, addr, len);
    if (w)
        w->ops->write(w->dev, addr - w->base, data, len);
    return w != NULL;
}
