/*
 * A registry elsewhere names places for us to go to, as names: where they lead to is seen when the
 * connection is made. Names and addresses are this test's (getaddrinfo, connect and getpeername are
 * answered here), all else is the client as it is: every address leads to one server on the
 * loopback.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <netdb.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "builder/http.h"
#include "util/bytes.h"

static const struct {
    const char *name, *address;
} names[] = {
    {"registry.test", "203.0.113.1"},
    {"other.test", "198.51.100.1"},
    {"private.test", "10.1.2.3"},
    {"here.test", "127.0.0.1"},
    {"metadata.test", "169.254.169.254"},
    {"intranet.test", "10.9.9.9"},
};

static int server_fd;
static struct sockaddr_in server_at;
static atomic_uint served; /* requests for what a registry has named */

/* ---- the network ----------------------------------------------------------------------------- */

__attribute__((visibility("default"))) int getaddrinfo(
    const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out);
__attribute__((visibility("default"))) void freeaddrinfo(struct addrinfo *list);

struct answer {
    struct addrinfo info;
    struct sockaddr_in at;
};

int getaddrinfo(
    const char *name, const char *service, const struct addrinfo *hints, struct addrinfo **out)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++) {
        if (strcmp(name, names[i].name) != 0)
            continue;
        struct answer *a = calloc(1, sizeof(*a));
        a->at.sin_family = AF_INET;
        a->at.sin_port = htons((uint16_t)(service ? atoi(service) : 0));
        inet_pton(AF_INET, names[i].address, &a->at.sin_addr);
        a->info = (struct addrinfo){.ai_family = AF_INET,
            .ai_socktype = SOCK_STREAM,
            .ai_protocol = IPPROTO_TCP,
            .ai_addrlen = sizeof(a->at),
            .ai_addr = (struct sockaddr *)&a->at};
        *out = &a->info;
        return 0;
    }
    return EAI_NONAME;
}

void freeaddrinfo(struct addrinfo *list)
{
    free(list); /* the first of a struct answer */
}

static struct sockaddr_in asked_for[64]; /* by descriptor */

__attribute__((visibility("default"))) int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t size)
{
    assert_true((size_t)fd < SM_ARRAY_LEN(asked_for) && size == sizeof(asked_for[fd]));
    memcpy(&asked_for[fd], to.__sockaddr__, size);
    return (int)syscall(SYS_connect, fd, &server_at, sizeof(server_at));
}

__attribute__((visibility("default"))) int getpeername(int fd, __SOCKADDR_ARG at, socklen_t *size)
{
    assert_true((size_t)fd < SM_ARRAY_LEN(asked_for) && *size >= sizeof(asked_for[fd]));
    *size = sizeof(asked_for[fd]);
    memcpy(at.__sockaddr__, &asked_for[fd], *size);
    return 0;
}

/* ---- the server ------------------------------------------------------------------------------ */

static void say(int fd, const char *text)
{
    (void)!send(fd, text, strlen(text), MSG_NOSIGNAL);
}

/* "/v2/x/to/HOST" leads to HOST, "/v2/x/token/HOST" wants a token of it. */
static void answer(int fd, const char *request)
{
    char text[512], verb[8], host[64] = "", path[128] = "";
    if (sscanf(request, "%*7s %127s", path) != 1)
        return;
    const char *first = strstr(request, "Authorization: ");
    if (sscanf(path, "/v2/x/%7[a-z]/%63s", verb, host) == 2 && strcmp(verb, "to") == 0) {
        snprintf(text, sizeof(text),
            "HTTP/1.1 302 F\r\nLocation: http://%s/named\r\nContent-Length: 0\r\n\r\n", host);
    } else if (*host && !first) {
        snprintf(text, sizeof(text),
            "HTTP/1.1 401 U\r\nWWW-Authenticate: Bearer realm=\"http://%s/named\"\r\n"
            "Content-Length: 0\r\n\r\n",
            host);
    } else {
        const char *body = "{\"token\": \"t\"}";
        if (strncmp(path, "/named", 6) == 0)
            served++;
        snprintf(text, sizeof(text), "HTTP/1.1 200 K\r\nContent-Length: %zu\r\n\r\n%s",
            strlen(body), body);
    }
    say(fd, text);
}

