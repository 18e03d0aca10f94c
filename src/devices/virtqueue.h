/*
 * Split virtqueue, device side (virtio 1.2, 2.7), with indirect descriptors and event idx.
 *
 * A queue lives on the loop's thread. The three ring parts are checked against guest RAM once, when
 * the queue is started, and then used through host pointers. Descriptors are copied before they are
 * looked at, since the guest can change them at any time. Whatever breaks the rules (index jumps,
 * ids >= size, loops, chains longer than the queue, nested or misused indirect tables, empty
 * buffers, writable before readable, addresses that are not RAM) makes the queue `broken`: it
 * yields nothing more until it is reset, and the transport shows DEVICE_NEEDS_RESET.
 *
 * Memory order. avail->idx is loaded with acquire before ring entries and descriptors are read;
 * used->idx is stored with release after the used elements. Between publishing (used->idx or
 * avail_event/used flags) and looking at what the other side published (used_event, avail->idx)
 * stands a full fence, or both sides could miss each other's news.
 */
#ifndef SM_DEVICES_VIRTQUEUE_H
#define SM_DEVICES_VIRTQUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "devices/guest_memory.h"
#include "devices/virtio_state.h"

#define SM_VIRTQ_MAX_SIZE 256

struct sm_virtq {
    const struct sm_guest_memory *gm;
    struct sm_virtq_state state;
    bool running; /* ring pointers are valid */
    bool broken;
    bool event_idx, indirect; /* negotiated */
    const uint8_t *desc;
    uint8_t *avail; /* the guest's, but avail_event is in used and used_event in avail */
    uint8_t *used;
    bool used_known;             /* the next two are: */
    uint16_t published_used_idx; /* what used->idx holds; next_used_idx runs ahead of it */
    bool notify_off;             /* the guest was asked not to kick */
    const char *why_broken;      /* for the log of errors; static text */
};

/* One buffer of the guest: first what the device reads, then what it writes. */
struct sm_virtq_chain {
    uint16_t head;
    unsigned n_readable, n_writable;
    size_t readable_bytes, writable_bytes;
    struct iovec iov[SM_VIRTQ_MAX_SIZE]; /* n_readable, then n_writable entries */
};

static inline struct iovec *sm_virtq_writable(struct sm_virtq_chain *c)
{
    return c->iov + c->n_readable;
}

/* Checks the addresses in `state` against RAM and starts there. False: broken. What had been pushed
 * but not published when the state was saved is published with the next one. */
bool sm_virtq_start(struct sm_virtq *vq, const struct sm_guest_memory *gm,
    const struct sm_virtq_state *state, bool event_idx, bool indirect);
void sm_virtq_stop(struct sm_virtq *vq);

/* Takes the next chain; false: none there, or the queue is (now) broken. */
bool sm_virtq_pop(struct sm_virtq *vq, struct sm_virtq_chain *chain);

/* Gives the chain that was popped last back, as if it had not been taken. */
void sm_virtq_unpop(struct sm_virtq *vq);

/* True if a pop would find something (a broken index counts). */
bool sm_virtq_has_avail(const struct sm_virtq *vq);

/* Puts a chain into the used ring, `written` bytes into its writable part. The guest does not see
 * it before sm_virtq_publish. */
void sm_virtq_push(struct sm_virtq *vq, uint16_t head, uint32_t written);

/* Shows the guest everything that was pushed; true if it wants an interrupt for that. */
bool sm_virtq_publish(struct sm_virtq *vq);

/* How many were pushed and not yet published. */
unsigned sm_virtq_unpublished(struct sm_virtq *vq);

/* Asks the guest not to kick while we are at work, and to kick again. After switching on, true
 * means that more has come meanwhile and must be popped first. */
void sm_virtq_notify_off(struct sm_virtq *vq);
bool sm_virtq_notify_on(struct sm_virtq *vq);

/* For a device that leaves buffers in the queue on purpose: how many the guest has ever made
 * available (modulo 2^16), and asking for a kick as soon as that number grows. The guest may get in
 * between: look at the number again after asking. */
uint16_t sm_virtq_avail_idx(const struct sm_virtq *vq);
void sm_virtq_notify_next(struct sm_virtq *vq);

/* Copy between a chain part and a flat buffer from byte `skip` on; return the bytes copied. */
size_t sm_iov_read(const struct iovec *iov, unsigned n, size_t skip, void *buf, size_t len);
size_t sm_iov_write(const struct iovec *iov, unsigned n, size_t skip, const void *buf, size_t len);

/* Fills `out` (room for n entries) with `len` bytes of iov from byte `skip` on; returns the
 * entries. */
unsigned sm_iov_slice(
    const struct iovec *iov, unsigned n, size_t skip, size_t len, struct iovec *out);

#endif
