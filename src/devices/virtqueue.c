/* Split virtqueue, device side. See virtqueue.h. */
#include "devices/virtqueue.h"

#include <stdatomic.h>
#include <string.h>

#include "util/bytes.h"

#define DESC_SIZE 16u

#define DESC_F_NEXT     1u
#define DESC_F_WRITE    2u
#define DESC_F_INDIRECT 4u

#define AVAIL_F_NO_INTERRUPT 1u
#define USED_F_NO_NOTIFY     1u

/* Rings: flags le16, idx le16, entries (le16, or le32 id + le32 len), event le16 */
#define RING_FLAGS   0u
#define RING_IDX     2u
#define RING_ENTRIES 4u

struct desc {
    uint64_t addr;
    uint32_t len;
    uint16_t flags, next;
};

static size_t avail_event_at(const struct sm_virtq *vq)
{
    return RING_ENTRIES + 8 * (size_t)vq->state.size;
}

static size_t used_event_at(const struct sm_virtq *vq)
{
    return RING_ENTRIES + 2 * (size_t)vq->state.size;
}

/* 16-bit fields that both sides touch; start has checked the alignment. */
static uint16_t load16(const uint8_t *p, int order)
{
    uint16_t v;
    if (order == __ATOMIC_ACQUIRE)
        v = __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_ACQUIRE);
    else
        v = __atomic_load_n((const uint16_t *)(const void *)p, __ATOMIC_RELAXED);
    return le16toh(v);
}

static void store16(uint8_t *p, uint16_t v, int order)
{
    if (order == __ATOMIC_RELEASE)
        __atomic_store_n((uint16_t *)(void *)p, htole16(v), __ATOMIC_RELEASE);
    else
        __atomic_store_n((uint16_t *)(void *)p, htole16(v), __ATOMIC_RELAXED);
}

static bool broken(struct sm_virtq *vq, const char *why)
{
    vq->broken = true;
    vq->why_broken = why;
    return false;
}

bool sm_virtq_start(struct sm_virtq *vq, const struct sm_guest_memory *gm,
    const struct sm_virtq_state *state, bool event_idx, bool indirect)
{
    memset(vq, 0, sizeof(*vq));
    vq->gm = gm;
    vq->state = *state;
    vq->event_idx = event_idx;
    vq->indirect = indirect;
    uint16_t n = state->size;
    if (n == 0 || n > SM_VIRTQ_MAX_SIZE || (n & (n - 1)))
        return broken(vq, "queue size");
    /* Alignments: virtio 1.2, 2.7; they also make the 16-bit accesses atomic. */
    if (state->desc % 16 || state->avail % 2 || state->used % 4)
        return broken(vq, "queue alignment");
    vq->desc = sm_gm_ptr(gm, state->desc, DESC_SIZE * (uint64_t)n);
    vq->avail = sm_gm_ptr(gm, state->avail, used_event_at(vq) + 2);
    vq->used = sm_gm_ptr(gm, state->used, avail_event_at(vq) + 2);
    if (!vq->desc || !vq->avail || !vq->used)
        return broken(vq, "queue is not in RAM");
    vq->running = true;
    return true;
}

/* What the used ring says of our doings before the start. Not read there: in a restored guest each
 * queue's first touch is a page fault, and the vCPUs need not wait for it. */
static void know_used(struct sm_virtq *vq)
{
    if (vq->used_known || !vq->running)
        return;
    vq->used_known = true;
    vq->published_used_idx = load16(vq->used + RING_IDX, __ATOMIC_RELAXED);
    if ((uint16_t)(vq->state.next_used_idx - vq->published_used_idx) > vq->state.size)
        vq->published_used_idx = vq->state.next_used_idx;
    vq->notify_off = load16(vq->used + RING_FLAGS, __ATOMIC_RELAXED) != 0;
}

unsigned sm_virtq_unpublished(struct sm_virtq *vq)
{
    know_used(vq);
    return (uint16_t)(vq->state.next_used_idx - vq->published_used_idx);
}

void sm_virtq_stop(struct sm_virtq *vq)
{
    vq->running = false;
}

