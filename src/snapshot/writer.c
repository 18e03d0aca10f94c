/* What all writers do the same way, and the two simplest of them. See writer.h. */
#include "snapshot/writer_internal.h"

#include <inttypes.h>
#include <string.h>

#include "snapshot/codec.h"
#include "util/crc32c.h"
#include "snapshot/format.h"
#include "snapshot/reader.h"
#include "util/bytes.h"
#include "util/error.h"

#define DEFAULT_THREADS  4
#define MAX_THREADS      64
#define PAGES_PER_THREAD 8192 /* 32 MiB, some 3 ms: less is done before a thread has started */
/* metadata of a diff may be longer by that */
#define ROOM_FOR_DIFFS (SM_SNAPSHOT_MAX_NOTE + 2048u)
/* one pwrite: bounds what is done after another thread failed */
#define MAX_WRITE (4u << 20)

int sm_snapshot_write_options_get(const struct sm_snapshot_write_options *options,
    struct sm_snapshot_write_options *full, sm_error *err)
{
    *full = options ? *options : (struct sm_snapshot_write_options){0};
    if (!full->io)
        full->io = &sm_snapshot_io_real;
    const char *env = full->threads ? NULL : getenv("SUPERMACHINE_SNAPSHOT_WRITE_THREADS");
    if (env && *env) {
        char *end;
        unsigned long n = strtoul(env, &end, 10);
        if (*end || n < 1 || n > MAX_THREADS || *env == '-')
            return sm_error_set(err, SM_EINVAL,
                "SUPERMACHINE_SNAPSHOT_WRITE_THREADS is \"%.32s\": give a number from 1 to %d", env,
                MAX_THREADS);
        full->threads = (unsigned)n;
    }
    if (!full->threads)
        full->threads = DEFAULT_THREADS;
    full->threads = SM_MIN(full->threads, MAX_THREADS);
    return 0;
}

unsigned sm_snapshot_threads_for(unsigned threads, uint64_t pages)
{
    return (unsigned)SM_MIN(threads, 1 + pages / PAGES_PER_THREAD);
}

bool sm_snapshot_page_is_zero(const void *page)
{
    typedef uint64_t words __attribute__((vector_size(64), aligned(8), may_alias));
    const words *p = page;
    if (sm_load_le64(page))
        return false;
    for (size_t i = 0; i < SM_SNAPSHOT_PAGE / sizeof(words); i += 8) {
        words any =
            p[i] | p[i + 1] | p[i + 2] | p[i + 3] | p[i + 4] | p[i + 5] | p[i + 6] | p[i + 7];
        if (any[0] | any[1] | any[2] | any[3] | any[4] | any[5] | any[6] | any[7])
            return false;
    }
    return true;
}

/* ---- a file under way ---------------------------------------------------------------------- */

/* The structure as it will be in the file, with (still empty) RAM checksums if asked for. */
static int with_sums(const struct sm_snapshot_out *out, struct sm_snapshot *s, sm_error *err)
{
    *s = *out->snapshot;
    s->ram_sums = NULL;
    s->n_ram_sums = 0;
    if (!out->options.ram_sums)
        return 0;
    if (s->arch == SM_ARCH_UNMARKED)
        return sm_error_set(err, SM_EINVAL,
            "RAM checksums need a snapshot with an architecture tag to put them into");
    s->n_ram_sums = (uint32_t)sm_snapshot_chunks(s->memory_bytes);
    s->ram_sums = calloc(s->n_ram_sums, sizeof(*s->ram_sums));
    if (!s->ram_sums)
        return sm_error_set(err, SM_ENOMEM, "no memory for %u RAM checksums", s->n_ram_sums);
    return 0;
}

/* Zeros at the end. */
static uint64_t padding(const uint8_t *meta, uint64_t bytes)
{
    uint64_t n = 0;
    while (n < bytes && meta[bytes - 1 - n] == 0)
        n++;
    return n;
}

