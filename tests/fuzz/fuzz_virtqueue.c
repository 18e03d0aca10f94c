/* Rings of a hostile driver: whatever pop yields lies in guest RAM and within the queue's size. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "devices/virtqueue.h"

#define RAM_GPA  0x10000u
#define RAM_SIZE 0x10000u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static _Alignas(4096) uint8_t ram[RAM_SIZE];

static void check(const struct sm_virtq *vq, const struct sm_virtq_chain *c)
{
    size_t sums[2] = {0, 0};
    unsigned n = c->n_readable + c->n_writable;
    if (n == 0 || n > vq->state.size || c->head >= vq->state.size)
        abort();
    for (unsigned i = 0; i < n; i++) {
        const uint8_t *p = c->iov[i].iov_base;
        size_t len = c->iov[i].iov_len;
        if (len == 0 || p < ram || len > RAM_SIZE || p + len > ram + RAM_SIZE)
            abort();
        sums[i >= c->n_readable] += len;
    }
    if (sums[0] != c->readable_bytes || sums[1] != c->writable_bytes)
        abort();
}

/* Input: log2 of the size, features, index to begin at (le16), then RAM from its start: descriptors
 * at 0, available ring at 0x1000, used ring at 0x2000. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct sm_guest_memory gm = {
        .n = 1, .regions = {{.gpa = RAM_GPA, .size = RAM_SIZE, .host = ram}}};
    struct sm_virtq vq;
    struct sm_virtq_chain chain;
    if (size < 4)
        return 0;
    uint16_t start = (uint16_t)(data[2] | data[3] << 8);
    struct sm_virtq_state state = {.size = (uint16_t)(1u << (data[0] % 10)),
        .ready = 1,
        .desc = RAM_GPA,
        .avail = RAM_GPA + 0x1000,
        .used = RAM_GPA + 0x2000 + (data[1] & 0x80 ? 0xe000 - 16 : 0),
        .last_avail_idx = start,
        .next_used_idx = start};
    size_t n = size - 4 < RAM_SIZE ? size - 4 : RAM_SIZE;
    memset(ram, 0, sizeof(ram));
    memcpy(ram, data + 4, n);
    if (!sm_virtq_start(&vq, &gm, &state, data[1] & 1, data[1] & 2))
        return 0;
    for (unsigned i = 0; i < 2000; i++) {
        sm_virtq_notify_off(&vq);
        if (!sm_virtq_pop(&vq, &chain)) {
            if (!sm_virtq_notify_on(&vq))
                break;
            continue;
        }
        check(&vq, &chain);
        if (data[1] & 4 && i % 3 == 0) {
            sm_virtq_unpop(&vq);
            if (sm_virtq_pop(&vq, &chain))
                check(&vq, &chain);
        }
        /* Answers land where the guest wants them, its rings included. */
        sm_iov_write(sm_virtq_writable(&chain), chain.n_writable, 0, "answer", 6);
        sm_virtq_push(&vq, chain.head, 6);
        sm_virtq_publish(&vq);
        sm_virtq_notify_next(&vq);
    }
    return 0;
}
