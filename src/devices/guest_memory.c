/*
 * Guest RAM as devices see it. See guest_memory.h.
 *
 * System calls of the device thread: madvise, mmap.
 */
#include "devices/guest_memory.h"

#include <errno.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/error.h"

/*
 * Dropping a page of a private file mapping would bring the file's old content back. The guest said
 * only that the page is free, so it could live with that, but a later snapshot could not tell such
 * a page from one that is in use. So anonymous memory is mapped over it. That splits the mapping,
 * and the number of mappings of a process is limited (65,530 as a rule, and then nothing in it can
 * map or start a thread): so it is done by blocks of 2 MiB, as free page reporting comes (or 4),
 * neighbours being one mapping, and each block once; afterwards it is memory like any other.
 */
static bool is_replaced(const struct sm_gm_replaced *r, uint64_t block)
{
    return block / 64 < SM_ARRAY_LEN(r->blocks) && (r->blocks[block / 64] >> block % 64 & 1);
}

static int replace_block(const struct sm_gm_region *region, uint64_t block)
{
    struct sm_gm_replaced *r = region->replaced;
    void *start = region->host + block * SM_GM_DISCARD_BLOCK;
    if (is_replaced(r, block))
        return madvise(start, SM_GM_DISCARD_BLOCK, MADV_DONTNEED);
    int runs = 1 - (block > 0 && is_replaced(r, block - 1)) - is_replaced(r, block + 1);
    if (block / 64 >= SM_ARRAY_LEN(r->blocks) || (runs > 0 && r->runs >= SM_GM_DISCARD_RUNS))
        return 0;
    void *fresh = mmap(start, SM_GM_DISCARD_BLOCK, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (fresh == MAP_FAILED)
        return -1;
    r->runs = (unsigned)((int)r->runs + runs);
    r->blocks[block / 64] |= 1ULL << block % 64;
    return 0;
}

static int replace(const struct sm_gm_region *region, uint64_t begin, uint64_t end)
{
    int rc = 0;
    if (!region->replaced)
        return 0;
    begin = (begin + SM_GM_DISCARD_BLOCK - 1) / SM_GM_DISCARD_BLOCK;
    for (; begin < end / SM_GM_DISCARD_BLOCK && !rc; begin++)
        rc = replace_block(region, begin);
    return rc;
}

int sm_gm_discard(const struct sm_guest_memory *gm, void *host, uint64_t len, sm_error *err)
{
    uintptr_t begin = (uintptr_t)host, end;
    const struct sm_gm_region *region = NULL;
    for (unsigned i = 0; i < gm->n; i++) {
        uintptr_t base = (uintptr_t)gm->regions[i].host;
        if (begin >= base && begin - base < gm->regions[i].size &&
            len <= gm->regions[i].size - (begin - base))
            region = &gm->regions[i];
    }
    if (!region)
        return sm_error_set(err, SM_EINVAL, "pages to give back are not guest RAM");
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    end = (begin + len) & ~(page - 1);
    begin = sm_align_up(begin, page);
    if (begin >= end)
        return 0;
    void *start = (uint8_t *)host + (begin - (uintptr_t)host);
    size_t size = end - begin;
    int rc = 0;
    switch (region->backing) {
    case SM_GM_ANONYMOUS:
        rc = madvise(start, size, MADV_DONTNEED);
        break;
    case SM_GM_PRIVATE_FILE:
        rc = replace(region, begin - (uintptr_t)region->host, end - (uintptr_t)region->host);
        break;
    case SM_GM_SHARED:
        rc = madvise(start, size, MADV_REMOVE);
        break;
    }
    if (rc < 0)
        return sm_error_errno(err, errno, "cannot give free guest memory back");
    return 0;
}