int sm_snapshot_out_open(struct sm_snapshot_out *out, const char *path,
    const struct sm_snapshot *snapshot, uint64_t ram_offset,
    const struct sm_snapshot_write_options *options, sm_error *err)
{
    memset(out, 0, sizeof(*out));
    out->file.fd = -1;
    out->snapshot = snapshot;
    int rc = sm_snapshot_write_options_get(options, &out->options, err);
    if (rc)
        return rc;
    /* Encoded once before anything is touched, for its length and its refusals. */
    struct sm_snapshot s;
    if ((rc = with_sums(out, &s, err)))
        return rc;
    auto_free uint32_t *sums = s.ram_sums;
    auto_free uint8_t *meta = NULL;
    if ((rc = sm_snapshot_encode(&s, ram_offset, &meta, &out->ram_offset, err)))
        return rc;
    if (ram_offset == 0 && s.arch != SM_ARCH_UNMARKED &&
        padding(meta, out->ram_offset) < ROOM_FOR_DIFFS)
        out->ram_offset += SM_SNAPSHOT_RAM_ALIGN;
    if (!out->options.fd)
        return sm_snapshot_partial_open(&out->file, path, out->options.io, err);
    out->file = (struct sm_partial){.fd = *out->options.fd, .partial = strdup(path)};
    return out->file.partial ? 0 : sm_error_set(err, SM_ENOMEM, "no memory for a path");
}

/* The caller's file has its name from him. */
static int commit_file(struct sm_snapshot_out *out, sm_error *err)
{
    bool no_sync = out->options.no_sync;
    if (!out->options.fd)
        return sm_partial_commit(
            &out->file, no_sync ? SM_PARTIAL_NO_SYNC : SM_PARTIAL_SYNC_ALL, err);
    if (!no_sync && out->options.io->sync(out->file.fd))
        return sm_error_errno(err, errno, "cannot bring %s to disk", out->file.partial);
    return 0;
}

int sm_snapshot_out_size(struct sm_snapshot_out *out, sm_error *err)
{
    uint64_t bytes = out->ram_offset + out->snapshot->memory_bytes;
    if (out->options.io->truncate(out->file.fd, (off_t)bytes))
        return sm_error_errno(
            err, errno, "cannot make %s %" PRIu64 " bytes long", out->file.partial, bytes);
    return 0;
}

int sm_snapshot_out_ram(
    struct sm_snapshot_out *out, uint64_t at, const void *data, size_t len, sm_error *err)
{
    const uint8_t *p = data;
    while (len) {
        size_t n = SM_MIN(len, MAX_WRITE);
        int rc =
            sm_snapshot_write_at(out->options.io, out->file.fd, p, n, out->ram_offset + at, err);
        if (rc)
            return sm_error_prefix(err, rc, "%s", out->file.partial);
        atomic_fetch_add(&out->written, n);
        p += n;
        at += n;
        len -= n;
    }
    return 0;
}

/* Sums of what is in the file now: holes are known, data is read back. */
static int sum_ram(const struct sm_snapshot_out *out, struct sm_snapshot *s, sm_error *err)
{
    auto_free uint8_t *buf = calloc(1, SM_SNAPSHOT_CHUNK);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "no memory for RAM checksums");
    uint64_t tail = s->memory_bytes % SM_SNAPSHOT_CHUNK;
    uint32_t zero = sm_crc32c(0, buf, SM_SNAPSHOT_CHUNK);
    for (uint32_t i = 0; i < s->n_ram_sums; i++)
        s->ram_sums[i] = zero;
    if (tail)
        s->ram_sums[s->n_ram_sums - 1] = sm_crc32c(0, buf, tail);
    uint64_t at = out->ram_offset, end = at + s->memory_bytes, to;
    while (sm_snapshot_next_data(out->file.fd, out->ram_offset, end, &at, &to)) {
        uint64_t first = (at - out->ram_offset) / SM_SNAPSHOT_CHUNK;
        uint64_t last = (to - 1 - out->ram_offset) / SM_SNAPSHOT_CHUNK;
        for (uint64_t i = first; i <= last; i++) {
            int rc = sm_snapshot_chunk_sum(
                out->file.fd, out->ram_offset, s->memory_bytes, i, buf, &s->ram_sums[i], err);
            if (rc)
                return rc;
        }
        at = SM_MIN(out->ram_offset + (last + 1) * SM_SNAPSHOT_CHUNK, end);
    }
    return 0;
}

int sm_snapshot_out_commit(struct sm_snapshot_out *out, sm_error *err)
{
    struct sm_snapshot s;
    int rc = with_sums(out, &s, err);
    if (rc)
        return rc;
    auto_free uint32_t *sums = s.ram_sums;
    auto_free uint8_t *meta = NULL;
    uint64_t bytes;
    if ((sums && (rc = sum_ram(out, &s, err))) ||
        (rc = sm_snapshot_encode(&s, out->ram_offset, &meta, &bytes, err)) ||
        (rc = sm_snapshot_write_at(out->options.io, out->file.fd, meta, bytes, 0, err)))
        return sm_error_prefix(err, rc, "%s", out->file.partial);
    return commit_file(out, err);
}

