/* Fragments into one frame. See reassembly.h. A bit for each 8 bytes says what has come, so
 * overlaps are seen when they come; a datagram is whole when all bits up to its end are set, and
 * its buffer is then the frame. */
#include "net/reassembly.h"

#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/inet_checksum.h"

#define ETHERTYPE_IPV4 0x0800
#define MORE_FRAGMENTS 0x2000u
#define OFFSET_MASK    0x1fffu
#define UNIT           8u /* bytes: what offsets count */
#define HEADERS        (SM_ETH_HEADER + SM_IPV4_HEADER)
#define MAX_DATA       (65535u - SM_IPV4_HEADER)
#define MAX_UNITS      ((MAX_DATA + UNIT - 1) / UNIT)

struct sm_datagram {
    struct sm_datagram *older;
    int64_t since_ms;
    bool whole;     /* given out: goes with the next call */
    uint8_t id[11]; /* addresses, identification and protocol */
    uint32_t have;  /* units */
    uint32_t top;   /* bytes: how far what has come reaches */
    uint32_t end;   /* bytes of data; 0: the last fragment has not come */
    uint8_t seen[(MAX_UNITS + 7) / 8];
    uint8_t frame[HEADERS + MAX_DATA];
};

static void drop(struct sm_reassembly *r, struct sm_datagram **link)
{
    struct sm_datagram *d = *link;
    *link = d->older;
    r->n--;
    free(d);
}

void sm_reassembly_clear(struct sm_reassembly *r)
{
    while (r->newest)
        drop(r, &r->newest);
}

bool sm_frame_is_fragment(const uint8_t *frame, size_t len)
{
    return len >= HEADERS && sm_load_be16(frame + 12) == ETHERTYPE_IPV4 &&
           (sm_load_be16(frame + SM_ETH_HEADER + 6) & (MORE_FRAGMENTS | OFFSET_MASK));
}

static void expire(struct sm_reassembly *r, int64_t now_ms)
{
    for (struct sm_datagram **link = &r->newest; *link;) {
        if ((*link)->whole || now_ms - (*link)->since_ms >= SM_REASSEMBLY_MS)
            drop(r, link);
        else
            link = &(*link)->older;
    }
}

/* The oldest goes where there are as many as may be. */
static void make_room(struct sm_reassembly *r)
{
    if (r->n < SM_REASSEMBLY_DATAGRAMS)
        return;
    struct sm_datagram **link = &r->newest;
    while ((*link)->older)
        link = &(*link)->older;
    drop(r, link);
}

static struct sm_datagram **find(
    struct sm_reassembly *r, const uint8_t id[sizeof(r->newest->id)], int64_t now_ms)
{
    for (struct sm_datagram **link = &r->newest; *link; link = &(*link)->older) {
        if (memcmp((*link)->id, id, sizeof((*link)->id)) == 0)
            return link;
    }
    make_room(r);
    /* Not zeroed: a datagram that is whole has been written whole. */
    struct sm_datagram *d = malloc(sizeof(*d));
    if (!d)
        return NULL;
    d->older = r->newest;
    d->since_ms = now_ms;
    d->whole = false;
    d->have = d->top = d->end = 0;
    memcpy(d->id, id, sizeof(d->id));
    memset(d->seen, 0, sizeof(d->seen));
    r->newest = d;
    r->n++;
    return &r->newest;
}

/* False: it does not go with the others. */
static bool put(struct sm_datagram *d, const uint8_t *data, uint32_t at, uint32_t len, bool more)
{
    if (len == 0 || at + len > MAX_DATA || (more && len % UNIT) || (!more && d->end))
        return false;
    uint32_t first = at / UNIT, end = first + (len + UNIT - 1) / UNIT;
    for (uint32_t i = first; i < end; i++) {
        if (d->seen[i / 8] >> (i % 8) & 1)
            return false;
        d->seen[i / 8] |= (uint8_t)(1u << (i % 8));
    }
    memcpy(d->frame + HEADERS + at, data, len);
    d->have += end - first;
    d->top = SM_MAX(d->top, at + len);
    if (!more)
        d->end = at + len;
    return !d->end || d->top <= d->end;
}

static void finish(struct sm_datagram *d)
{
    uint8_t *ip = d->frame + SM_ETH_HEADER;
    sm_store_be16(ip + 2, (uint16_t)(SM_IPV4_HEADER + d->end));
    memset(ip + 6, 0, 2);
    memset(ip + 10, 0, 2);
    uint16_t sum = sm_inet_finish(sm_inet_sum(ip, SM_IPV4_HEADER, 0));
    memcpy(ip + 10, &sum, 2);
    d->whole = true;
}

uint8_t *sm_reassembly_add(
    struct sm_reassembly *r, const uint8_t *frame, size_t len, int64_t now_ms, size_t *whole)
{
    const uint8_t *ip = frame + SM_ETH_HEADER;
    uint16_t total = sm_load_be16(ip + 2);
    if (ip[0] != 0x45 || total < SM_IPV4_HEADER || total > len - SM_ETH_HEADER)
        return NULL;
    uint8_t id[sizeof(r->newest->id)];
    memcpy(id, ip + 12, 8);
    memcpy(id + 8, ip + 4, 2);
    id[10] = ip[9];
    expire(r, now_ms);
    struct sm_datagram **link = find(r, id, now_ms);
    if (!link)
        return NULL;
    struct sm_datagram *d = *link;
    uint16_t fragment = sm_load_be16(ip + 6);
    uint32_t at = (fragment & OFFSET_MASK) * UNIT;
    if (at == 0)
        memcpy(d->frame, frame, HEADERS);
    if (!put(d, frame + HEADERS, at, total - SM_IPV4_HEADER, fragment & MORE_FRAGMENTS)) {
        drop(r, link);
        return NULL;
    }
    if (!d->end || d->have < (d->end + UNIT - 1) / UNIT)
        return NULL;
    finish(d);
    *whole = HEADERS + d->end;
    return d->frame;
}
