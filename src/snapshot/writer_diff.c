/*
 * The diff writer: the new file starts as a clone of the base, so what is the same costs neither
 * time nor disk; then pages that differ are written over it and pages that are zero now become
 * holes.
 *
 * The base is compared with through a read-only mapping (page cache, as the running VM has it
 * anyway), and only where the copy has a page or the base has data: holes of both are never looked
 * at.
 *
 * System calls at a capture: mmap, munmap.
 */
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>

#include "snapshot/reader.h"
#include "snapshot/writer_internal.h"
#include "util/bytes.h"
#include "util/error.h"

struct diff {
    struct sm_snapshot_out out;
    const struct sm_compact *c;
    const uint8_t *base; /* RAM of the base, mapped */
    uint64_t *base_data; /* bit per page: data there */
};

static bool cannot(int e)
{
    return e == EOPNOTSUPP || e == ENOSYS || e == ENOTTY || e == EXDEV || e == EINVAL;
}

/* ---- the start: a clone or a copy ---------------------------------------------------------- */

static int copy_range(
    struct sm_snapshot_out *out, int base_fd, uint64_t at, uint64_t end, sm_error *err)
{
    const struct sm_snapshot_io *io = out->options.io;
    off_t from = (off_t)at, to = (off_t)at;
    while ((uint64_t)to < end) {
        ssize_t n = io->copy(base_fd, &from, out->file.fd, &to, end - (uint64_t)to);
        if (n > 0 || (n < 0 && errno == EINTR))
            continue;
        if (n < 0 && !cannot(errno))
            return sm_error_errno(err, errno, "cannot copy the base to %s", out->file.partial);
        break; /* the kernel cannot: by hand */
    }
    auto_free uint8_t *buf = malloc(SM_SNAPSHOT_CHUNK);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "no memory to copy the base");
    while ((uint64_t)to < end) {
        size_t n = SM_MIN(end - (uint64_t)to, SM_SNAPSHOT_CHUNK);
        int rc;
        if ((rc = sm_snapshot_read_at(base_fd, buf, n, (uint64_t)to, err)) ||
            (rc = sm_snapshot_write_at(io, out->file.fd, buf, n, (uint64_t)to, err)))
            return rc;
        to += (off_t)n;
    }
    return 0;
}

static int copy_base(struct sm_snapshot_out *out, int base_fd, sm_error *err)
{
    uint64_t at = out->ram_offset, end = at + out->snapshot->memory_bytes, to;
    for (; sm_snapshot_next_data(base_fd, out->ram_offset, end, &at, &to); at = to) {
        int rc = copy_range(out, base_fd, at, to, err);
        if (rc)
            return rc;
        atomic_fetch_add(&out->written, to - at);
    }
    return 0;
}

/* ---- the pages ----------------------------------------------------------------------------- */

/* Pages [from, to) are zero now. */
static int make_hole(struct diff *d, uint64_t from, uint64_t to, sm_error *err)
{
    static const uint8_t zeros[SM_SNAPSHOT_CHUNK];
    const struct sm_snapshot_io *io = d->out.options.io;
    uint64_t at = d->out.ram_offset + from * SM_SNAPSHOT_PAGE, len = (to - from) * SM_SNAPSHOT_PAGE;
    atomic_fetch_add(&d->out.punched, len);
    if (io->punch(d->out.file.fd, (off_t)at, (off_t)len) == 0)
        return 0;
    if (!cannot(errno))
        return sm_error_errno(err, errno, "cannot make a hole in %s", d->out.file.partial);
    while (len) {
        size_t n = SM_MIN(len, sizeof(zeros));
        int rc = sm_snapshot_write_at(io, d->out.file.fd, zeros, n, at, err);
        if (rc)
            return rc;
        at += n;
        len -= n;
    }
    return 0;
}

/* A page that is not in the copy is zero now, unless the copy is a delta that did not look at it.
 */
static bool is_zero_now(const struct sm_compact *c, uint64_t page)
{
    return !c->changed || sm_page_bit(c->changed, page);
}

static int diff_slab(void *arg, size_t i, sm_error *err)
{
    struct diff *d = arg;
    const struct sm_compact_slab *slab = &d->c->slabs[i];
    uint64_t next = 0;             /* of the copy */
    uint64_t run = 0, n_run = 0;   /* copied pages to write: from `run`, so many */
    uint64_t hole = 0, n_hole = 0; /* pages to punch */
    for (uint64_t page = slab->first; page <= slab->end; page++) {
        bool last = page == slab->end;
        bool have = !last && next < slab->n && slab->index[next] == page;
        bool in_base = !last && sm_page_bit(d->base_data, page);
        const uint8_t *base = d->base + page * SM_SNAPSHOT_PAGE;
        const uint8_t *now = slab->data + next * SM_SNAPSHOT_PAGE;
        bool write = have && !(in_base && memcmp(now, base, SM_SNAPSHOT_PAGE) == 0);
        bool punch = !have && in_base && is_zero_now(d->c, page) && !sm_snapshot_page_is_zero(base);
        if (n_run && !write) {
            int rc = sm_snapshot_out_ram(&d->out, (uint64_t)slab->index[run] * SM_SNAPSHOT_PAGE,
                slab->data + run * SM_SNAPSHOT_PAGE, n_run * SM_SNAPSHOT_PAGE, err);
            if (rc)
                return rc;
            n_run = 0;
        }
        if (n_hole && !punch) {
            int rc = make_hole(d, hole, hole + n_hole, err);
            if (rc)
                return rc;
            n_hole = 0;
        }
        if (write && !n_run++)
            run = next;
        if (punch && !n_hole++)
            hole = page;
        next += have;
    }
    return 0;
}

