/* The page map on real mappings: what it calls live must hold every non-zero page, and no more than
 * the kernel has memory for. */
#include "snapshot_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "snapshot/page_map.h"
#include "snapshot/writer_internal.h"

#define PAGE  SM_SNAPSHOT_PAGE
#define PAGES 1000
#define BYTES ((uint64_t)PAGES * PAGE)

static uint8_t *anonymous(void)
{
    uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(p != MAP_FAILED);
    madvise(p, BYTES, MADV_NOHUGEPAGE);
    return p;
}

static uint64_t count(const uint64_t *bits)
{
    uint64_t n = 0;
    for (uint64_t p = 0; p < PAGES; p++)
        n += sm_page_bit(bits, p);
    return n;
}

static void anonymous_pages_are_live_once_written(void **state)
{
    (void)state;
    uint8_t *p = anonymous();
    static const unsigned written[] = {0, 1, 63, 64, 65, 511, 512, 998, 999};
    for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
        p[written[i] * PAGE + 7] = 1;
    struct sm_ram ram = {.base = p, .bytes = BYTES, .backing = SM_RAM_ANONYMOUS, .fd = -1};
    struct sm_page_set *set = NULL;
    assert_int_equal(sm_page_set_scan(&ram, false, &set, NULL), 0);
    assert_int_equal(set->n_pages, PAGES);
    assert_null(set->changed);
    assert_int_equal(count(set->live), 9);
    for (size_t i = 0; i < sizeof(written) / sizeof(written[0]); i++)
        assert_true(sm_page_bit(set->live, written[i]));
    assert_int_equal(sm_page_set_live(set, 0, PAGES), 9);
    assert_int_equal(sm_page_set_live(set, 1, 64), 2);
    assert_int_equal(sm_page_set_live(set, 65, 999), 4);
    sm_page_set_free(set);
    munmap(p, BYTES);
}

static void both_sources_agree(void **state)
{
    (void)state;
    uint8_t *p = anonymous();
    struct sm_ram ram = {.base = p, .bytes = BYTES, .backing = SM_RAM_ANONYMOUS, .fd = -1};
    for (unsigned i = 3; i < PAGES; i += 1 + i % 5)
        p[i * PAGE] = 1;
    uint64_t a[PAGES / 64 + 1] = {0}, b[PAGES / 64 + 1] = {0};
    assert_int_equal(sm_page_map_by_pagemap(&ram, a, NULL), 0);
    assert_true(count(a) > 100);
    if (sm_page_map_by_scan(&ram, b, NULL) == 0)
        assert_memory_equal(a, b, sizeof(a));
    else
        print_message("this kernel has no PAGEMAP_SCAN: pagemap alone was tested\n");
    munmap(p, BYTES);
}

static void pages_that_were_only_read_do_not_hurt(void **state)
{
    (void)state;
    uint8_t *p = anonymous();
    unsigned sum = 0;
    for (unsigned i = 0; i < PAGES; i++)
        sum += ((volatile uint8_t *)p)[i * PAGE]; /* maps the zero page */
    assert_int_equal(sum, 0);
    p[5 * PAGE] = 1;
    struct sm_ram ram = {.base = p, .bytes = BYTES, .backing = SM_RAM_ANONYMOUS, .fd = -1};
    uint64_t bits[PAGES / 64 + 1] = {0};
    if (sm_page_map_by_scan(&ram, bits, NULL) == 0)
        assert_int_equal(count(bits), 1);
    struct sm_page_set *set = NULL;
    assert_int_equal(sm_page_set_scan(&ram, false, &set, NULL), 0);
    assert_true(sm_page_bit(set->live, 5));
    sm_page_set_free(set);
    munmap(p, BYTES);
}

static void paged_out_pages_stay_live(void **state)
{
    (void)state;
    uint8_t *p = anonymous();
    for (unsigned i = 0; i < 50; i++)
        p[i * PAGE] = 1;
    if (madvise(p, 50 * PAGE, MADV_PAGEOUT)) /* swaps where there is swap; harmless otherwise */
        print_message("no MADV_PAGEOUT\n");
    struct sm_ram ram = {.base = p, .bytes = BYTES, .backing = SM_RAM_ANONYMOUS, .fd = -1};
    struct sm_page_set *set = NULL;
    assert_int_equal(sm_page_set_scan(&ram, false, &set, NULL), 0);
    assert_int_equal(count(set->live), 50);
    sm_page_set_free(set);
    munmap(p, BYTES);
}