void sm_snapshot_out_close(struct sm_snapshot_out *out)
{
    if (out->options.fd)
        free(out->file.partial);
    else
        sm_partial_close(&out->file);
}

/* ---- plain and streaming ------------------------------------------------------------------- */

struct stream {
    struct sm_snapshot_out out;
    const uint8_t *ram;
    const struct sm_page_set *pages;
    uint64_t slab; /* bytes, multiple of a chunk */
};

static bool chunk_is_zero(const struct stream *st, uint64_t at, uint64_t len)
{
    for (uint64_t end = at + len; at < end; at += SM_SNAPSHOT_PAGE)
        if (sm_page_bit(st->pages->live, at / SM_SNAPSHOT_PAGE) &&
            !sm_snapshot_page_is_zero(st->ram + at))
            return false;
    return true;
}

static int stream_slab(void *arg, size_t i, sm_error *err)
{
    struct stream *st = arg;
    uint64_t at = i * st->slab, end = SM_MIN(at + st->slab, st->out.snapshot->memory_bytes);
    uint64_t run = at; /* chunks [run, at) have data and are not written yet */
    while (at < end) {
        uint64_t len = SM_MIN(end - at, SM_SNAPSHOT_CHUNK);
        if (chunk_is_zero(st, at, len)) {
            int rc = sm_snapshot_out_ram(&st->out, run, st->ram + run, at - run, err);
            if (rc)
                return rc;
            run = at + len;
        }
        at += len;
    }
    return sm_snapshot_out_ram(&st->out, run, st->ram + run, end - run, err);
}

static int save_stream(const char *path, const struct sm_snapshot *snapshot, const uint8_t *ram,
    const struct sm_page_set *pages, const struct sm_snapshot_write_options *options,
    struct sm_snapshot_write_stats *stats, sm_error *err)
{
    struct stream st = {.ram = ram, .pages = pages};
    int rc = sm_snapshot_out_open(&st.out, path, snapshot, 0, options, err);
    if (rc)
        return rc;
    /* A few slabs per thread, so that one with all the data does not keep the others waiting. */
    uint64_t slabs = st.out.options.threads == 1 ? 1 : 4ull * st.out.options.threads;
    st.slab = sm_align_up(snapshot->memory_bytes / slabs + 1, SM_SNAPSHOT_CHUNK);
    size_t n = (snapshot->memory_bytes + st.slab - 1) / st.slab;
    if (!(rc = sm_snapshot_out_size(&st.out, err)) &&
        !(rc = sm_snapshot_parallel(
              st.out.options.io, st.out.options.threads, n, stream_slab, &st, err)) &&
        !(rc = sm_snapshot_out_commit(&st.out, err)) && stats)
        *stats = (struct sm_snapshot_write_stats){
            .ram_bytes = snapshot->memory_bytes,
            .ram_data_bytes = st.out.written,
            .ram_zero_bytes = snapshot->memory_bytes - st.out.written,
            .written_bytes = st.out.written,
        };
    sm_snapshot_out_close(&st.out);
    return rc;
}

int sm_snapshot_save_plain(const char *path, const struct sm_snapshot *snapshot, const void *ram,
    const struct sm_snapshot_write_options *options, struct sm_snapshot_write_stats *stats,
    sm_error *err)
{
    SM_CLEANUP(sm_page_set_free_cleanup) struct sm_page_set *all = NULL;
    int rc = sm_page_set_all(snapshot->memory_bytes, &all, err);
    return rc ? rc : save_stream(path, snapshot, ram, all, options, stats, err);
}

int sm_snapshot_save_streaming(const char *path, const struct sm_snapshot *snapshot,
    const struct sm_ram *ram, const struct sm_page_set *pages,
    const struct sm_snapshot_write_options *options, struct sm_snapshot_write_stats *stats,
    sm_error *err)
{
    SM_CLEANUP(sm_page_set_free_cleanup) struct sm_page_set *scanned = NULL;
    if (ram->bytes != snapshot->memory_bytes)
        return sm_error_set(err, SM_EINVAL,
            "the snapshot says %" PRIu64 " bytes of RAM, there are %" PRIu64,
            snapshot->memory_bytes, ram->bytes);
    int rc = pages ? 0 : sm_page_set_scan(ram, false, &scanned, err);
    return rc ? rc
              : save_stream(
                    path, snapshot, ram->base, pages ? pages : scanned, options, stats, err);
}