/* A bit for each page of the base that is data, and how many there are. */
static int find_data(int fd, uint64_t ram_offset, uint64_t bytes, uint64_t **bits, sm_error *err)
{
    uint64_t *b = calloc(bytes / SM_SNAPSHOT_PAGE / 64 + 1, sizeof(*b));
    if (!b)
        return sm_error_set(err, SM_ENOMEM, "no memory to compare with the base");
    uint64_t at = ram_offset, end = at + bytes, to;
    for (; sm_snapshot_next_data(fd, ram_offset, end, &at, &to); at = to)
        for (uint64_t p = (at - ram_offset) / SM_SNAPSHOT_PAGE;
             p < (to - ram_offset) / SM_SNAPSHOT_PAGE; p++)
            sm_page_bit_set(b, p);
    *bits = b;
    return 0;
}

static uint64_t data_bytes(int fd, uint64_t ram_offset, uint64_t bytes)
{
    uint64_t n = 0, at = ram_offset, end = at + bytes, to;
    for (; sm_snapshot_next_data(fd, ram_offset, end, &at, &to); at = to)
        n += to - at;
    return n;
}

/* The partial file becomes the base. 1: it cannot be cloned here. */
static int start_from_base(
    struct diff *d, int base_fd, enum sm_snapshot_method *method, sm_error *err)
{
    const struct sm_snapshot_io *io = d->out.options.io;
    if (io->clone(d->out.file.fd, base_fd) == 0) {
        *method = SM_SNAPSHOT_CLONED;
        return sm_snapshot_out_size(&d->out, err);
    }
    if (!cannot(errno))
        return sm_error_errno(err, errno, "cannot clone the base to %s", d->out.file.partial);
    if (!d->c->changed)
        return 1;
    *method = SM_SNAPSHOT_COPIED;
    int rc = sm_snapshot_out_size(&d->out, err);
    return rc ? rc : copy_base(&d->out, base_fd, err);
}

/* After the checks, with the partial file open. 1: to be saved compactly instead. */
static int save_over_base(
    struct diff *d, int base_fd, struct sm_snapshot_write_stats *stats, sm_error *err)
{
    uint64_t bytes = d->c->ram_bytes, ram_offset = d->out.ram_offset;
    enum sm_snapshot_method method = SM_SNAPSHOT_CLONED;
    int rc = start_from_base(d, base_fd, &method, err);
    if (rc)
        return rc;
    if ((rc = find_data(base_fd, ram_offset, bytes, &d->base_data, err)))
        return rc;
    void *base = mmap(NULL, bytes, PROT_READ, MAP_SHARED, base_fd, (off_t)ram_offset);
    if (base == MAP_FAILED)
        return sm_error_errno(err, errno, "cannot map the base");
    d->base = base;
    rc = sm_snapshot_parallel(
        d->out.options.io, d->out.options.threads, d->c->n_slabs, diff_slab, d, err);
    munmap(base, bytes);
    uint64_t data = rc || !stats ? 0 : data_bytes(d->out.file.fd, ram_offset, bytes);
    if (rc || (rc = sm_snapshot_out_commit(&d->out, err)))
        return rc;
    if (stats)
        *stats = (struct sm_snapshot_write_stats){
            .ram_bytes = bytes,
            .ram_data_bytes = data,
            .ram_zero_bytes = bytes - data,
            .written_bytes = d->out.written,
            .punched_bytes = d->out.punched,
            .method = method,
        };
    return 0;
}

int sm_snapshot_save_diff(const char *path, const struct sm_snapshot *snapshot,
    const struct sm_compact *c, int base_fd, const struct sm_snapshot_write_options *options,
    struct sm_snapshot_write_stats *stats, sm_error *err)
{
    auto_snapshot base = NULL;
    int rc = sm_snapshot_load_meta(base_fd, "the base", &base, err);
    if (rc)
        return rc;
    if (base->memory_bytes != snapshot->memory_bytes || c->ram_bytes != snapshot->memory_bytes)
        return sm_error_set(err, SM_EINVAL,
            "a diff needs a base of the same size: it has %" PRIu64
            " bytes of RAM, the VM %" PRIu64,
            base->memory_bytes, snapshot->memory_bytes);
    struct diff d = {.c = c};
    if ((rc = sm_snapshot_out_open(&d.out, path, snapshot, base->ram_offset, options, err)))
        return rc;
    rc = save_over_base(&d, base_fd, stats, err);
    free(d.base_data);
    sm_snapshot_out_close(&d.out);
    return rc == 1 ? sm_compact_save(path, snapshot, c, options, stats, err) : rc;
}
