/* The four writers: what they write, that all write the same, and how files are read back. */
#include "snapshot_util.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "util/bytes.h"

#define BYTES (12ull << 20)

static sm_error err; /* of the last call */
static const struct sm_snapshot_write_options fast = {.no_sync = true};
static char *dir;
static uint8_t *ram;

static char *in_dir(const char *name)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
    return path;
}

static struct sm_ram anonymous_ram(const uint8_t *p, uint64_t bytes)
{
    return (struct sm_ram){.base = p, .bytes = bytes, .backing = SM_RAM_ANONYMOUS, .fd = -1};
}

#define ok(call)                                                                                   \
    do {                                                                                           \
        if (call)                                                                                  \
            fail_msg("%s: %s", #call, err.message);                                                \
    } while (0)

static struct sm_compact *capture(const uint8_t *p, uint64_t bytes, unsigned threads)
{
    struct sm_ram r = anonymous_ram(p, bytes);
    struct sm_compact *c = NULL;
    ok(sm_compact_new(bytes, &c, &err));
    ok(sm_compact_capture(
        c, &r, false, &(struct sm_snapshot_write_options){.threads = threads}, &err));
    return c;
}

/* Loads PATH and compares with `p`; returns the metadata. */
static struct sm_snapshot *expect_ram(const char *path, const uint8_t *p, uint64_t bytes)
{
    int fd = -1;
    struct sm_snapshot *s = NULL;
    void *got = NULL;
    ok(sm_snapshot_open(path, &fd, &err));
    ok(sm_snapshot_load(fd, path, &s, &got, &err));
    assert_int_equal(s->memory_bytes, bytes);
    for (uint64_t at = 0; at < bytes; at += SM_SNAPSHOT_PAGE)
        if (memcmp((uint8_t *)got + at, p + at, SM_SNAPSHOT_PAGE))
            fail_msg("%s: page at %#llx differs", path, (unsigned long long)at);
    munmap(got, bytes);
    close(fd);
    return s;
}

static void expect_same_file(const char *a, const char *b)
{
    size_t la, lb;
    uint8_t *fa = slurp(a, &la), *fb = slurp(b, &lb);
    assert_int_equal(la, lb);
    assert_true(memcmp(fa, fb, la) == 0);
    free(fa);
    free(fb);
}

/* Where data begins and ends, as one number: equal for files with the same holes. */
static uint64_t hole_map(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    uint64_t at = 0, to, hash = 7, size = (uint64_t)lseek(fd, 0, SEEK_END);
    for (; sm_snapshot_next_data(fd, 0, size, &at, &to); at = to)
        hash = (hash * 31 + at) * 31 + to;
    close(fd);
    return hash;
}

static uint64_t disk_bytes(const char *path)
{
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_blocks * 512;
}

static bool knows_holes(void)
{
    char *path = in_dir("hole");
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, 1 << 20), 0);
    bool yes = lseek(fd, 0, SEEK_DATA) < 0;
    close(fd);
    free(path);
    return yes;
}

static void expect_absent(const char *path)
{
    assert_int_equal(access(path, F_OK), -1);
}

