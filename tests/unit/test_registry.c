/* Parts of the registry client that need no network: challenges, tokens, credentials. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "oci/credentials.h"
#include "oci/http_auth.h"
#include "oci/http_url.h"
#include "util/bytes.h"

static char dir[64];

static int set_up(void **state)
{
    strcpy(dir, "/tmp/test_registry.XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    unsetenv("REGISTRY_AUTH_FILE");
    unsetenv("XDG_RUNTIME_DIR");
    unsetenv("XDG_CONFIG_HOME");
    unsetenv("DOCKER_CONFIG");
    return setenv("HOME", dir, 1);
}

static int tear_down(void **state)
{
    char command[128];
    snprintf(command, sizeof(command), "rm -rf '%s'", dir);
    return system(command);
}

static void challenges(void **state)
{
    struct sm_challenge c = {0};
    assert_true(sm_challenge_parse(&c,
        "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\","
        "scope=\"repository:library/alpine:pull,push\""));
    assert_true(c.bearer);
    assert_string_equal(c.realm, "https://auth.docker.io/token");
    assert_string_equal(c.service, "registry.docker.io");
    assert_string_equal(c.scope, "repository:library/alpine:pull,push");
    c = (struct sm_challenge){0};
    assert_true(sm_challenge_parse(&c, "bearer Realm=https://x/y , error=\"a\\\"b\""));
    assert_string_equal(c.realm, "https://x/y");
    c = (struct sm_challenge){0};
    assert_true(sm_challenge_parse(&c, "Basic realm=\"x\""));
    assert_true(c.basic && !c.bearer);
    static const char *const bad[] = {"", "Bearer", "Bearer ", "Bearer service=\"x\"",
        "Bearer realm=\"x", "Bearer realm", "Bearer realm=", "Negotiate", "Bearer =x", "Basically"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        c = (struct sm_challenge){0};
        assert_false(sm_challenge_parse(&c, bad[i]));
        assert_false(c.bearer || c.basic);
    }
    char text[4096];
    int n = snprintf(text, sizeof(text), "Bearer realm=\"");
    memset(text + n, 'r', 600);
    strcpy(text + n + 600, "\"");
    assert_false(sm_challenge_parse(&c, text));
}

static int token(const char *text, char **out)
{
    *out = NULL;
    return sm_token_parse(text, strlen(text), out, NULL);
}

static void tokens(void **state)
{
    char *t;
    assert_int_equal(token("{\"token\": \"abc.def\"}", &t), 0);
    assert_string_equal(t, "abc.def");
    free(t);
    assert_int_equal(token("{\"access_token\": \"x\", \"expires_in\": 300}", &t), 0);
    free(t);
    assert_int_equal(token("{}", &t), -SM_EPROTOCOL);
    assert_int_equal(token("{\"token\": \"\"}", &t), -SM_EPROTOCOL);
    assert_int_equal(token("{\"token\": \"a\\r\\nHost: evil\"}", &t), -SM_EPROTOCOL);
    assert_int_equal(token("<html>", &t), -SM_ECORRUPT);
}

static void put(const char *name, const char *text)
{
    char path[256];
    snprintf(path, sizeof(path), "mkdir -p \"$(dirname %s/%s)\"", dir, name);
    assert_int_equal(system(path), 0);
    snprintf(path, sizeof(path), "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static void expect(const char *host, const char *repository, const char *user, const char *password)
{
    struct sm_credentials c;
    sm_error err = {0};
    if (sm_credentials_find(host, repository, NULL, &c, &err) != 0)
        fail_msg("%s", err.message);
    if (user) {
        assert_non_null(c.user);
        assert_string_equal(c.user, user);
        assert_string_equal(c.password, password);
    } else {
        assert_null(c.user);
    }
    sm_credentials_clear(&c);
}

static void files_and_their_order(void **state)
{
    expect("quay.io", "a/b", NULL, NULL);
    put(".docker/config.json",
        "{\"auths\": {\"https://index.docker.io/v1/\": {\"auth\": \"ZG9ja2VyOnBh\"},"
        "\"https://quay.io\": {\"auth\": \"b2xkOm9sZA==\"}, \"ghcr.io\": {}}}");
    expect("docker.io", "library/alpine", "docker", "pa");
    expect("quay.io", "a/b", "old", "old");
    expect("ghcr.io", "x", NULL, NULL);
    expect("evil-quay.io", "a/b", NULL, NULL);
    put(".config/containers/auth.json", "{\"auths\": {\"quay.io\": {\"auth\": \"aG9zdDpwOnc=\"},"
                                        "\"quay.io/a\": {\"auth\": \"bnM6cHc=\"}}}");
    expect("quay.io", "a/b", "ns", "pw");
    expect("quay.io", "other/b", "host", "p:w");
    expect("docker.io", "library/alpine", "docker", "pa");
}

static void broken_files_are_errors(void **state)
{
    static const char *const bad[] = {"{", "[]", "{\"auths\": {\"h\": {\"auth\": \"!!!!\"}}}",
        "{\"auths\": {\"h\": {\"auth\": \"YWJj\"}}}", "{\"credHelpers\": {\"h\": \"../x\"}}"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        put(".config/containers/auth.json", bad[i]);
        struct sm_credentials c;
        sm_error err = {0};
        assert_true(sm_credentials_find("h", "x", NULL, &c, &err) < 0);
        assert_non_null(strstr(err.message, "auth.json"));
    }
}

static void stored_and_erased(void **state)
{
    char path[128];
    struct stat st;
    put(".config/containers/auth.json",
        "{\"auths\": {\"a.io\": {\"auth\": \"YTpi\"}}, \"more\": 1}");
    assert_int_equal(sm_credentials_store("localhost:5000", "user", "ge:heim", NULL, NULL), 0);
    snprintf(path, sizeof(path), "%s/.config/containers/auth.json", dir);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    expect("localhost:5000", "x", "user", "ge:heim");
    expect("a.io", "x", "a", "b");
    assert_int_equal(sm_credentials_erase("localhost:5000", NULL, NULL), 0);
    assert_int_equal(sm_credentials_erase("localhost:5000", NULL, NULL), -SM_ENOTFOUND);
    expect("localhost:5000", "x", NULL, NULL);
    expect("a.io", "x", "a", "b");
}

/* Plain HTTP and no proxy are for this machine only, so what only looks like it must not be taken for it. */
static void this_machine(void **state)
{
    static const char *const local[] = {
        "localhost", "LOCALHOST:5000", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:5000"};
    static const char *const other[] = {"", "localhost.example.com", "127.example.com",
        "127.0.0.1.example.com:5000", "128.0.0.1", "[::1:1]", "[::11]:5000", "10.127.0.1",
        "127.0.0.1.127.0.0.1.127.0.0.1"};
    char url[128];
    for (size_t i = 0; i < sizeof(local) / sizeof(local[0]); i++) {
        assert_true(sm_host_is_local(local[i]));
        snprintf(url, sizeof(url), "http://%s/v2/x", local[i]);
        assert_true(sm_url_is_local(url));
    }
    for (size_t i = 0; i < sizeof(other) / sizeof(other[0]); i++) {
        assert_false(sm_host_is_local(other[i]));
        snprintf(url, sizeof(url), "http://%s/v2/x", other[i]);
        assert_false(sm_url_is_local(url));
    }
    assert_false(sm_url_is_local("http://localhost@example.com/"));
    assert_false(sm_url_is_local("http://example.com/?localhost"));
}

static int nearness_of(const char *ip)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, ip, &v4.sin_addr) == 1)
        return sm_address_nearness((struct sockaddr *)&v4);
    assert_int_equal(inet_pton(AF_INET6, ip, &v6.sin6_addr), 1);
    return sm_address_nearness((struct sockaddr *)&v6);
}