static void huge_pages_are_live_as_a_whole(void **state)
{
    (void)state;
    const uint64_t huge = 2u << 20;
    uint8_t *area =
        mmap(NULL, 3 * huge, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(area != MAP_FAILED);
    uint8_t *p = (uint8_t *)(((uintptr_t)area + huge - 1) & ~(uintptr_t)(huge - 1));
    madvise(p, huge, MADV_HUGEPAGE);
    p[17 * PAGE] = 1;
    struct sm_ram ram = {.base = p, .bytes = huge, .backing = SM_RAM_ANONYMOUS, .fd = -1};
    struct sm_page_set *set = NULL;
    assert_int_equal(sm_page_set_scan(&ram, false, &set, NULL), 0);
    assert_true(sm_page_bit(set->live, 17));
    uint64_t live = sm_page_set_live(set, 0, 512);
    if (live == 1)
        print_message("no huge page was to be had\n");
    sm_page_set_free(set);
    munmap(area, 3 * huge);
}

static void memfd_pages_are_asked_of_the_file(void **state)
{
    (void)state;
    int fd = memfd_create("ram", MFD_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)BYTES), 0);
    /* written through the descriptor: not present in our page tables, and yet data */
    assert_int_equal(pwrite(fd, "x", 1, 10 * PAGE), 1);
    uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    assert_true(p != MAP_FAILED);
    p[500 * PAGE] = 1;
    struct sm_ram ram = {.base = p, .bytes = BYTES, .backing = SM_RAM_MEMFD, .fd = fd};
    struct sm_page_set *set = NULL;
    assert_int_equal(sm_page_set_scan(&ram, false, &set, NULL), 0);
    assert_true(sm_page_bit(set->live, 10));
    assert_true(sm_page_bit(set->live, 500));
    assert_true(count(set->live) < 2 * 512 + 2);
    sm_page_set_free(set);
    munmap(p, BYTES);
    close(fd);
}

/* A file with data in pages 20..29 of its RAM, which begins at 16384; mapped, and written to by us.
 */
static void private_pages_of_a_file_are_the_changed_ones(void **state)
{
    (void)state;
    char *dir = make_dir();
    char *path = make_file(dir, "ram", "", 0);
    FILE *f = fopen(path, "r+e");
    assert_non_null(f);
    int fd = fileno(f);
    uint8_t data[PAGE];
    memset(data, 0xAB, sizeof(data));
    assert_int_equal(ftruncate(fd, (off_t)(16384 + BYTES)), 0);
    for (unsigned i = 20; i < 30; i++)
        assert_int_equal(pwrite(fd, data, PAGE, 16384 + i * PAGE), PAGE);
    uint8_t *p = mmap(NULL, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 16384);
    assert_true(p != MAP_FAILED);
    unsigned sum = 0;
    for (unsigned i = 20; i < 30; i++)
        sum += ((volatile uint8_t *)p)[i * PAGE]; /* reading maps the file's pages: no change */
    assert_int_equal(sum, 10 * 0xAB);
    p[21 * PAGE] = 1;
    p[700 * PAGE] = 1;
    /* pages 25 and 800 are given back: zeros from now on, whatever the file says */
    p[800 * PAGE] = 1;
    assert_true(mmap(p + 25 * PAGE, PAGE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);
    assert_true(mmap(p + 800 * PAGE, PAGE, PROT_READ | PROT_WRITE,
                    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED);

    struct sm_ram ram = {
        .base = p, .bytes = BYTES, .backing = SM_RAM_PRIVATE_FILE, .fd = fd, .file_offset = 16384};
    struct sm_page_set *set = NULL;
    assert_int_equal(sm_page_set_scan(&ram, false, &set, NULL), 0);
    assert_int_equal(count(set->changed), 4);
    assert_true(sm_page_bit(set->changed, 21) && sm_page_bit(set->changed, 700));
    assert_true(sm_page_bit(set->changed, 25) && sm_page_bit(set->changed, 800));
    assert_false(sm_page_bit(set->live, 25));
    assert_false(sm_page_bit(set->live, 800));
    for (unsigned i = 20; i < 30; i++)
        assert_true(i == 25 || sm_page_bit(set->live, i));
    assert_true(sm_page_bit(set->live, 700));
    assert_true(count(set->live) <= 16 + 1);
    sm_page_set_free(set);
    assert_int_equal(sm_page_set_scan(&ram, true, &set, NULL), 0);
    assert_int_equal(count(set->live), 2);
    assert_int_equal(count(set->changed), 4);
    sm_page_set_free(set);

    p[25 * PAGE] = 2; /* used again */
    assert_int_equal(sm_page_set_scan(&ram, false, &set, NULL), 0);
    assert_true(sm_page_bit(set->live, 25) && sm_page_bit(set->changed, 25));
    sm_page_set_free(set);
    munmap(p, BYTES);
    fclose(f);
    free(path);
    remove_dir(dir);
}

static void zero_pages_are_told_from_others_at_every_byte(void **state)
{
    (void)state;
    uint8_t *p = anonymous();
    assert_true(sm_snapshot_page_is_zero(p));
    for (unsigned i = 0; i < PAGE; i++) {
        p[i] = i % 2 ? 1 : 0x80;
        assert_false(sm_snapshot_page_is_zero(p));
        p[i] = 0;
    }
    p[PAGE] = 1; /* the neighbour does not matter */
    assert_true(sm_snapshot_page_is_zero(p));
    munmap(p, BYTES);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(anonymous_pages_are_live_once_written),
        cmocka_unit_test(both_sources_agree),
        cmocka_unit_test(pages_that_were_only_read_do_not_hurt),
        cmocka_unit_test(paged_out_pages_stay_live),
        cmocka_unit_test(huge_pages_are_live_as_a_whole),
        cmocka_unit_test(memfd_pages_are_asked_of_the_file),
        cmocka_unit_test(private_pages_of_a_file_are_the_changed_ones),
        cmocka_unit_test(zero_pages_are_told_from_others_at_every_byte),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