static void all_writers_hold_the_same(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true);
    struct sm_ram r = anonymous_ram(ram, BYTES);
    char *plain = in_dir("plain"), *stream = in_dir("stream"), *compact = in_dir("compact");
    struct sm_snapshot_write_stats stats[3];
    ok(sm_snapshot_save_plain(plain, s, ram, &fast, &stats[0], &err));
    ok(sm_snapshot_save_streaming(stream, s, &r, NULL, &fast, &stats[1], &err));
    struct sm_compact *c = capture(ram, BYTES, 4);
    ok(sm_compact_save(compact, s, c, &fast, &stats[2], &err));
    sm_snapshot_free(expect_ram(plain, ram, BYTES));
    expect_same_file(plain, stream);
    expect_same_file(plain, compact);
    assert_int_equal(hole_map(plain), hole_map(stream));
    for (int i = 0; i < 3; i++) {
        assert_int_equal(stats[i].ram_bytes, BYTES);
        assert_int_equal(stats[i].ram_data_bytes + stats[i].ram_zero_bytes, BYTES);
        assert_true(stats[i].ram_data_bytes > BYTES / 8 && stats[i].ram_data_bytes < BYTES * 3 / 4);
    }
    assert_int_equal(stats[0].ram_data_bytes, stats[1].ram_data_bytes);
    assert_int_equal(stats[2].ram_data_bytes, sm_compact_pages(c) * SM_SNAPSHOT_PAGE);
    assert_true(stats[2].ram_data_bytes < stats[1].ram_data_bytes);
    if (knows_holes())
        assert_true(disk_bytes(plain) < stats[0].ram_data_bytes + (1 << 20));
    char *partial = in_dir("plain.partial");
    expect_absent(partial);
    struct stat st;
    assert_int_equal(stat(plain, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    free(partial);
    sm_compact_free(c);
    sm_snapshot_free(s);
    free(plain), free(stream), free(compact);
}

static void parallel_is_byte_identical_to_serial(void **state)
{
    (void)state;
    static const unsigned threads[] = {1, 2, 3, 4, 7, 64};
    struct sm_snapshot *s = make_snapshot(BYTES, true);
    struct sm_ram r = anonymous_ram(ram, BYTES);
    char *first[2] = {in_dir("s1"), in_dir("c1")}, *other[2] = {in_dir("sn"), in_dir("cn")};
    for (size_t i = 0; i < SM_ARRAY_LEN(threads); i++) {
        struct sm_snapshot_write_options o = {
            .threads = threads[i], .no_sync = true, .ram_sums = true};
        char **path = i ? other : first;
        ok(sm_snapshot_save_streaming(path[0], s, &r, NULL, &o, NULL, &err));
        struct sm_compact *c = capture(ram, BYTES, threads[i]);
        ok(sm_compact_save(path[1], s, c, &o, NULL, &err));
        sm_compact_free(c);
        if (!i)
            continue;
        for (int k = 0; k < 2; k++) {
            expect_same_file(first[k], other[k]);
            assert_int_equal(hole_map(first[k]), hole_map(other[k]));
        }
    }
    for (int k = 0; k < 2; k++)
        free(first[k]), free(other[k]);
    sm_snapshot_free(s);
}

static void thread_count_comes_from_the_environment(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, false);
    char *path = in_dir("env");
    static const char *const bad[] = {"0", "-1", "65", "four", "4x", " ", "99999999999999999999"};
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        setenv("SUPERMACHINE_SNAPSHOT_WRITE_THREADS", bad[i], 1);
        assert_int_equal(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err), -SM_EINVAL);
        assert_non_null(strstr(err.message, "SUPERMACHINE_SNAPSHOT_WRITE_THREADS"));
        expect_absent(path);
    }
    setenv("SUPERMACHINE_SNAPSHOT_WRITE_THREADS", "1", 1);
    ok(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err));
    unsetenv("SUPERMACHINE_SNAPSHOT_WRITE_THREADS");
    sm_snapshot_free(expect_ram(path, ram, BYTES));
    sm_snapshot_free(s);
    free(path);
}

static void a_compact_copy_does_not_follow_the_guest(void **state)
{
    (void)state;
    uint8_t *p = make_ram(BYTES, 5), *before = make_ram(BYTES, 5);
    struct sm_ram r = anonymous_ram(p, BYTES);
    struct sm_compact *c = NULL;
    ok(sm_compact_new(BYTES, &c, &err));
    ok(sm_compact_prepare(c, &r, false, &err));
    ok(sm_compact_capture(c, &r, false, NULL, &err));
    memset(p, 0x55, BYTES); /* the guest runs on */
    struct sm_snapshot *s = make_snapshot(BYTES, true);
    char *path = in_dir("frozen");
    ok(sm_compact_save(path, s, c, &fast, NULL, &err));
    sm_snapshot_free(expect_ram(path, before, BYTES));
    for (uint64_t page = 0; page < BYTES / SM_SNAPSHOT_PAGE; page++) {
        const void *copy = sm_compact_page(c, page);
        if (copy)
            assert_memory_equal(copy, before + page * SM_SNAPSHOT_PAGE, SM_SNAPSHOT_PAGE);
        else
            assert_int_equal(before[page * SM_SNAPSHOT_PAGE], 0);
    }
    assert_null(sm_compact_page(c, BYTES / SM_SNAPSHOT_PAGE));
    sm_compact_free(c);
    sm_snapshot_free(s);
    free(path);
    munmap(p, BYTES);
    munmap(before, BYTES);
}

