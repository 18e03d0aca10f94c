/* What `snapshot inspect` and `snapshot verify` say, of files of every architecture. */
#include "snapshot_util.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "snapshot/writer.h"

static sm_error err;
static char *dir;

static json_t *inspect(const char *name)
{
    size_t len;
    uint8_t *file = golden(name, &len);
    char *path = make_file(dir, name, file, len), *text = NULL;
    if (sm_snapshot_inspect(path, &text, &err))
        fail_msg("%s", err.message);
    json_t *root = json_loads(text, 0, NULL);
    assert_non_null(root);
    free(text);
    free(path);
    free(file);
    return root;
}

static const char *string_of(json_t *root, const char *key)
{
    const char *s = json_string_value(json_object_get(root, key));
    assert_non_null(s);
    return s;
}

static void a_foreign_file_is_shown_whole(void **state)
{
    (void)state;
    json_t *root = inspect("aarch64-2cpu");
    assert_int_equal(json_integer_value(json_object_get(root, "version")), 8);
    assert_string_equal(string_of(root, "architecture"), "unmarked (aarch64)");
    assert_string_equal(string_of(root, "ram_gpa"), "0x40000000");
    json_t *vcpus = json_object_get(root, "vcpus");
    assert_int_equal(json_array_size(vcpus), 2);
    json_t *sctlr = json_array_get(json_object_get(json_array_get(vcpus, 1), "sys"), 1);
    assert_string_equal(json_string_value(json_array_get(sctlr, 0)), "0xc080");
    assert_string_equal(json_string_value(json_array_get(sctlr, 1)), "0x30d01805");
    assert_int_equal(json_array_size(json_object_get(root, "devices")), 3);
    assert_int_equal(json_array_size(json_object_get(root, "listeners")), 2);
    json_decref(root);
}

static void our_own_file_tells_its_builds_and_note(void **state)
{
    (void)state;
    json_t *root = inspect("x86_64-4cpu");
    assert_string_equal(string_of(root, "architecture"), "x86_64");
    assert_string_equal(string_of(root, "note"), "caf\xc3\xa9, warm");
    assert_int_equal(strspn(string_of(json_object_get(root, "build"), "agent"), "2"), 64);
    assert_true(json_is_true(json_object_get(root, "metadata_checksum")));
    json_decref(root);
    root = inspect("x86_64-roles");
    json_t *vsock = json_array_get(json_object_get(root, "devices"), 2);
    assert_string_equal(string_of(vsock, "role"), "vsock");
    json_decref(root);
}

static void damage_is_found_by_verify(void **state)
{
    (void)state;
    const uint64_t bytes = 1 << 20;
    uint8_t *ram = make_ram(bytes, 3);
    struct sm_snapshot *s = make_snapshot(bytes, true);
    char *path = make_file(dir, "own", "", 0);
    struct sm_snapshot_write_options o = {.ram_sums = true, .no_sync = true};
    assert_int_equal(sm_snapshot_save_plain(path, s, ram, &o, NULL, &err), 0);
    assert_int_equal(sm_snapshot_verify(path, &err), 0);
    size_t len;
    uint8_t *file = slurp(path, &len);
    file[len - 1] ^= 1; /* RAM */
    free(path);
    path = make_file(dir, "damaged", file, len);
    assert_int_equal(sm_snapshot_verify(path, &err), -SM_ECORRUPT);
    free(path);
    path = make_file(dir, "cut", file, len / 2);
    assert_int_equal(sm_snapshot_verify(path, &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "truncated"));
    char *text = NULL;
    assert_int_equal(sm_snapshot_inspect(path, &text, &err), -SM_ECORRUPT);
    assert_null(text);
    free(path);
    free(file);
    sm_snapshot_free(s);
    munmap(ram, bytes);
}

static int set_up(void **state)
{
    (void)state;
    dir = make_dir();
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    remove_dir(dir);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_foreign_file_is_shown_whole),
        cmocka_unit_test(our_own_file_tells_its_builds_and_note),
        cmocka_unit_test(damage_is_found_by_verify),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
