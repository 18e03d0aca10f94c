/* Which pages are worth looking at. See page_map.h. */
#include "snapshot/page_map.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/ioctl.h>

#include "snapshot/reader.h"
#include "util/bytes.h"
#include "util/error.h"

/* Linux 6.7; older headers do not have it. */
struct page_region {
    uint64_t start, end, categories;
};

struct pm_scan_arg {
    uint64_t size, flags, start, end, walk_end, vec, vec_len, max_pages;
    uint64_t category_inverted, category_mask, category_anyof_mask, return_mask;
};

#define SCAN_PAGEMAP _IOWR('f', 16, struct pm_scan_arg)
#define IS_FILE      (1u << 2)
#define IS_PRESENT   (1u << 3)
#define IS_SWAPPED   (1u << 4)
#define IS_PFNZERO   (1u << 5)

/* Bits of an entry of /proc/self/pagemap */
#define ENTRY_FILE    (1ull << 61)
#define ENTRY_SWAPPED (1ull << 62)
#define ENTRY_PRESENT (1ull << 63)

static void set_range(uint64_t *bits, uint64_t from, uint64_t to)
{
    for (; from < to && from % 64; from++)
        sm_page_bit_set(bits, from);
    for (; from + 64 <= to; from += 64)
        bits[from / 64] = UINT64_MAX;
    for (; from < to; from++)
        sm_page_bit_set(bits, from);
}

static void clear_range(uint64_t *bits, uint64_t from, uint64_t to)
{
    for (; from < to; from++)
        bits[from / 64] &= ~(1ull << from % 64);
}

static uint64_t *new_bits(uint64_t n_pages)
{
    return calloc(n_pages / 64 + 1, sizeof(uint64_t));
}

void sm_page_sources_open(struct sm_page_sources *sources)
{
    sources->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    sources->maps = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
}

static int open_pagemap(const struct sm_ram *ram, sm_error *err)
{
    int fd = ram->sources ? fcntl(ram->sources->pagemap, F_DUPFD_CLOEXEC, 0)
                          : open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sm_error_set(err, SM_EUNSUPPORTED, "cannot open /proc/self/pagemap");
    return fd;
}

int sm_page_map_by_scan(const struct sm_ram *ram, uint64_t *bits, sm_error *err)
{
    auto_fd fd = open_pagemap(ram, err);
    if (fd < 0)
        return fd;
    struct page_region found[512];
    uint64_t base = (uintptr_t)ram->base;
    struct pm_scan_arg arg = {
        .size = sizeof(arg),
        .start = base,
        .end = base + ram->bytes,
        .vec = (uintptr_t)found,
        .vec_len = SM_ARRAY_LEN(found),
        .category_inverted = IS_PFNZERO | IS_FILE,
        .category_mask = IS_PFNZERO | IS_FILE,
        .category_anyof_mask = IS_PRESENT | IS_SWAPPED,
        .return_mask = IS_PRESENT,
    };
    while (arg.start < arg.end) {
        int n = ioctl(fd, SCAN_PAGEMAP, &arg);
        if (n < 0)
            return sm_error_set(err, SM_EUNSUPPORTED, "the kernel has no PAGEMAP_SCAN");
        for (int i = 0; i < n; i++)
            set_range(bits, (found[i].start - base) / SM_SNAPSHOT_PAGE,
                (found[i].end - base) / SM_SNAPSHOT_PAGE);
        if (arg.walk_end <= arg.start)
            return sm_error_set(err, SM_EUNSUPPORTED, "PAGEMAP_SCAN makes no progress");
        arg.start = arg.walk_end;
    }
    return 0;
}

int sm_page_map_by_pagemap(const struct sm_ram *ram, uint64_t *bits, sm_error *err)
{
    auto_fd fd = open_pagemap(ram, err);
    if (fd < 0)
        return fd;
    uint64_t entries[2048];
    uint64_t first = (uintptr_t)ram->base / SM_SNAPSHOT_PAGE,
             n_pages = ram->bytes / SM_SNAPSHOT_PAGE;
    for (uint64_t page = 0; page < n_pages;) {
        uint64_t want = SM_MIN(n_pages - page, SM_ARRAY_LEN(entries));
        ssize_t got = pread(fd, entries, want * 8, (off_t)((first + page) * 8));
        if (got < 8)
            return sm_error_set(err, SM_EUNSUPPORTED, "cannot read /proc/self/pagemap");
        for (uint64_t i = 0; i < (uint64_t)got / 8; i++)
            if (entries[i] & (ENTRY_PRESENT | ENTRY_SWAPPED) && !(entries[i] & ENTRY_FILE))
                sm_page_bit_set(bits, page + i);
        page += (uint64_t)got / 8;
    }
    return 0;
}

static int own_pages(const struct sm_ram *ram, uint64_t *bits)
{
    int rc = sm_page_map_by_scan(ram, bits, NULL);
    if (rc) {
        memset(bits, 0, (ram->bytes / SM_SNAPSHOT_PAGE / 64 + 1) * 8);
        rc = sm_page_map_by_pagemap(ram, bits, NULL);
    }
    return rc;
}