static void loading_gives_the_compact_form_back(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true), *meta = NULL;
    char *path = in_dir("loaded");
    ok(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err));
    struct sm_compact *captured = capture(ram, BYTES, 2), *loaded = NULL;
    int fd = -1;
    ok(sm_snapshot_open(path, &fd, &err));
    ok(sm_snapshot_load_meta(fd, path, &meta, &err));
    ok(sm_compact_load(fd, meta, &loaded, &err));
    assert_int_equal(sm_compact_pages(captured), sm_compact_pages(loaded));
    for (uint64_t page = 0; page < BYTES / SM_SNAPSHOT_PAGE; page++) {
        const void *a = sm_compact_page(captured, page), *b = sm_compact_page(loaded, page);
        assert_int_equal(a != NULL, b != NULL);
        if (a)
            assert_memory_equal(a, b, SM_SNAPSHOT_PAGE);
    }
    close(fd);
    sm_compact_free(captured);
    sm_compact_free(loaded);
    sm_snapshot_free(meta);
    sm_snapshot_free(s);
    free(path);
}

/* `ram`, changed here and there: pages new, other, zero; and one chunk of zeros. */
static uint8_t *changed_ram(void)
{
    uint8_t *p = make_ram(BYTES, 1);
    for (uint64_t page = 3; page < BYTES / SM_SNAPSHOT_PAGE; page += 37)
        memset(p + page * SM_SNAPSHOT_PAGE, page % 3 ? (int)page : 0, SM_SNAPSHOT_PAGE);
    for (uint64_t at = 0; at < BYTES; at += SM_SNAPSHOT_CHUNK)
        if (p[at] && p[at + 3 * SM_SNAPSHOT_PAGE]) {
            memset(p + at, 0, SM_SNAPSHOT_CHUNK);
            break;
        }
    return p;
}

static void a_diff_is_the_whole_new_file(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true);
    char *base = in_dir("base"), *diff = in_dir("diff"), *full = in_dir("full");
    struct sm_compact *c0 = capture(ram, BYTES, 4);
    ok(sm_compact_save(base, s, c0, &fast, NULL, &err));
    size_t len0;
    uint8_t *base_before = slurp(base, &len0);

    uint8_t *p = changed_ram();
    struct sm_compact *c = capture(p, BYTES, 4);
    int fd = -1;
    s->captured_guest_clock = 99;
    ok(sm_snapshot_open(base, &fd, &err));
    struct sm_snapshot_write_stats stats = {0};
    ok(sm_snapshot_save_diff(diff, s, c, fd, &fast, &stats, &err));
    ok(sm_compact_save(full, s, c, &fast, NULL, &err));
    expect_same_file(diff, full);
    struct sm_snapshot *back = expect_ram(diff, p, BYTES);
    assert_int_equal(back->captured_guest_clock, 99);
    assert_int_equal(stats.ram_bytes, stats.ram_data_bytes + stats.ram_zero_bytes);
    if (stats.method == SM_SNAPSHOT_CLONED) {
        assert_true(stats.written_bytes < BYTES / 20);
        assert_true(stats.punched_bytes >= SM_SNAPSHOT_CHUNK);
    } else {
        print_message("%s cannot clone: the fallback was tested\n", dir);
        assert_int_equal(stats.method, SM_SNAPSHOT_WRITTEN);
    }
    size_t len;
    uint8_t *base_after = slurp(base, &len);
    assert_int_equal(len, len0);
    assert_memory_equal(base_before, base_after, len);
    free(base_before), free(base_after);
    sm_snapshot_free(back);
    sm_compact_free(c0);
    sm_compact_free(c);
    sm_snapshot_free(s);
    close(fd);
    munmap(p, BYTES);
    free(base), free(diff), free(full);
}

