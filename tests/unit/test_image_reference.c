/* References as users write them: what each means, written out in full; what is refused. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "image/reference.h"
#include "util/bytes.h"

#define HEX64 "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void good_references(void **state)
{
    static const struct {
        const char *text;
        enum sm_ref_kind kind;
        const char *full;
    } cases[] = {
        {"oci:/a/b", SM_REF_OCI_DIR, "oci:/a/b"},
        {"oci:demo:latest", SM_REF_OCI_DIR, "oci:demo:latest"},
        {"oci:demo:docker.io/library/a:1", SM_REF_OCI_DIR, "oci:demo:docker.io/library/a:1"},
        {"oci-archive:x.tar", SM_REF_OCI_ARCHIVE, "oci-archive:x.tar"},
        {"docker-archive:x.tar:a:1", SM_REF_DOCKER_ARCHIVE, "docker-archive:x.tar:a:1"},
        {"docker-archive:x.tar:@0", SM_REF_DOCKER_ARCHIVE, "docker-archive:x.tar:@0"},
        {"sha256:" HEX64, SM_REF_DIGEST, "sha256:" HEX64},
        {HEX64, SM_REF_DIGEST, "sha256:" HEX64},
        {"sha256:0123", SM_REF_DIGEST, "sha256:0123"},
        {"alpine", SM_REF_REGISTRY, "docker.io/library/alpine:latest"},
        {"alpine:3.19", SM_REF_REGISTRY, "docker.io/library/alpine:3.19"},
        {"user/app", SM_REF_REGISTRY, "docker.io/user/app:latest"},
        {"docker://alpine", SM_REF_REGISTRY, "docker.io/library/alpine:latest"},
        {"docker.io/alpine", SM_REF_REGISTRY, "docker.io/library/alpine:latest"},
        {"index.docker.io/alpine", SM_REF_REGISTRY, "docker.io/library/alpine:latest"},
        {"quay.io/a/b/c:t_a.g-1", SM_REF_REGISTRY, "quay.io/a/b/c:t_a.g-1"},
        {"localhost/app", SM_REF_REGISTRY, "localhost/app:latest"},
        {"localhost:5000/app:1", SM_REF_REGISTRY, "localhost:5000/app:1"},
        {"[::1]:5000/app", SM_REF_REGISTRY, "[::1]:5000/app:latest"},
        {"[2001:db8::1]/app", SM_REF_REGISTRY, "[2001:db8::1]/app:latest"},
        {"HOST/app", SM_REF_REGISTRY, "HOST/app:latest"},
        {"a.b/x__y--z.w", SM_REF_REGISTRY, "a.b/x__y--z.w:latest"},
        {"alpine@sha256:" HEX64, SM_REF_REGISTRY, "docker.io/library/alpine@sha256:" HEX64},
        {"alpine:1@sha256:" HEX64, SM_REF_REGISTRY, "docker.io/library/alpine:1@sha256:" HEX64},
        {"cafe", SM_REF_REGISTRY, "docker.io/library/cafe:latest"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        auto_reference ref = NULL;
        sm_error err = {0};
        if (sm_reference_parse(cases[i].text, &ref, &err) != 0)
            fail_msg("%s: %s", cases[i].text, err.message);
        auto_free char *full = sm_reference_format(ref);
        assert_string_equal(full, cases[i].full);
        assert_int_equal(ref->kind, cases[i].kind);
        if (ref->kind == SM_REF_REGISTRY && !strstr(cases[i].text, "docker://")) {
            auto_reference again = NULL;
            assert_int_equal(sm_reference_parse(full, &again, &err), 0);
            auto_free char *twice = sm_reference_format(again);
            assert_string_equal(twice, full);
        }
    }
}

static void bad_references(void **state)
{
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "empty"},
        {"oci:", "names no path"},
        {"oci::x", "names no path"},
        {"oci:dir:", "ends with ':'"},
        {"https://quay.io/a", "leave out https://"},
        {"Alpine", "lower case"},
        {"quay.io/A/b", "lower case"},
        {"a//b", "not a valid image name"},
        {"a/", "not a valid image name"},
        {"/a", "not a valid"},
        {"a_-b", "not a valid image name"},
        {"a___b", "not a valid image name"},
        {"a:", "not a valid tag"},
        {"a:-x", "not a valid tag"},
        {"a:x y", "not a valid tag"},
        {"a@sha256:12", "a digest is"},
        {"a@sha512:" HEX64 HEX64, "a digest is"},
        {"host:99999/a", "not a valid registry host"},
        {"host:/a", "not a valid registry host"},
        {"-host.x/a", "not a valid registry host"},
        {"a..b/c", "not a valid registry host"},
        {"[::g]/a", "not a valid registry host"},
        {"a\nb", "control character"},
        {"../../etc/passwd", "not a valid"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        auto_reference ref = NULL;
        sm_error err = {0};
        assert_int_equal(sm_reference_parse(cases[i].text, &ref, &err), -SM_EINVAL);
        assert_null(ref);
        if (!strstr(err.message, cases[i].says))
            fail_msg("\"%s\" gave: %s", cases[i].text, err.message);
    }
    char text[8192];
    memset(text, 'a', sizeof(text));
    text[256] = '\0';
    auto_reference ref = NULL;
    assert_int_equal(sm_reference_parse(text, &ref, NULL), -SM_EINVAL);
    text[256] = 'a';
    text[sizeof(text) - 1] = '\0';
    assert_int_equal(sm_reference_parse(text, &ref, NULL), -SM_EINVAL);
    char tag[160] = "a:";
    memset(tag + 2, 'b', 129);
    assert_int_equal(sm_reference_parse(tag, &ref, NULL), -SM_EINVAL);
    tag[2 + 128] = '\0';
    assert_int_equal(sm_reference_parse(tag, &ref, NULL), 0);
}

static void platforms(void **state)
{
    struct sm_platform p;
    char text[SM_PLATFORM_TEXT];
    assert_int_equal(sm_platform_parse("linux/arm64/v8", &p, NULL), 0);
    sm_platform_format(&p, text);
    assert_string_equal(text, "linux/arm64/v8");
    assert_int_equal(sm_platform_parse("linux/amd64", &p, NULL), 0);
    assert_string_equal(p.variant, "");
    static const char *const bad[] = {"", "linux", "linux/", "/amd64", "linux/amd64/",
        "linux/a/b/c", "linux/AMD64", "linux/../x", "linuxlinuxlinuxlinux/a"};
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        assert_int_equal(sm_platform_parse(bad[i], &p, NULL), -SM_EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_references),
        cmocka_unit_test(bad_references),
        cmocka_unit_test(platforms),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
