/* Fingerprints tell bytes apart, and files by build id or contents. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "util/fingerprint.h"

static void of(const void *data, size_t len, uint8_t bytes[16])
{
    struct sm_fingerprint f;
    sm_fingerprint_init(&f);
    sm_fingerprint_add(&f, data, len);
    sm_fingerprint_bytes(&f, bytes);
}

/* Every single flipped bit, every length of zeros, and every cut gives another one. */
static void test_differences(void **state)
{
    enum { N = 8 * 40 + 64 };
    static uint8_t all[N][16];
    uint8_t data[64] = {0};
    size_t n = 0;
    for (size_t bit = 0; bit < 8 * 40; bit++) {
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
        of(data, 40, all[n++]);
        data[bit / 8] ^= (uint8_t)(1u << bit % 8);
    }
    for (size_t len = 0; len < 64; len++)
        of(data, len, all[n++]);
    for (size_t i = 0; i < n; i++) {
        for (size_t j = i + 1; j < n; j++)
            assert_true(memcmp(all[i], all[j], 8) && memcmp(all[i] + 8, all[j] + 8, 8));
    }
}

static void test_parts_count(void **state)
{
    struct sm_fingerprint f, g;
    sm_fingerprint_init(&f);
    sm_fingerprint_add(&f, "ab", 2);
    sm_fingerprint_add(&f, "c", 1);
    sm_fingerprint_init(&g);
    sm_fingerprint_add(&g, "a", 1);
    sm_fingerprint_add(&g, "bc", 2);
    assert_true(f.a != g.a && f.b != g.b);
}

static void test_files(void **state)
{
    char path[] = "/tmp/sm-test-id-XXXXXX";
    uint8_t a[SM_FILE_ID_BYTES], b[SM_FILE_ID_BYTES], zero[SM_FILE_ID_BYTES] = {0};
    close(mkstemp(path));
    FILE *f = fopen(path, "w");
    fputs("one", f);
    fclose(f);
    assert_int_equal(sm_file_id(path, a, NULL), 0);
    f = fopen(path, "w");
    fputs("two", f);
    fclose(f);
    assert_int_equal(sm_file_id(path, b, NULL), 0);
    assert_memory_not_equal(a, b, sizeof(a));
    assert_memory_equal(a + 16, zero, 16);
    unlink(path);
    assert_int_equal(sm_file_id(path, a, NULL), -SM_ENOTFOUND);
    /* This program has a build id, of twenty bytes. */
    assert_int_equal(sm_file_id("/proc/self/exe", a, NULL), 0);
    assert_memory_not_equal(a + 16, zero, 4);
    assert_memory_equal(a + 20, zero, 12);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_differences),
        cmocka_unit_test(test_parts_count),
        cmocka_unit_test(test_files),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