/* Writes to RAM that is mapped from a file here and there, and gives one page back; how many pages
 * it wrote. */
static unsigned change_here_and_there(uint8_t *p)
{
    unsigned written = 0;
    for (uint64_t page = 11; page < BYTES / SM_SNAPSHOT_PAGE; page += 101, written++) {
        memset(p + page * SM_SNAPSHOT_PAGE, written % 2 ? 0 : 0x77, SM_SNAPSHOT_PAGE);
        if (written == 4) /* written, but with what was there */
            memcpy(p + page * SM_SNAPSHOT_PAGE, ram + page * SM_SNAPSHOT_PAGE, SM_SNAPSHOT_PAGE);
    }
    uint64_t data_page = 0; /* one the file has data in, given back */
    while (!ram[data_page * SM_SNAPSHOT_PAGE] || data_page % 101 == 11)
        data_page++;
    assert_true(mmap(p + data_page * SM_SNAPSHOT_PAGE, SM_SNAPSHOT_PAGE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
    return written;
}

/* For who can open no file: the same bytes, and no name of any kind. */
static void a_file_of_the_caller_s_is_written_and_not_named(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true);
    char *base = in_dir("base"), *diff = in_dir("diff"), *given = in_dir("given");
    struct sm_compact *c0 = capture(ram, BYTES, 4);
    uint8_t *p = changed_ram();
    struct sm_compact *c = capture(p, BYTES, 4);
    int base_fd = -1;
    ok(sm_compact_save(base, s, c0, &fast, NULL, &err));
    ok(sm_snapshot_open(base, &base_fd, &err));
    ok(sm_snapshot_save_diff(diff, s, c, base_fd, &fast, NULL, &err));
    int stdin_fd = dup(0);
    for (int i = 0; i < 2; i++) {
        close(0); /* a program without standard input: this is a descriptor like any other */
        auto_fd fd = open(given, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
        assert_int_equal(fd, 0);
        const struct sm_snapshot_write_options options = {.fd = &fd};
        if (i == 0)
            ok(sm_compact_save("no/such/name", s, c0, &options, NULL, &err));
        else
            ok(sm_snapshot_save_diff("no/such/name", s, c, base_fd, &options, NULL, &err));
        assert_true(fcntl(fd, F_GETFD) >= 0);
        expect_same_file(given, i == 0 ? base : diff);
        sm_snapshot_free(expect_ram(given, i == 0 ? ram : p, BYTES));
    }
    assert_int_equal(dup2(stdin_fd, 0), 0);
    close(stdin_fd);
    close(base_fd);
    unlink(base);
    unlink(diff);
    unlink(given);
    free(base);
    free(diff);
    free(given);
    munmap(p, BYTES);
    sm_compact_free(c0);
    sm_compact_free(c);
    sm_snapshot_free(s);
}

/* As after a restore: RAM mapped from the base, written here and there. Only that is looked at. */
static void a_delta_of_mapped_ram_looks_at_what_changed(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true), *meta = NULL;
    char *base = in_dir("base2"), *diff = in_dir("diff2");
    ok(sm_snapshot_save_plain(base, s, ram, &fast, NULL, &err));
    int fd = -1;
    void *map = NULL;
    ok(sm_snapshot_open(base, &fd, &err));
    ok(sm_snapshot_load_meta(fd, base, &meta, &err));
    ok(sm_snapshot_map_ram(fd, meta, NULL, &map, &err));
    uint8_t *p = map;
    unsigned written = change_here_and_there(p);

    struct sm_ram r = {.base = p,
        .bytes = BYTES,
        .backing = SM_RAM_PRIVATE_FILE,
        .fd = fd,
        .file_offset = meta->ram_offset};
    struct sm_compact *c = NULL;
    ok(sm_compact_new(BYTES, &c, &err));
    ok(sm_compact_prepare(c, &r, true, &err));
    ok(sm_compact_capture(c, &r, true, NULL, &err));
    assert_int_equal(sm_compact_looked_at(c), written);
    struct sm_snapshot_write_stats stats = {0};
    ok(sm_snapshot_save_diff(
        diff, s, c, fd, &(struct sm_snapshot_write_options){.ram_sums = false}, &stats, &err));
    struct sm_snapshot *back = expect_ram(diff, p, BYTES);
    assert_true(stats.method == SM_SNAPSHOT_CLONED || stats.method == SM_SNAPSHOT_COPIED);
    assert_true(stats.punched_bytes >= SM_SNAPSHOT_PAGE);
    if (stats.method == SM_SNAPSHOT_CLONED)
        assert_int_equal(stats.written_bytes, (written - 1) / 2 * SM_SNAPSHOT_PAGE);

    assert_int_equal(sm_compact_save(diff, s, c, &fast, NULL, &err), -SM_EINVAL);
    struct sm_compact *full = NULL;
    ok(sm_compact_new(BYTES, &full, &err));
    ok(sm_compact_capture(full, &r, false, NULL, &err));
    ok(sm_compact_save(diff, s, full, &fast, NULL, &err));
    sm_snapshot_free(back);
    back = expect_ram(diff, p, BYTES);

    sm_snapshot_free(back);
    sm_compact_free(c);
    sm_compact_free(full);
    sm_snapshot_free(meta);
    sm_snapshot_free(s);
    munmap(map, BYTES);
    close(fd);
    free(base), free(diff);
}

/* Whatever the length of the base's metadata: a longer note and a few registers more always fit. */
static void a_base_leaves_room_for_its_diffs(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(1 << 20, true);
    char *base = in_dir("base4"), *diff = in_dir("diff4");
    char note[SM_SNAPSHOT_MAX_NOTE + 1], *keep = s->note;
    memset(note, 'n', sizeof(note) - 1);
    note[sizeof(note) - 1] = '\0';
    struct sm_compact *c = capture(ram, 1 << 20, 1);
    for (uint32_t i = 0; i < 40; i++) { /* 16 KiB in steps */
        ok(sm_snapshot_save_plain(base, s, ram, &fast, NULL, &err));
        int fd = -1;
        ok(sm_snapshot_open(base, &fd, &err));
        s->note = note;
        ok(sm_snapshot_save_diff(diff, s, c, fd, &fast, NULL, &err));
        s->note = keep;
        close(fd);
        for (uint32_t k = 0; k < 35; k++)
            assert_int_equal(sm_reg_list_add(&s->vcpus[0].sys, i, k, NULL), 0);
    }
    sm_compact_free(c);
    sm_snapshot_free(s);
    free(base), free(diff);
}

static void diffs_that_cannot_be_are_refused(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true), *small = make_snapshot(1 << 20, true);
    char *base = in_dir("base3"), *path = in_dir("refused");
    ok(sm_snapshot_save_plain(base, small, ram, &fast, NULL, &err));
    int fd = -1;
    ok(sm_snapshot_open(base, &fd, &err));
    struct sm_compact *c = capture(ram, BYTES, 1);
    assert_int_equal(sm_snapshot_save_diff(path, s, c, fd, &fast, NULL, &err), -SM_EINVAL);
    assert_non_null(strstr(err.message, "same size"));
    close(fd);

    ok(sm_snapshot_save_plain(base, s, ram, &fast, NULL, &err));
    ok(sm_snapshot_open(base, &fd, &err));
    for (uint32_t i = 0; i < 2000; i++)
        assert_int_equal(sm_reg_list_add(&s->vcpus[0].sys, i, i, NULL), 0);
    assert_int_equal(sm_snapshot_save_diff(path, s, c, fd, &fast, NULL, &err), -SM_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "does not fit"));
    expect_absent(path);
    close(fd);

    struct sm_ram r = anonymous_ram(ram, BYTES);
    assert_int_equal(sm_compact_capture(c, &r, true, NULL, &err), -SM_EINVAL);
    r.bytes /= 2;
    assert_int_equal(sm_compact_capture(c, &r, false, NULL, &err), -SM_EINVAL);
    assert_int_equal(sm_snapshot_save_streaming(path, s, &r, NULL, &fast, NULL, &err), -SM_EINVAL);
    assert_int_equal(sm_compact_save(path, small, c, &fast, NULL, &err), -SM_EINVAL);
    expect_absent(path);
    sm_compact_free(c);
    sm_snapshot_free(s);
    sm_snapshot_free(small);
    free(base), free(path);
}

