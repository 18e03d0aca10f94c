/*
 * What the snapshot writers cost: time, the guest's pause, bytes written and on disk, against a
 * plain memcpy of the same pages in the same run. No VM is needed: RAM is a mapping with a share of
 * non-zero pages in clusters, as a guest leaves them.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "util/bytes.h"

#define PAGE SM_SNAPSHOT_PAGE

static uint64_t ram_bytes = 256ull << 20;
static unsigned runs = 7, live_percent = 25, dirty_per_mille = 10;
static char dir[4096] = "/var/tmp";
static sm_error err;

static struct sm_snapshot *meta;
static uint8_t *ram;     /* the guest's */
static uint8_t *dirtied; /* the same a little later */
static uint64_t live_pages;
static char base[4200], path[4200];
static json_t *rows;
static double memcpy_us; /* the floor */

static uint64_t rng = 88172645463325252u;
static uint64_t next(void)
{
    rng ^= rng << 13;
    rng ^= rng >> 7;
    return rng ^= rng << 17;
}

static void fill_page(uint8_t *p)
{
    for (size_t i = 0; i < PAGE; i += 8)
        sm_store_le64(p + i, next());
}

static uint8_t *map(uint64_t bytes)
{
    uint8_t *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        bench_die("mmap", NULL);
    return p;
}

/* Clusters of 1..64 pages, up to the wanted share; one page in eight of a cluster was used and is
 * zero. */
static void make_ram(void)
{
    uint64_t pages = ram_bytes / PAGE, want = pages * live_percent / 100;
    ram = map(ram_bytes);
    while (live_pages < want) {
        uint64_t at = next() % pages, n = 1 + next() % 64;
        for (; n && at < pages; n--, at++) {
            uint8_t *p = ram + at * PAGE;
            if (p[0])
                continue;
            if (next() % 8 == 0) {
                *(volatile uint8_t *)p = 0;
                continue;
            }
            fill_page(p);
            p[0] |= 1;
            live_pages++;
        }
    }
}

static void make_dirtied(void)
{
    uint64_t pages = ram_bytes / PAGE;
    dirtied = map(ram_bytes);
    for (uint64_t p = 0; p < pages; p++)
        if (ram[p * PAGE])
            memcpy(dirtied + p * PAGE, ram + p * PAGE, PAGE);
    for (uint64_t n = pages * dirty_per_mille / 1000; n; n--)
        fill_page(dirtied + next() % pages * PAGE);
}

static struct sm_ram anonymous(const uint8_t *p)
{
    return (struct sm_ram){.base = p, .bytes = ram_bytes, .backing = SM_RAM_ANONYMOUS, .fd = -1};
}

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static uint64_t disk_bytes(const char *file)
{
    struct stat st;
    return stat(file, &st) ? 0 : (uint64_t)st.st_blocks * 512;
}

static void report(const char *what, unsigned threads, struct bench_samples *pause,
    struct bench_samples *total, const struct sm_snapshot_write_stats *st)
{
    static const char *const methods[] = {"written", "cloned", "copied"};
    double p = bench_quantile(pause, 0.5), t = bench_quantile(total, 0.5);
    json_t *row = json_pack("{s:s, s:i}", "what", what, "threads", (int)threads);
    json_object_set_new(row, "pause ms", pause->n ? json_real(p / 1000) : json_null());
    json_object_set_new(
        row, "pause/memcpy", pause->n && memcpy_us > 0 ? json_real(p / memcpy_us) : json_null());
    json_object_set_new(row, "total ms", json_real(t / 1000));
    json_object_set_new(row, "MiB written", st ? json_real(mib(st->written_bytes)) : json_null());
    json_object_set_new(row, "MiB on disk", st ? json_real(mib(disk_bytes(path))) : json_null());
    json_object_set_new(row, "how", json_string(st ? methods[st->method] : "-"));
    json_array_append_new(rows, row);
}

/* The non-zero pages, known beforehand, to memory that is there already: nothing can be quicker. */
static void bench_memcpy(void)
{
    struct bench_samples there = {0}, fresh = {0};
    uint8_t *to = map(live_pages * PAGE);
    memset(to, 1, live_pages * PAGE);
    uint64_t *list = calloc(live_pages, sizeof(*list)), n = 0;
    for (uint64_t p = 0; p < ram_bytes / PAGE && n < live_pages; p++)
        if (ram[p * PAGE])
            list[n++] = p;
    for (unsigned r = 0; r < runs; r++) {
        double start = bench_now();
        for (uint64_t i = 0; i < n; i++)
            memcpy(to + i * PAGE, ram + list[i] * PAGE, PAGE);
        bench_add(&there, bench_now() - start);
        uint8_t *cold = map(live_pages * PAGE);
        start = bench_now();
        for (uint64_t i = 0; i < n; i++)
            memcpy(cold + i * PAGE, ram + list[i] * PAGE, PAGE);
        bench_add(&fresh, bench_now() - start);
        munmap(cold, live_pages * PAGE);
    }
    memcpy_us = bench_quantile(&there, 0.5);
    report("memcpy of the non-zero pages", 1, &there, &there, NULL);
    report("  to memory never used", 1, &fresh, &fresh, NULL);
    munmap(to, live_pages * PAGE);
    free(list);
}

