/* Parts of the registry client that need no network: challenges, tokens, credentials. And whom a
 * registry may send us to. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "builder/credentials.h"
#include "builder/http.h"
#include "builder/http_auth.h"
#include "builder/http_url.h"
#include "own_network.h"
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

/* Plain HTTP and no proxy are for this machine only, so what only looks like it must not be taken
 * for it. */
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

static void nearness(void **state)
{
    static const char *const far[] = {"8.8.8.8", "172.32.0.1", "172.15.255.255", "100.128.0.1",
        "11.0.0.1", "192.167.0.1", "169.253.1.1", "2001:db8::1", "::ffff:8.8.8.8", "64:ff9b::1"};
    static const char *const private[] = {"10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.9.9",
        "100.64.0.1", "100.127.255.255", "fd00::1", "fc12::1", "::ffff:10.0.0.1"};
    static const char *const here[] = {"127.0.0.1", "127.255.0.1", "0.0.0.0", "0.1.2.3",
        "169.254.169.254", "::1", "::", "fe80::1", "::ffff:127.0.0.1"};
    for (size_t i = 0; i < SM_ARRAY_LEN(far); i++)
        assert_int_equal(sm_ip_nearness(far[i]), 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(private); i++)
        assert_int_equal(sm_ip_nearness(private[i]), 1);
    for (size_t i = 0; i < SM_ARRAY_LEN(here); i++)
        assert_int_equal(sm_ip_nearness(here[i]), SM_NEAREST);
    assert_int_equal(sm_ip_nearness(""), 0);
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

/* ---- a registry that is elsewhere ------------------------------------------------------------ */

#define ELSEWHERE "192.0.2.1"

/* What the names of the tests resolve to, in this order. Of far.test's two nobody listens at the
 * first. */
static const struct {
    const char *name, *ip;
} addresses[] = {{"far.test", "127.0.0.1"}, {"far.test", ELSEWHERE}, {"near.test", "127.0.0.1"}};

/* Instead of the C library's, for libcurl. */
__attribute__((visibility("default"))) int getaddrinfo(
    const char *name, const char *port, const struct addrinfo *hints, struct addrinfo **out)
{
    struct entry {
        struct addrinfo info;
        struct sockaddr_in address;
    };
    struct addrinfo **end = out;
    *out = NULL;
    for (size_t i = 0; i < SM_ARRAY_LEN(addresses); i++) {
        if (strcmp(name, addresses[i].name) != 0)
            continue;
        struct entry *e = calloc(1, sizeof(*e));
        e->address.sin_family = AF_INET;
        e->address.sin_port = htons((uint16_t)atoi(port));
        inet_pton(AF_INET, addresses[i].ip, &e->address.sin_addr);
        e->info = (struct addrinfo){.ai_family = AF_INET,
            .ai_socktype = SOCK_STREAM,
            .ai_addr = (struct sockaddr *)&e->address,
            .ai_addrlen = sizeof(e->address)};
        *end = &e->info;
        end = &e->info.ai_next;
    }
    return *out ? 0 : EAI_NONAME;
}

__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *list)
{
    while (list) {
        struct addrinfo *next = list->ai_next;
        free(list);
        list = next;
    }
}

/* One server at two addresses; a registry sends to the one that is here. */
static struct {
    int far, near;
    uint16_t far_port, near_port;
    _Atomic unsigned visits; /* of the place that is no registry */
} server;

static int listen_at(const char *ip, uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof(address);
    inet_pton(AF_INET, ip, &address.sin_addr);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fd, (struct sockaddr *)&address, size) || listen(fd, 8) ||
        getsockname(fd, (struct sockaddr *)&address, &size)) {
        close(fd);
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

static void answer(int fd)
{
    char request[2048], text[512];
    ssize_t n = recv(fd, request, sizeof(request) - 1, 0);
    if (n <= 0 || *request != 'G') /* it does not speak TLS */
        return;
    request[n] = '\0';
    int len;
    if (strncmp(request, "GET /v2/r/moved ", 16) == 0) {
        len = snprintf(text, sizeof(text),
            "HTTP/1.1 302 Found\r\nLocation: http://near.test:%u/x\r\n"
            "Content-Length: 0\r\n\r\n",
            server.near_port);
    } else if (strncmp(request, "GET /v2/r/private ", 18) == 0 &&
               !strstr(request, "Authorization:")) {
        len = snprintf(text, sizeof(text),
            "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer "
            "realm=\"http://near.test:%u/token\"\r\nContent-Length: 0\r\n\r\n",
            server.near_port);
    } else {
        server.visits += strncmp(request, "GET /v2/", 8) != 0;
        len = snprintf(
            text, sizeof(text), "HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"token\":\"t\"}");
    }
    (void)!send(fd, text, (size_t)len, MSG_NOSIGNAL);
}

static void *serve(void *arg)
{
    struct pollfd fds[] = {
        {.fd = server.far, .events = POLLIN}, {.fd = server.near, .events = POLLIN}};
    while (poll(fds, 2, -1) >= 0 && !((fds[0].revents | fds[1].revents) & ~POLLIN)) {
        for (size_t i = 0; i < 2; i++) {
            int fd = fds[i].revents & POLLIN ? accept(fds[i].fd, NULL, NULL) : -1;
            if (fd >= 0) {
                answer(fd);
                close(fd);
            }
        }
    }
    return NULL;
}

static int ignore(void *arg, const void *data, size_t size, sm_error *err)
{
    return 0;
}

static int get(const char *name, uint16_t port, const char *path, sm_error *err)
{
    char host[64];
    snprintf(host, sizeof(host), "%s:%u", name, port);
    struct sm_http *http;
    assert_int_equal(
        sm_http_new(
            &(struct sm_http_options){.host = host, .repository = "r", .fetch.insecure = true},
            &http, err),
        0);
    struct sm_http_get what = {.what = "it", .path = path, .accept = "*/*", .sink = ignore};
    int rc = sm_http_get(http, &what, err);
    sm_http_free(http);
    return rc;
}

/* It is where an answer came from, whatever else its name resolves to. */
static void a_registry_elsewhere_sends_to_no_nearer_place(void **state)
{
    static const char *const paths[] = {"moved", "private"};
    pthread_t thread;
    sm_error err;
    if (!enter_own_network() || system("ip address add " ELSEWHERE "/32 dev lo") != 0)
        skip();
    server.far = listen_at(ELSEWHERE, &server.far_port);
    server.near = listen_at("127.0.0.1", &server.near_port);
    assert_true(server.far >= 0 && server.near >= 0);
    assert_int_equal(pthread_create(&thread, NULL, serve, NULL), 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(paths); i++) {
        server.visits = 0;
        assert_int_not_equal(get("far.test", server.far_port, paths[i], &err), 0);
        if (!strstr(err.message, "nearer to this machine than itself"))
            fail_msg("%s", err.message);
        assert_int_equal(server.visits, 0);
        if (get("near.test", server.near_port, paths[i], &err) != 0)
            fail_msg("%s", err.message);
        assert_int_equal(server.visits, 1);
    }
    shutdown(server.far, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(server.far);
    close(server.near);
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
        cmocka_unit_test(a_registry_elsewhere_sends_to_no_nearer_place),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