static void mapped_ram_never_changes_the_file(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true), *meta = NULL;
    char *path = in_dir("cow");
    ok(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err));
    size_t len;
    uint8_t *before = slurp(path, &len);
    int fd = -1;
    ok(sm_snapshot_open(path, &fd, &err));
    ok(sm_snapshot_load_meta(fd, path, &meta, &err));
    void *clones[3];
    for (int i = 0; i < 3; i++) {
        void *reserved = NULL;
        if (i == 2) /* into a range that is there already */
            reserved = mmap(NULL, BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        ok(sm_snapshot_map_ram(fd, meta, reserved, &clones[i], &err));
        assert_true(!reserved || clones[i] == reserved);
    }
    close(fd); /* the mappings need it no longer */
    for (int i = 0; i < 3; i++) {
        assert_memory_equal(clones[i], ram, BYTES);
        memset(clones[i], i + 1, BYTES);
    }
    for (int i = 0; i < 3; i++) {
        assert_int_equal(((uint8_t *)clones[i])[BYTES - 1], i + 1);
        munmap(clones[i], BYTES);
    }
    uint8_t *after = slurp(path, &len);
    assert_memory_equal(before, after, len);
    free(before), free(after);
    sm_snapshot_free(meta);
    sm_snapshot_free(s);
    free(path);
}