static void bench_streaming(unsigned threads, bool plain)
{
    struct bench_samples t = {0}, none = {0};
    struct sm_snapshot_write_stats st = {0};
    struct sm_snapshot_write_options o = {.threads = threads, .no_sync = true};
    struct sm_ram r = anonymous(ram);
    for (unsigned i = 0; i < runs; i++) {
        double start = bench_now();
        if (plain ? sm_snapshot_save_plain(path, meta, ram, &o, &st, &err)
                  : sm_snapshot_save_streaming(path, meta, &r, NULL, &o, &st, &err))
            bench_die("save", &err);
        bench_add(&t, bench_now() - start);
    }
    report(plain ? "plain" : "streaming", threads, plain ? &none : &t, &t, &st);
}

static void bench_compact(unsigned threads, bool prepare, bool sync)
{
    struct bench_samples pause = {0}, total = {0};
    struct sm_snapshot_write_stats st = {0};
    struct sm_snapshot_write_options o = {.threads = threads, .no_sync = !sync};
    struct sm_ram r = anonymous(ram);
    for (unsigned i = 0; i < runs; i++) {
        struct sm_compact *c = NULL;
        double start = bench_now();
        if (sm_compact_new(ram_bytes, &c, &err) ||
            (prepare && sm_compact_prepare(c, &r, false, &err)))
            bench_die("prepare", &err);
        double paused = bench_now();
        if (sm_compact_capture(c, &r, false, &o, &err))
            bench_die("capture", &err);
        bench_add(&pause, bench_now() - paused);
        if (sm_compact_save(path, meta, c, &o, &st, &err))
            bench_die("save", &err);
        bench_add(&total, bench_now() - start);
        sm_compact_free(c);
    }
    report(sync      ? "compact, prepared, to disk"
           : prepare ? "compact, prepared"
                     : "compact, not prepared",
        threads, &pause, &total, &st);
}

static void bench_diff(unsigned threads, bool delta)
{
    struct bench_samples pause = {0}, total = {0};
    struct sm_snapshot_write_stats st = {0};
    struct sm_snapshot_write_options o = {.threads = threads, .no_sync = true};
    int fd = -1;
    struct sm_snapshot *s = NULL;
    void *mapped = NULL;
    if (sm_snapshot_open(base, &fd, &err) || sm_snapshot_load_meta(fd, base, &s, &err) ||
        sm_snapshot_map_ram(fd, s, NULL, &mapped, &err))
        bench_die("base", &err);
    for (uint64_t p = 0; p < ram_bytes && delta; p += PAGE)
        if (memcmp(ram + p, dirtied + p, PAGE)) /* reading the mapping would map it all */
            memcpy((uint8_t *)mapped + p, dirtied + p, PAGE);
    struct sm_ram r = delta ? (struct sm_ram){.base = mapped,
                                  .bytes = ram_bytes,
                                  .backing = SM_RAM_PRIVATE_FILE,
                                  .fd = fd,
                                  .file_offset = s->ram_offset}
                            : anonymous(dirtied);
    for (unsigned i = 0; i < runs; i++) {
        struct sm_compact *c = NULL;
        double start = bench_now();
        if (sm_compact_new(ram_bytes, &c, &err) || sm_compact_prepare(c, &r, delta, &err))
            bench_die("prepare", &err);
        double paused = bench_now();
        if (sm_compact_capture(c, &r, delta, &o, &err))
            bench_die("capture", &err);
        bench_add(&pause, bench_now() - paused);
        if (sm_snapshot_save_diff(path, meta, c, fd, &o, &st, &err))
            bench_die("diff", &err);
        bench_add(&total, bench_now() - start);
        sm_compact_free(c);
    }
    report(delta ? "diff of a restored VM" : "diff of a full copy", threads, &pause, &total, &st);
    munmap(mapped, ram_bytes);
    sm_snapshot_free(s);
    close(fd);
}