static void *serve(void *arg)
{
    for (int fd; (fd = accept(server_fd, NULL, NULL)) >= 0; close(fd)) {
        char request[4096];
        size_t n = 0;
        ssize_t got;
        do {
            got = recv(fd, request + n, sizeof(request) - 1 - n, 0);
            n += got > 0 ? (size_t)got : 0;
            request[n] = '\0';
        } while (got > 0 && *request == 'G' && !strstr(request, "\r\n\r\n"));
        if (*request == 'G')
            answer(fd, request);
        else
            say(fd, "this is no TLS\n");
    }
    return NULL;
}

static pthread_t thread;

static int set_up(void **state)
{
    socklen_t len = sizeof(server_at);
    server_at =
        (struct sockaddr_in){.sin_family = AF_INET, .sin_addr = {.s_addr = htonl(INADDR_LOOPBACK)}};
    server_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (server_fd < 0 || bind(server_fd, (struct sockaddr *)&server_at, len) ||
        listen(server_fd, 16) || getsockname(server_fd, (struct sockaddr *)&server_at, &len))
        return -1;
    for (const char *const *name = (const char *const[]){"http_proxy", "https_proxy", "all_proxy",
             "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", NULL};
         *name; name++)
        unsetenv(*name);
    return pthread_create(&thread, NULL, serve, NULL);
}

static int tear_down(void **state)
{
    shutdown(server_fd, SHUT_RDWR);
    pthread_join(thread, NULL);
    return close(server_fd);
}

/* ---- the tests ------------------------------------------------------------------------------- */

static int drop(void *arg, const void *data, size_t size, sm_error *err)
{
    return 0;
}

/* Asks the registry for what is at `path`; refusal NULL: it is got, from the place that was
 * named. */
static void check(const char *registry, const char *path, const char *refusal)
{
    struct sm_http *http;
    sm_error err = {0};
    struct sm_http_get get = {.what = "it", .path = path, .accept = "*/*", .sink = drop};
    const struct sm_http_options options = {
        .host = registry, .repository = "x", .user = "u", .password = "p", .fetch.insecure = true};
    assert_int_equal(sm_http_new(&options, &http, &err), 0);
    unsigned before = served;
    int rc = sm_http_get(http, &get, &err);
    sm_http_free(http);
    if (!refusal && rc)
        fail_msg("%s of %s: %s", path, registry, err.message);
    if (refusal && (rc != -SM_EPROTOCOL || !strstr(err.message, refusal)))
        fail_msg("%s of %s: %d, %s", path, registry, rc, err.message);
    assert_int_equal(served - before, refusal ? 0 : 1);
}

static void a_name_may_lead_as_far_as_the_registry_is(void **state)
{
    check("registry.test", "to/other.test", NULL);
    check("registry.test", "token/other.test", NULL);
    check("intranet.test", "to/private.test", NULL);
    check("intranet.test", "token/private.test", NULL);
    check("intranet.test", "to/other.test", NULL);
}

static void a_name_may_not_lead_nearer(void **state)
{
    static const char *const nearer[] = {"private.test", "here.test", "metadata.test"};
    char path[64];
    for (size_t i = 0; i < SM_ARRAY_LEN(nearer); i++) {
        snprintf(path, sizeof(path), "to/%s", nearer[i]);
        check("registry.test", path, "redirects us to a place that is nearer");
        snprintf(path, sizeof(path), "token/%s", nearer[i]);
        check("registry.test", path, "sends us for a token to a place that is nearer");
    }
    check("intranet.test", "to/here.test", "redirects us to a place that is nearer");
    check("intranet.test", "token/metadata.test", "sends us for a token to a place that is nearer");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_name_may_lead_as_far_as_the_registry_is),
        cmocka_unit_test(a_name_may_not_lead_nearer),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