static void cut_files_are_refused_not_mapped(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES, true), *meta = NULL;
    char *path = in_dir("cut");
    ok(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err));
    int fd = -1;
    ok(sm_snapshot_open(path, &fd, &err));
    ok(sm_snapshot_load_meta(fd, path, &meta, &err));
    assert_int_equal(truncate(path, (off_t)(meta->ram_offset + BYTES - 1)), 0);
    void *map = NULL;
    assert_int_equal(sm_snapshot_map_ram(fd, meta, NULL, &map, &err), -SM_ECORRUPT);
    assert_null(map);
    struct sm_snapshot *again = NULL;
    assert_int_equal(sm_snapshot_load_meta(fd, path, &again, &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, path));
    assert_non_null(strstr(err.message, "truncated"));
    assert_int_equal(sm_snapshot_load(fd, path, &again, &map, &err), -SM_ECORRUPT);
    assert_null(again);
    close(fd);
    assert_int_equal(sm_snapshot_open(dir, &fd, &err), -SM_EINVAL);
    char *none = in_dir("none");
    assert_int_equal(sm_snapshot_open(none, &fd, &err), -SM_ENOTFOUND);
    assert_int_equal(mkfifo(none, 0600), 0);
    assert_int_equal(sm_snapshot_open(none, &fd, &err), -SM_EINVAL); /* and does not hang */
    sm_snapshot_free(meta);
    sm_snapshot_free(s);
    free(path), free(none);
}