static void bench_reading(void)
{
    struct bench_samples load = {0}, compact = {0};
    for (unsigned i = 0; i < runs * 10; i++) {
        int fd = -1;
        struct sm_snapshot *s = NULL;
        void *mapped = NULL;
        double start = bench_now();
        if (sm_snapshot_open(base, &fd, &err) || sm_snapshot_load_meta(fd, base, &s, &err) ||
            sm_snapshot_map_ram(fd, s, NULL, &mapped, &err))
            bench_die("load", &err);
        bench_add(&load, bench_now() - start);
        munmap(mapped, ram_bytes);
        if (i < runs) {
            struct sm_compact *c = NULL;
            start = bench_now();
            if (sm_compact_load(fd, s, &c, &err))
                bench_die("load_compact", &err);
            bench_add(&compact, bench_now() - start);
            sm_compact_free(c);
        }
        sm_snapshot_free(s);
        close(fd);
    }
    struct bench_samples none = {0};
    report("open, load metadata, map RAM", 1, &none, &load, NULL);
    report("load_compact", 1, &none, &compact, NULL);
}

/* Metadata as large as that of a small x86_64 VM. */
static void make_meta(void)
{
    meta = calloc(1, sizeof(*meta));
    meta->memory_bytes = ram_bytes;
    meta->arch = SM_ARCH_X86_64;
    meta->n_vcpus = 1;
    meta->vcpus = calloc(1, sizeof(*meta->vcpus));
    for (uint32_t i = 0; i < 160; i++) {
        if (sm_reg_list_add(&meta->vcpus[0].sys, i, i, &err) ||
            sm_reg128_list_add(&meta->vcpus[0].simd, i, i, i, &err))
            bench_die("metadata", &err);
    }
}

static void usage(void)
{
    fprintf(stderr, "usage: bench-snapshot [--dir DIR] [--json FILE] [--memory MIB] [--runs N]\n"
                    "                      [--live PERCENT] [--dirty PER_MILLE]\n");
    exit(2);
}

static const char *json_path;

static void take_options(int argc, char **argv)
{
    static const struct option options[] = {{"dir", 1, 0, 'd'}, {"json", 1, 0, 'j'},
        {"memory", 1, 0, 'm'}, {"runs", 1, 0, 'r'}, {"live", 1, 0, 'l'}, {"dirty", 1, 0, 'y'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        unsigned long n = optarg ? strtoul(optarg, NULL, 10) : 0;
        switch (c) {
        case 'd':
            snprintf(dir, sizeof(dir), "%s", optarg);
            break;
        case 'j':
            json_path = optarg;
            break;
        case 'm':
            ram_bytes = (uint64_t)SM_MIN(SM_MAX(n, 2), 65536) << 20;
            break;
        case 'r':
            runs = (unsigned)SM_MIN(SM_MAX(n, 1), 100);
            break;
        case 'l':
            live_percent = (unsigned)SM_MIN(SM_MAX(n, 1), 80);
            break;
        case 'y':
            dirty_per_mille = (unsigned)SM_MIN(n, 1000);
            break;
        default:
            usage();
        }
    }
}

static void measure(void)
{
    static const unsigned threads[] = {1, 2, 4};
    bench_memcpy();
    for (size_t i = 0; i < SM_ARRAY_LEN(threads); i++) {
        bench_streaming(threads[i], true);
        bench_streaming(threads[i], false);
        bench_compact(threads[i], false, false);
        bench_compact(threads[i], true, false);
        bench_diff(threads[i], false);
        bench_diff(threads[i], true);
    }
    bench_compact(4, true, true);
    bench_reading();
}

int main(int argc, char **argv)
{
    take_options(argc, argv);
    strncat(dir, "/bench-snapshot-XXXXXX", sizeof(dir) - strlen(dir) - 1);
    if (!mkdtemp(dir))
        bench_die(dir, NULL);
    snprintf(base, sizeof(base), "%s/base", dir);
    snprintf(path, sizeof(path), "%s/snap", dir);
    rows = json_array();
    make_meta();
    make_ram();
    make_dirtied();
    struct sm_snapshot_write_options o = {.no_sync = true};
    if (sm_snapshot_save_plain(base, meta, ram, &o, NULL, &err))
        bench_die("base", &err);

    measure();
    printf(
        "%.0f MiB of RAM, %.0f MiB of it non-zero, %u in 1000 pages changed for the diffs; medians of %u\n",
        mib(ram_bytes), mib(live_pages * PAGE), dirty_per_mille, runs);
    bench_print_table(rows);
    if (json_path) {
        json_t *all = json_pack("{s:s, s:I, s:I, s:i, s:O}", "bench", "snapshot", "ram_bytes",
            (json_int_t)ram_bytes, "live_bytes", (json_int_t)live_pages * PAGE, "runs", (int)runs,
            "rows", rows);
        bench_write_json(all, json_path);
        json_decref(all);
    }
    json_decref(rows);
    unlink(base);
    unlink(path);
    rmdir(dir);
    sm_snapshot_free(meta);
    return 0;
}