static void nearness(void **state)
{
    static const char *const far[] = {"8.8.8.8", "172.32.0.1", "172.15.255.255", "100.128.0.1",
        "11.0.0.1", "192.167.0.1", "169.253.1.1", "2001:db8::1", "::ffff:8.8.8.8", "64:ff9b::1"};
    static const char *const private[] = {"10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.9.9",
        "100.64.0.1", "100.127.255.255", "fd00::1", "fc12::1", "::ffff:10.0.0.1"};
    static const char *const here[] = {"127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3",
        "169.254.169.254", "::1", "::", "fe80::1", "::ffff:127.0.0.1"};
    for (size_t i = 0; i < SM_ARRAY_LEN(far); i++)
        assert_int_equal(nearness_of(far[i]), 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(private); i++)
        assert_int_equal(nearness_of(private[i]), 1);
    for (size_t i = 0; i < SM_ARRAY_LEN(here); i++)
        assert_int_equal(nearness_of(here[i]), 2);
}

static void origins(void **state)
{
    static const struct {
        const char *a, *b;
        int same;
    } pairs[] = {
        {"https://r.io/v2/x", "https://r.io:443/other?x=1", 1},
        {"https://r.io/v2/x", "http://r.io/v2/x", 0},
        {"https://r.io/v2/x", "https://r.io:8443/v2/x", 0},
        {"https://r.io/v2/x", "https://r.io.evil.com/v2/x", 0},
        {"https://r.io/v2/x", "https://r.io@evil.com/v2/x", 0},
    };
    for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++) {
        char *a = sm_url_origin(pairs[i].a), *b = sm_url_origin(pairs[i].b);
        assert_non_null(a);
        assert_non_null(b);
        assert_int_equal(strcmp(a, b) == 0, pairs[i].same);
        free(a);
        free(b);
    }
    assert_null(sm_url_origin("https://"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(challenges),
        cmocka_unit_test(tokens),
        cmocka_unit_test(files_and_their_order),
        cmocka_unit_test(broken_files_are_errors),
        cmocka_unit_test(stored_and_erased),
        cmocka_unit_test(this_machine),
        cmocka_unit_test(nearness),
        cmocka_unit_test(origins),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