static void ram_checksums_find_a_flipped_bit(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(BYTES - SM_SNAPSHOT_PAGE, true), *meta = NULL;
    char *path = in_dir("sums"), *diff = in_dir("sums-diff");
    struct sm_snapshot_write_options o = {.ram_sums = true};
    ok(sm_snapshot_save_plain(path, s, ram, &o, NULL, &err));
    int fd = open(path, O_RDWR | O_CLOEXEC);
    assert_true(fd >= 0);
    ok(sm_snapshot_load_meta(fd, path, &meta, &err));
    ok(sm_snapshot_verify_ram(fd, path, meta, &err));
    /* a diff makes its own */
    uint8_t *p = changed_ram();
    struct sm_compact *c = capture(p, BYTES - SM_SNAPSHOT_PAGE, 3);
    ok(sm_snapshot_save_diff(diff, s, c, fd, &o, NULL, &err));
    int fd2 = -1;
    struct sm_snapshot *meta2 = NULL;
    ok(sm_snapshot_open(diff, &fd2, &err));
    ok(sm_snapshot_load_meta(fd2, diff, &meta2, &err));
    ok(sm_snapshot_verify_ram(fd2, diff, meta2, &err));
    static const uint64_t at[] = {0, 100000, BYTES - SM_SNAPSHOT_PAGE - 1};
    for (size_t i = 0; i < SM_ARRAY_LEN(at); i++) {
        uint8_t byte = 0;
        off_t where = (off_t)(meta->ram_offset + at[i]);
        assert_int_equal(pread(fd, &byte, 1, where), 1);
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, where), 1);
        assert_int_equal(sm_snapshot_verify_ram(fd, path, meta, &err), -SM_ECORRUPT);
        assert_non_null(strstr(err.message, "damaged"));
        byte ^= 0x10;
        assert_int_equal(pwrite(fd, &byte, 1, where), 1);
    }
    ok(sm_snapshot_verify_ram(fd, path, meta, &err));
    s->arch = SM_ARCH_UNMARKED;
    assert_int_equal(sm_snapshot_save_plain(path, s, ram, &o, NULL, &err), -SM_EINVAL);
    sm_snapshot_free(meta);
    sm_snapshot_free(meta2);
    sm_snapshot_free(s);
    sm_compact_free(c);
    close(fd), close(fd2);
    munmap(p, BYTES);
    free(path), free(diff);
}

static void leftovers_are_overwritten_and_writers_exclude_each_other(void **state)
{
    (void)state;
    struct sm_snapshot *s = make_snapshot(1 << 20, true);
    char *path = in_dir("held"), *partial = in_dir("held.partial");
    free(make_file(dir, "held.partial", "left by a crash", 15));
    ok(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err));
    expect_absent(partial);
    struct sm_partial p;
    ok(sm_snapshot_partial_open(&p, path, &sm_snapshot_io_real, &err));
    assert_int_equal(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err), -SM_EBUSY);
    sm_partial_close(&p);
    expect_absent(partial);
    sm_snapshot_free(expect_ram(path, ram, 1 << 20));
    assert_int_equal(symlink(path, partial), 0); /* never followed */
    assert_int_not_equal(sm_snapshot_save_plain(path, s, ram, &fast, NULL, &err), 0);
    sm_snapshot_free(expect_ram(path, ram, 1 << 20));
    unlink(partial);
    sm_snapshot_free(s);
    free(path), free(partial);
}

static int set_up(void **state)
{
    (void)state;
    dir = make_dir();
    ram = make_ram(BYTES, 1);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_dir(dir);
    munmap(ram, BYTES);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_writers_hold_the_same),
        cmocka_unit_test(parallel_is_byte_identical_to_serial),
        cmocka_unit_test(thread_count_comes_from_the_environment),
        cmocka_unit_test(a_compact_copy_does_not_follow_the_guest),
        cmocka_unit_test(loading_gives_the_compact_form_back),
        cmocka_unit_test(a_diff_is_the_whole_new_file),
        cmocka_unit_test(a_file_of_the_caller_s_is_written_and_not_named),
        cmocka_unit_test(a_delta_of_mapped_ram_looks_at_what_changed),
        cmocka_unit_test(a_base_leaves_room_for_its_diffs),
        cmocka_unit_test(diffs_that_cannot_be_are_refused),
        cmocka_unit_test(mapped_ram_never_changes_the_file),
        cmocka_unit_test(cut_files_are_refused_not_mapped),
        cmocka_unit_test(ram_checksums_find_a_flipped_bit),
        cmocka_unit_test(leftovers_are_overwritten_and_writers_exclude_each_other),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
