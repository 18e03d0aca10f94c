/* Guest RAM as devices see it. See guest_memory.h. */
#include "devices/guest_memory.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/error.h"

int sm_gm_read(const struct sm_guest_memory *gm, uint64_t gpa, void *buf, size_t len)
{
    const void *p = sm_gm_ptr(gm, gpa, len);
    if (!p)
        return -SM_EINVAL;
    memcpy(buf, p, len);
    return 0;
}

int sm_gm_write(const struct sm_guest_memory *gm, uint64_t gpa, const void *buf, size_t len)
{
    void *p = sm_gm_ptr(gm, gpa, len);
    if (!p)
        return -SM_EINVAL;
    memcpy(p, buf, len);
    return 0;
}

/*
 * Dropping a page of a private file mapping would bring the file's old content back. The guest said
 * only that the page is free, so it could live with that, but a later snapshot could not tell such a
 * page from one that is in use. So anonymous memory is mapped over it. That splits the mapping, and the
 * number of mappings of a process is limited: small pieces, of which a guest could report any number,
 * are left alone (free page reporting comes in blocks of 2 or 4 MiB).
 */
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
        if (size >= SM_GM_DISCARD_MIN) {
            void *fresh = mmap(start, size, PROT_READ | PROT_WRITE,
                MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
            rc = fresh == MAP_FAILED ? -1 : 0;
        }
        break;
    case SM_GM_SHARED:
        rc = madvise(start, size, MADV_REMOVE);
        break;
    }
    if (rc < 0)
        return sm_error_errno(err, errno, "cannot give free guest memory back");
    return 0;
}