static struct desc load_desc(const uint8_t *table, uint16_t i)
{
    uint8_t raw[DESC_SIZE];
    memcpy(raw, table + DESC_SIZE * (size_t)i, sizeof(raw)); /* once: the guest may change it */
    return (struct desc){
        .addr = sm_load_le64(raw),
        .len = sm_load_le32(raw + 8),
        .flags = sm_load_le16(raw + 12),
        .next = sm_load_le16(raw + 14),
    };
}

static bool add_buffer(struct sm_virtq *vq, struct sm_virtq_chain *c, const struct desc *d)
{
    if (d->len == 0)
        return broken(vq, "empty buffer");
    void *p = sm_gm_ptr(vq->gm, d->addr, d->len);
    if (!p)
        return broken(vq, "buffer is not in RAM");
    unsigned n = c->n_readable + c->n_writable;
    if (n >= vq->state.size)
        return broken(vq, "chain is longer than the queue");
    c->iov[n] = (struct iovec){.iov_base = p, .iov_len = d->len};
    if (d->flags & DESC_F_WRITE) {
        c->n_writable++;
        c->writable_bytes += d->len;
    } else {
        if (c->n_writable)
            return broken(vq, "readable buffer after a writable one");
        c->n_readable++;
        c->readable_bytes += d->len;
    }
    return true;
}

/* Walks a table of n descriptors from `i`. A walk of more than n steps has come round in a loop. */
static bool walk(struct sm_virtq *vq, struct sm_virtq_chain *c, const uint8_t *table, unsigned n,
    uint16_t i, bool is_indirect)
{
    for (unsigned steps = 0; steps < n; steps++) {
        if (i >= n)
            return broken(vq, "descriptor number");
        struct desc d = load_desc(table, i);
        if (d.flags & DESC_F_INDIRECT) {
            if (!vq->indirect || is_indirect || (d.flags & DESC_F_NEXT))
                return broken(vq, "misplaced indirect table");
            uint32_t entries = d.len / DESC_SIZE;
            if (d.len == 0 || d.len % DESC_SIZE || entries > vq->state.size)
                return broken(vq, "size of an indirect table");
            const uint8_t *inner = sm_gm_ptr(vq->gm, d.addr, d.len);
            if (!inner)
                return broken(vq, "indirect table is not in RAM");
            return walk(vq, c, inner, entries, 0, true);
        }
        if (!add_buffer(vq, c, &d))
            return false;
        if (!(d.flags & DESC_F_NEXT))
            return true;
        i = d.next;
    }
    return broken(vq, "loop of descriptors");
}

bool sm_virtq_pop(struct sm_virtq *vq, struct sm_virtq_chain *c)
{
    if (!vq->running || vq->broken)
        return false;
    uint16_t idx = load16(vq->avail + RING_IDX, __ATOMIC_ACQUIRE);
    uint16_t ahead = (uint16_t)(idx - vq->state.last_avail_idx);
    if (ahead == 0)
        return false;
    if (ahead > vq->state.size)
        return broken(vq, "available index jumped");
    size_t slot = vq->state.last_avail_idx & (vq->state.size - 1u);
    c->head = load16(vq->avail + RING_ENTRIES + 2 * slot, __ATOMIC_RELAXED);
    c->n_readable = c->n_writable = 0;
    c->readable_bytes = c->writable_bytes = 0;
    if (!walk(vq, c, vq->desc, vq->state.size, c->head, false))
        return false;
    vq->state.last_avail_idx++;
    return true;
}

void sm_virtq_unpop(struct sm_virtq *vq)
{
    vq->state.last_avail_idx--;
}

bool sm_virtq_has_avail(const struct sm_virtq *vq)
{
    return vq->running && !vq->broken &&
           load16(vq->avail + RING_IDX, __ATOMIC_ACQUIRE) != vq->state.last_avail_idx;
}

void sm_virtq_push(struct sm_virtq *vq, uint16_t head, uint32_t written)
{
    if (!vq->running)
        return;
    know_used(vq);
    unsigned slot = vq->state.next_used_idx & (vq->state.size - 1u);
    uint8_t *elem = vq->used + RING_ENTRIES + 8 * (size_t)slot;
    sm_store_le32(elem, head);
    sm_store_le32(elem + 4, written);
    vq->state.next_used_idx++;
}

