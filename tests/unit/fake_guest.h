/*
 * A guest for device tests: RAM, the driver's side of split virtqueues, and the virtio-mmio probe
 * sequence. It speaks the rings directly, without the code under test, so that it can also lie.
 */
#ifndef FAKE_GUEST_H
#define FAKE_GUEST_H

#include <assert.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/virtio_mmio.h"
#include "util/bytes.h"

#define FG_RAM_GPA  0x100000u
#define FG_RAM_SIZE (8u << 20)
#define FG_HEAP     0x80000u /* offset in RAM: rings lie before it, 0x4000 bytes each */

#define FG_NEXT     1u
#define FG_WRITE    2u
#define FG_INDIRECT 4u

struct fg {
    struct sm_guest_memory gm;
    uint8_t *ram;
    uint64_t heap;
};

struct fg_queue {
    struct fg *fg;
    unsigned size;
    uint64_t desc, avail, used; /* gpa */
    uint16_t avail_idx, last_used, next_desc;
};

static inline void fg_init(struct fg *fg)
{
    fg->ram = mmap(NULL, FG_RAM_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert(fg->ram != MAP_FAILED);
    fg->gm = (struct sm_guest_memory){
        .n = 1,
        .regions = {{.gpa = FG_RAM_GPA, .size = FG_RAM_SIZE, .host = fg->ram}},
    };
    fg->heap = FG_RAM_GPA + FG_HEAP;
}

static inline void fg_fini(struct fg *fg)
{
    munmap(fg->ram, FG_RAM_SIZE);
}

static inline uint8_t *fg_ptr(struct fg *fg, uint64_t gpa)
{
    assert(gpa >= FG_RAM_GPA && gpa < FG_RAM_GPA + FG_RAM_SIZE);
    return fg->ram + (gpa - FG_RAM_GPA);
}

static inline uint64_t fg_alloc(struct fg *fg, size_t len)
{
    uint64_t at = fg->heap;
    fg->heap += (len + 15) & ~(size_t)15;
    assert(fg->heap <= FG_RAM_GPA + FG_RAM_SIZE);
    return at;
}

static inline void fg_queue_init(struct fg_queue *q, struct fg *fg, unsigned index, unsigned size)
{
    uint64_t base = FG_RAM_GPA + 0x4000u * (uint64_t)index;
    *q = (struct fg_queue){
        .fg = fg, .size = size, .desc = base, .avail = base + 0x1000, .used = base + 0x2000};
    memset(fg_ptr(fg, base), 0, 0x4000);
}

static inline struct sm_virtq_state fg_queue_state(const struct fg_queue *q)
{
    return (struct sm_virtq_state){
        .size = (uint16_t)q->size, .ready = 1, .desc = q->desc, .avail = q->avail, .used = q->used};
}

static inline void fg_put_desc(
    uint8_t *at, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
    sm_store_le64(at, addr);
    sm_store_le32(at + 8, len);
    sm_store_le16(at + 12, (uint16_t)flags);
    sm_store_le16(at + 14, (uint16_t)next);
}

static inline void fg_desc(
    struct fg_queue *q, unsigned i, uint64_t addr, uint32_t len, unsigned flags, unsigned next)
{
    fg_put_desc(fg_ptr(q->fg, q->desc) + 16 * (size_t)i, addr, len, flags, next);
}

/* 16-bit ring fields, with the driver's half of the memory ordering. */
static inline uint16_t fg_load16(struct fg *fg, uint64_t gpa)
{
    return le16toh(__atomic_load_n((uint16_t *)(void *)fg_ptr(fg, gpa), __ATOMIC_SEQ_CST));
}

static inline void fg_store16(struct fg *fg, uint64_t gpa, uint16_t v)
{
    __atomic_store_n((uint16_t *)(void *)fg_ptr(fg, gpa), htole16(v), __ATOMIC_SEQ_CST);
}

static inline void fg_offer(struct fg_queue *q, unsigned head)
{
    fg_store16(q->fg, q->avail + 4 + 2 * (q->avail_idx % q->size), (uint16_t)head);
    q->avail_idx++;
    fg_store16(q->fg, q->avail + 2, q->avail_idx);
}

/* Offers one chain: a readable buffer, then a writable one (length 0: without). Returns the
 * head. */
static inline unsigned fg_send(
    struct fg_queue *q, uint64_t out, uint32_t out_len, uint64_t in, uint32_t in_len)
{
    unsigned head = q->next_desc % q->size;
    if (out_len && in_len) {
        unsigned second = (head + 1) % q->size;
        fg_desc(q, head, out, out_len, FG_NEXT, second);
        fg_desc(q, second, in, in_len, FG_WRITE, 0);
        q->next_desc = (uint16_t)(q->next_desc + 2);
    } else {
        fg_desc(q, head, out_len ? out : in, out_len ? out_len : in_len, out_len ? 0 : FG_WRITE, 0);
        q->next_desc++;
    }
    fg_offer(q, head);
    return head;
}

static inline bool fg_used(struct fg_queue *q, uint32_t *id, uint32_t *len)
{
    if (id)
        *id = UINT32_MAX;
    if (len)
        *len = UINT32_MAX;
    if (fg_load16(q->fg, q->used + 2) == q->last_used)
        return false;
    const uint8_t *elem = fg_ptr(q->fg, q->used + 4 + 8 * (uint64_t)(q->last_used % q->size));
    if (id)
        *id = sm_load_le32(elem);
    if (len)
        *len = sm_load_le32(elem + 4);
    q->last_used++;
    return true;
}

/* ---- registers ------------------------------------------------------------------------------ */

static inline uint32_t fg_reg(struct sm_virtio_dev *dev, uint64_t reg)
{
    uint8_t raw[4] = {0};
    sm_virtio_mmio_ops.read(dev, reg, raw, 4);
    return sm_load_le32(raw);
}

static inline void fg_set_reg(struct sm_virtio_dev *dev, uint64_t reg, uint32_t value)
{
    uint8_t raw[4];
    sm_store_le32(raw, value);
    sm_virtio_mmio_ops.write(dev, reg, raw, 4);
}

static inline uint64_t fg_offered(struct sm_virtio_dev *dev)
{
    fg_set_reg(dev, 0x14, 1);
    uint64_t f = (uint64_t)fg_reg(dev, 0x10) << 32;
    fg_set_reg(dev, 0x14, 0);
    return f | fg_reg(dev, 0x10);
}

static inline void fg_set_features(struct sm_virtio_dev *dev, uint64_t f)
{
    fg_set_reg(dev, 0x24, 0);
    fg_set_reg(dev, 0x20, (uint32_t)f);
    fg_set_reg(dev, 0x24, 1);
    fg_set_reg(dev, 0x20, (uint32_t)(f >> 32));
}

static inline void fg_set_queue(struct sm_virtio_dev *dev, unsigned i, const struct fg_queue *q)
{
    fg_set_reg(dev, 0x30, i);
    fg_set_reg(dev, 0x38, q->size);
    fg_set_reg(dev, 0x80, (uint32_t)q->desc);
    fg_set_reg(dev, 0x84, (uint32_t)(q->desc >> 32));
    fg_set_reg(dev, 0x90, (uint32_t)q->avail);
    fg_set_reg(dev, 0x94, (uint32_t)(q->avail >> 32));
    fg_set_reg(dev, 0xa0, (uint32_t)q->used);
    fg_set_reg(dev, 0xa4, (uint32_t)(q->used >> 32));
    fg_set_reg(dev, 0x44, 1);
}

/* The whole probe: reset to DRIVER_OK with the features offered & mask and n queues of `size`. */
static inline void fg_probe(struct fg *fg, struct sm_virtio_dev *dev, uint64_t mask,
    struct fg_queue *queues, unsigned n, unsigned size)
{
    fg_set_reg(dev, 0x70, 0);
    fg_set_reg(dev, 0x70, 1);
    fg_set_reg(dev, 0x70, 3);
    fg_set_features(dev, fg_offered(dev) & mask);
    fg_set_reg(dev, 0x70, 11);
    assert(fg_reg(dev, 0x70) == 11);
    for (unsigned i = 0; i < n; i++) {
        fg_queue_init(&queues[i], fg, i, size);
        fg_set_queue(dev, i, &queues[i]);
    }
    fg_set_reg(dev, 0x70, 15);
}

static inline void fg_kick(struct sm_virtio_dev *dev, unsigned q)
{
    fg_set_reg(dev, 0x50, q);
}

/* For the device's interrupts; who makes it closes it. */
static inline struct sm_bell fg_bell(void)
{
    struct sm_bell bell;
    if (sm_bell_make(&bell, NULL))
        abort();
    return bell;
}

/* Takes pending interrupts of the bell; returns how often it was rung. */
static inline unsigned fg_interrupts(struct sm_virtio_dev *dev)
{
    uint64_t n = 0;
    (void)!read(sm_bell_fd(&dev->env.irq), &n, sizeof(n));
    fg_set_reg(dev, 0x64, fg_reg(dev, 0x60));
    return (unsigned)n;
}

#endif
