/*
 * Compact copies of RAM: the non-zero pages, sorted, made while the guest is paused and written
 * later.
 *
 * Index and data are address space as large as RAM would need at worst (MAP_NORESERVE), and RAM's
 * slab k copies to slab k of them: no thread needs to know how many pages the others found, and
 * memory is taken for what is copied only. Taking it during the pause would cost a fault per page,
 * as much as the copy itself, so prepare() takes it before, by an estimate from the page map.
 *
 * System calls at a capture: mmap, munmap, madvise.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "snapshot/reader.h"
#include "snapshot/writer_internal.h"
#include "util/bytes.h"
#include "util/error.h"

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE 23 /* Linux 5.14 */
#endif

#define HUGE (2ull << 20)

static void *reserve(uint64_t bytes)
{
    void *p = mmap(
        NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return p == MAP_FAILED ? NULL : p;
}

int sm_compact_new(uint64_t ram_bytes, struct sm_compact **out, sm_error *err)
{
    if (ram_bytes == 0 || ram_bytes % SM_SNAPSHOT_PAGE || ram_bytes > SM_SNAPSHOT_MAX_RAM)
        return sm_error_set(err, SM_EINVAL, "%" PRIu64 " bytes are no size of RAM", ram_bytes);
    uint64_t n_pages = ram_bytes / SM_SNAPSHOT_PAGE;
    SM_CLEANUP(sm_compact_free_cleanup) struct sm_compact *c = calloc(1, sizeof(*c));
    if (c) {
        c->ram_bytes = ram_bytes;
        c->index = reserve(n_pages * sizeof(*c->index));
        c->data = reserve(ram_bytes);
    }
    if (!c || !c->index || !c->data)
        return sm_error_set(
            err, SM_ENOMEM, "no address space for a copy of %" PRIu64 " bytes of RAM", ram_bytes);
    /* Whole chunks per slab: they are what the writers' holes are made of. */
    uint64_t chunk = SM_SNAPSHOT_CHUNK / SM_SNAPSHOT_PAGE;
    uint64_t each = sm_align_up(n_pages / SM_COMPACT_MAX_SLABS + 1, chunk);
    for (uint64_t first = 0; first < n_pages; first += each)
        c->slabs[c->n_slabs++] = (struct sm_compact_slab){
            .first = first,
            .end = SM_MIN(first + each, n_pages),
            .index = c->index + first,
            .data = c->data + first * SM_SNAPSHOT_PAGE,
        };
    *out = sm_steal_ptr(&c);
    return 0;
}

void sm_compact_free(struct sm_compact *c)
{
    if (!c)
        return;
    if (c->index)
        munmap(c->index, c->ram_bytes / SM_SNAPSHOT_PAGE * sizeof(*c->index));
    if (c->data)
        munmap(c->data, c->ram_bytes);
    free(c->changed);
    free(c);
}

/* The pages that this capture has to look at, as bits; *changed is the delta's, NULL for a full
 * copy. */
static int candidates(const struct sm_compact *c, const struct sm_ram *ram, bool delta,
    struct sm_page_set **set, sm_error *err)
{
    if (ram->bytes != c->ram_bytes)
        return sm_error_set(err, SM_EINVAL,
            "the copy is for %" PRIu64 " bytes of RAM, there are %" PRIu64, c->ram_bytes,
            ram->bytes);
    if (delta && ram->backing != SM_RAM_PRIVATE_FILE)
        return sm_error_set(
            err, SM_EINVAL, "only RAM that is mapped from a snapshot file has a delta");
    return sm_page_set_scan(ram, delta, set, err);
}

/* Takes memory for [p, p + bytes), in huge pages where whole ones are needed. What the kernel does
 * not give now is taken by the capture itself. */
static void populate(void *p, uint64_t bytes)
{
    uintptr_t from = (uintptr_t)p & ~(uintptr_t)(SM_SNAPSHOT_PAGE - 1);
    uintptr_t to = sm_align_up((uintptr_t)p + bytes, SM_SNAPSHOT_PAGE);
    uintptr_t huge = sm_align_up(from, HUGE), huge_end = to & ~(uintptr_t)(HUGE - 1);
    if (!bytes)
        return;
    if (huge < huge_end)
        madvise((void *)huge, huge_end - huge, MADV_HUGEPAGE);
    madvise((void *)from, to - from, MADV_POPULATE_WRITE);
}

int sm_compact_prepare(struct sm_compact *c, const struct sm_ram *ram, bool delta, sm_error *err)
{
    SM_CLEANUP(sm_page_set_free_cleanup) struct sm_page_set *set = NULL;
    int rc = candidates(c, ram, delta, &set, err);
    if (rc)
        return rc;
    for (unsigned i = 0; i < c->n_slabs; i++) {
        const struct sm_compact_slab *slab = &c->slabs[i];
        uint64_t n = sm_page_set_live(set, slab->first, slab->end);
        populate(slab->data, n * SM_SNAPSHOT_PAGE);
        populate(slab->index, n * sizeof(*slab->index));
    }
    return 0;
}

struct capture {
    struct sm_compact *c;
    const uint8_t *ram;
    const uint64_t *live;
};

static int capture_slab(void *arg, size_t i, sm_error *err)
{
    (void)err;
    const struct capture *cap = arg;
    struct sm_compact_slab *slab = &cap->c->slabs[i];
    slab->n = 0;
    for (uint64_t page = slab->first; page < slab->end; page++) {
        if (page % 64 == 0 && !cap->live[page / 64]) {
            page += 63;
            continue;
        }
        const uint8_t *p = cap->ram + page * SM_SNAPSHOT_PAGE;
        if (!sm_page_bit(cap->live, page) || sm_snapshot_page_is_zero(p))
            continue;
        memcpy(slab->data + slab->n * SM_SNAPSHOT_PAGE, p, SM_SNAPSHOT_PAGE);
        slab->index[slab->n++] = (uint32_t)page;
    }
    return 0;
}

int sm_compact_capture(struct sm_compact *c, const struct sm_ram *ram, bool delta,
    const struct sm_snapshot_write_options *options, sm_error *err)
{
    struct sm_snapshot_write_options full;
    SM_CLEANUP(sm_page_set_free_cleanup) struct sm_page_set *set = NULL;
    int rc;
    if ((rc = sm_snapshot_write_options_get(options, &full, err)) ||
        (rc = candidates(c, ram, delta, &set, err)))
        return rc;
    struct capture cap = {.c = c, .ram = ram->base, .live = set->live};
    c->looked_at = sm_page_set_live(set, 0, set->n_pages);
    unsigned threads = sm_snapshot_threads_for(full.threads, c->looked_at);
    if ((rc = sm_snapshot_parallel(full.io, threads, c->n_slabs, capture_slab, &cap, err)))
        return rc;
    free(c->changed);
    c->changed = delta ? sm_steal_ptr(&set->changed) : NULL;
    return 0;
}

static int load_slab(
    int fd, const struct sm_snapshot *s, struct sm_compact_slab *slab, sm_error *err)
{
    uint64_t at = s->ram_offset + slab->first * SM_SNAPSHOT_PAGE, to;
    uint64_t end = s->ram_offset + slab->end * SM_SNAPSHOT_PAGE;
    for (; sm_snapshot_next_data(fd, s->ram_offset, end, &at, &to); at = to) {
        for (uint64_t page = (at - s->ram_offset) / SM_SNAPSHOT_PAGE; at < to; page++) {
            /* Pages are read where they belong; a zero one is written over by the next. */
            uint8_t *p = slab->data + slab->n * SM_SNAPSHOT_PAGE;
            int rc = sm_snapshot_read_at(fd, p, SM_SNAPSHOT_PAGE, at, err);
            if (rc)
                return rc;
            if (!sm_snapshot_page_is_zero(p))
                slab->index[slab->n++] = (uint32_t)page;
            at += SM_SNAPSHOT_PAGE;
        }
    }
    return 0;
}

int sm_compact_load(int fd, const struct sm_snapshot *s, struct sm_compact **out, sm_error *err)
{
    SM_CLEANUP(sm_compact_free_cleanup) struct sm_compact *c = NULL;
    int rc = sm_compact_new(s->memory_bytes, &c, err);
    for (unsigned i = 0; !rc && i < c->n_slabs; i++)
        rc = load_slab(fd, s, &c->slabs[i], err);
    if (rc)
        return rc;
    c->looked_at = sm_compact_pages(c);
    *out = sm_steal_ptr(&c);
    return 0;
}

uint64_t sm_compact_pages(const struct sm_compact *c)
{
    uint64_t n = 0;
    for (unsigned i = 0; i < c->n_slabs; i++)
        n += c->slabs[i].n;
    return n;
}

uint64_t sm_compact_looked_at(const struct sm_compact *c)
{
    return c->looked_at;
}

const void *sm_compact_page(const struct sm_compact *c, uint64_t page)
{
    if (page >= c->ram_bytes / SM_SNAPSHOT_PAGE)
        return NULL;
    const struct sm_compact_slab *slab = &c->slabs[page / (c->slabs[0].end - c->slabs[0].first)];
    uint64_t low = 0, high = slab->n;
    while (low < high) {
        uint64_t mid = low + (high - low) / 2;
        if (slab->index[mid] < page)
            low = mid + 1;
        else
            high = mid;
    }
    return low < slab->n && slab->index[low] == page ? slab->data + low * SM_SNAPSHOT_PAGE : NULL;
}

struct save {
    struct sm_snapshot_out out;
    const struct sm_compact *c;
};

/* Neighbours in RAM are neighbours in the copy: each run of pages is one write. */
static int save_slab(void *arg, size_t i, sm_error *err)
{
    struct save *save = arg;
    const struct sm_compact_slab *slab = &save->c->slabs[i];
    for (uint64_t from = 0, to; from < slab->n; from = to) {
        for (to = from + 1; to < slab->n && slab->index[to] == slab->index[to - 1] + 1;)
            to++;
        int rc = sm_snapshot_out_ram(&save->out, (uint64_t)slab->index[from] * SM_SNAPSHOT_PAGE,
            slab->data + from * SM_SNAPSHOT_PAGE, (to - from) * SM_SNAPSHOT_PAGE, err);
        if (rc)
            return rc;
    }
    return 0;
}

int sm_compact_save(const char *path, const struct sm_snapshot *snapshot,
    const struct sm_compact *c, const struct sm_snapshot_write_options *options,
    struct sm_snapshot_write_stats *stats, sm_error *err)
{
    if (c->changed)
        return sm_error_set(err, SM_EINVAL,
            "a copy of changed pages only cannot be saved without the snapshot it belongs to");
    if (c->ram_bytes != snapshot->memory_bytes)
        return sm_error_set(err, SM_EINVAL,
            "the snapshot says %" PRIu64 " bytes of RAM, the copy is of %" PRIu64,
            snapshot->memory_bytes, c->ram_bytes);
    struct save save = {.c = c};
    int rc = sm_snapshot_out_open(&save.out, path, snapshot, 0, options, err);
    if (rc)
        return rc;
    if (!(rc = sm_snapshot_out_size(&save.out, err)) &&
        !(rc = sm_snapshot_parallel(
              save.out.options.io, save.out.options.threads, c->n_slabs, save_slab, &save, err)) &&
        !(rc = sm_snapshot_out_commit(&save.out, err)) && stats)
        *stats = (struct sm_snapshot_write_stats){
            .ram_bytes = c->ram_bytes,
            .ram_data_bytes = save.out.written,
            .ram_zero_bytes = c->ram_bytes - save.out.written,
            .written_bytes = save.out.written,
        };
    sm_snapshot_out_close(&save.out);
    return rc;
}