bool sm_virtq_publish(struct sm_virtq *vq)
{
    know_used(vq);
    uint16_t fresh = vq->state.next_used_idx;
    uint16_t old = vq->published_used_idx;
    if (!vq->running || fresh == old)
        return false;
    store16(vq->used + RING_IDX, fresh, __ATOMIC_RELEASE);
    vq->published_used_idx = fresh;
    atomic_thread_fence(memory_order_seq_cst);
    if (!vq->event_idx)
        return !(load16(vq->avail + RING_FLAGS, __ATOMIC_RELAXED) & AVAIL_F_NO_INTERRUPT);
    /* Wanted if used_event lies in [old, fresh), modulo 2^16. */
    uint16_t event = load16(vq->avail + used_event_at(vq), __ATOMIC_RELAXED);
    return (uint16_t)(fresh - event - 1) < (uint16_t)(fresh - old);
}

void sm_virtq_notify_off(struct sm_virtq *vq)
{
    /* With event idx nothing is to be done: avail_event stays behind and the guest kicks at most
     * once more. */
    know_used(vq);
    if (vq->running && !vq->event_idx && !vq->notify_off) {
        store16(vq->used + RING_FLAGS, USED_F_NO_NOTIFY, __ATOMIC_RELAXED);
        vq->notify_off = true;
    }
}

bool sm_virtq_notify_on(struct sm_virtq *vq)
{
    if (!vq->running)
        return false;
    know_used(vq);
    if (vq->event_idx) {
        store16(vq->used + avail_event_at(vq), vq->state.last_avail_idx, __ATOMIC_RELAXED);
    } else if (vq->notify_off) {
        store16(vq->used + RING_FLAGS, 0, __ATOMIC_RELAXED);
        vq->notify_off = false;
    }
    atomic_thread_fence(memory_order_seq_cst);
    return sm_virtq_has_avail(vq);
}

uint16_t sm_virtq_avail_idx(const struct sm_virtq *vq)
{
    return vq->running ? load16(vq->avail + RING_IDX, __ATOMIC_ACQUIRE) : 0;
}

void sm_virtq_notify_next(struct sm_virtq *vq)
{
    if (!vq->running)
        return;
    know_used(vq);
    if (vq->event_idx)
        store16(vq->used + avail_event_at(vq), sm_virtq_avail_idx(vq), __ATOMIC_RELAXED);
    else
        store16(vq->used + RING_FLAGS, 0, __ATOMIC_RELAXED);
    vq->notify_off = false;
    atomic_thread_fence(memory_order_seq_cst);
}

/* ---- iovecs --------------------------------------------------------------------------------- */

size_t sm_iov_read(const struct iovec *iov, unsigned n, size_t skip, void *buf, size_t len)
{
    size_t done = 0;
    for (unsigned i = 0; i < n && done < len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = SM_MIN(iov[i].iov_len - skip, len - done);
        memcpy((uint8_t *)buf + done, (const uint8_t *)iov[i].iov_base + skip, part);
        done += part;
        skip = 0;
    }
    return done;
}

size_t sm_iov_write(const struct iovec *iov, unsigned n, size_t skip, const void *buf, size_t len)
{
    size_t done = 0;
    for (unsigned i = 0; i < n && done < len; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = SM_MIN(iov[i].iov_len - skip, len - done);
        memcpy((uint8_t *)iov[i].iov_base + skip, (const uint8_t *)buf + done, part);
        done += part;
        skip = 0;
    }
    return done;
}

unsigned sm_iov_slice(
    const struct iovec *iov, unsigned n, size_t skip, size_t len, struct iovec *out)
{
    unsigned used = 0;
    for (unsigned i = 0; i < n && len > 0; i++) {
        if (skip >= iov[i].iov_len) {
            skip -= iov[i].iov_len;
            continue;
        }
        size_t part = SM_MIN(iov[i].iov_len - skip, len);
        out[used++] =
            (struct iovec){.iov_base = (uint8_t *)iov[i].iov_base + skip, .iov_len = part};
        len -= part;
        skip = 0;
    }
    return used;
}
