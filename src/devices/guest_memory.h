/*
 * Guest RAM as devices see it: a few regions of guest-physical addresses mapped into this process.
 *
 * Every address and length that comes from the guest goes through sm_gm_ptr, which gives a host
 * pointer only for ranges that lie wholly inside of one region. Read-only mappings (pmem) are not
 * RAM and are not listed here, so no device can be talked into writing to them.
 *
 * The guest runs while devices read: what a device decides on must be copied out first, never read
 * twice.
 */
#ifndef SM_DEVICES_GUEST_MEMORY_H
#define SM_DEVICES_GUEST_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

#define SM_GM_MAX_REGIONS 4

/* What is behind a region; decides how free pages are given back. */
enum sm_gm_backing {
    SM_GM_ANONYMOUS, /* MAP_PRIVATE|MAP_ANONYMOUS */
    /* MAP_PRIVATE of a snapshot file: a dropped page would show the file again */
    SM_GM_PRIVATE_FILE,
    SM_GM_SHARED, /* MAP_SHARED of a memfd */
};

struct sm_gm_region {
    uint64_t gpa;
    uint64_t size;
    uint8_t *host;
    enum sm_gm_backing backing;
    struct sm_gm_replaced
        *replaced; /* of a private file: see sm_gm_discard; NULL: nothing is given back */
};

/* Blocks of a private file mapping that have been replaced by anonymous memory. Belongs to who
 * discards. */
struct sm_gm_replaced {
    unsigned runs;                          /* of neighbouring blocks */
    uint64_t blocks[64ULL * 1024 / 2 / 64]; /* a bit each, up to 64 GiB */
};

struct sm_guest_memory {
    unsigned n;
    struct sm_gm_region regions[SM_GM_MAX_REGIONS];
};

/* The host address of [gpa, gpa + len), or NULL if that is not wholly inside of one region. */
static inline void *sm_gm_ptr(const struct sm_guest_memory *gm, uint64_t gpa, uint64_t len)
{
    for (unsigned i = 0; i < gm->n; i++) {
        const struct sm_gm_region *r = &gm->regions[i];
        if (gpa >= r->gpa && gpa - r->gpa < r->size && len <= r->size - (gpa - r->gpa))
            return r->host + (gpa - r->gpa);
    }
    return NULL;
}

/* Gives the whole pages of [host, host + len), a range that sm_gm_ptr gave, back to the host
 * system; the guest reads zeros there afterwards. Of a private file mapping only whole blocks of
 * SM_GM_DISCARD_BLOCK are given back, and no more than SM_GM_DISCARD_RUNS pieces of it: what is
 * left stays as it is. One thread at a time. */
#define SM_GM_DISCARD_BLOCK (2u << 20)
#define SM_GM_DISCARD_RUNS  2048
int sm_gm_discard(const struct sm_guest_memory *gm, void *host, uint64_t len, sm_error *err);

#endif