/* The pages that file ranges with data make up. */
static void file_data(const struct sm_ram *ram, uint64_t *bits)
{
    uint64_t start = ram->file_offset, end = start + ram->bytes, to;
    for (uint64_t at = start; sm_snapshot_next_data(ram->fd, start, end, &at, &to); at = to)
        set_range(bits, (at - start) / SM_SNAPSHOT_PAGE, (to - start) / SM_SNAPSHOT_PAGE);
}

/* From its beginning: what is read is as it is now. */
static FILE *open_maps(const struct sm_ram *ram)
{
    if (!ram->sources)
        return fopen("/proc/self/maps", "re");
    auto_fd fd = fcntl(ram->sources->maps, F_DUPFD_CLOEXEC, 0);
    FILE *maps = fd < 0 || lseek(fd, 0, SEEK_SET) < 0 ? NULL : fdopen(fd, "r");
    if (maps)
        sm_steal_fd(&fd);
    return maps;
}

/* Parts of the RAM where anonymous memory was mapped over the file (pages the guest gave back):
 * what the file has there does not count any more. */
static int mapped_over(const struct sm_ram *ram, struct sm_page_set *set)
{
    auto_file maps = open_maps(ram);
    if (!maps)
        return -SM_EUNSUPPORTED;
    uint64_t base = (uintptr_t)ram->base, limit = base + ram->bytes;
    auto_free char *line = NULL;
    size_t room = 0;
    while (getline(&line, &room, maps) > 0) {
        uint64_t start, end, inode;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " %*s %*s %*s %" SCNu64, &start, &end, &inode) != 3)
            return -SM_EUNSUPPORTED;
        start = SM_MAX(start, base);
        end = SM_MIN(end, limit);
        if (start >= end || inode != 0)
            continue;
        set_range(set->changed, (start - base) / SM_SNAPSHOT_PAGE, (end - base) / SM_SNAPSHOT_PAGE);
        clear_range(set->live, (start - base) / SM_SNAPSHOT_PAGE, (end - base) / SM_SNAPSHOT_PAGE);
    }
    return 0;
}

static int scan_private_file(
    const struct sm_ram *ram, bool changed_only, struct sm_page_set *set, sm_error *err)
{
    uint64_t words = set->n_pages / 64 + 1;
    auto_free uint64_t *own = new_bits(set->n_pages);
    set->changed = new_bits(set->n_pages);
    if (!own || !set->changed)
        return sm_error_set(err, SM_ENOMEM, "no memory to list the pages of guest RAM");
    if (!changed_only)
        file_data(ram, set->live);
    if (own_pages(ram, own) || mapped_over(ram, set)) {
        set_range(set->live, 0, set->n_pages);
        set_range(set->changed, 0, set->n_pages);
        return 0;
    }
    for (uint64_t i = 0; i < words; i++) {
        set->live[i] |= own[i];
        set->changed[i] |= own[i];
    }
    return 0;
}

int sm_page_set_all(uint64_t bytes, struct sm_page_set **out, sm_error *err)
{
    SM_CLEANUP(sm_page_set_free_cleanup) struct sm_page_set *set = calloc(1, sizeof(*set));
    if (set) {
        set->n_pages = bytes / SM_SNAPSHOT_PAGE;
        set->live = new_bits(set->n_pages);
    }
    if (!set || !set->live)
        return sm_error_set(err, SM_ENOMEM, "no memory to list the pages of guest RAM");
    set_range(set->live, 0, set->n_pages);
    *out = sm_steal_ptr(&set);
    return 0;
}

int sm_page_set_scan(
    const struct sm_ram *ram, bool changed_only, struct sm_page_set **out, sm_error *err)
{
    SM_CLEANUP(sm_page_set_free_cleanup) struct sm_page_set *set = NULL;
    int rc = sm_page_set_all(ram->bytes, &set, err);
    if (rc)
        return rc;
    memset(set->live, 0, (set->n_pages / 64 + 1) * 8);
    switch (ram->backing) {
    case SM_RAM_ANONYMOUS:
        if (own_pages(ram, set->live))
            set_range(set->live, 0, set->n_pages);
        break;
    case SM_RAM_MEMFD:
        file_data(ram, set->live);
        break;
    case SM_RAM_PRIVATE_FILE:
        rc = scan_private_file(ram, changed_only, set, err);
        break;
    }
    if (!rc)
        *out = sm_steal_ptr(&set);
    return rc;
}

void sm_page_set_free(struct sm_page_set *set)
{
    if (!set)
        return;
    free(set->live);
    free(set->changed);
    free(set);
}

uint64_t sm_page_set_live(const struct sm_page_set *set, uint64_t from, uint64_t to)
{
    uint64_t n = 0;
    for (uint64_t page = from; page < to; page++) {
        if (page % 64 == 0 && to - page >= 64) {
            n += (uint64_t)__builtin_popcountll(set->live[page / 64]);
            page += 63;
        } else {
            n += sm_page_bit(set->live, page);
        }
    }
    return n;
}
