/*
 * A hostile registry, below libcurl: each connection gets the next piece of the input as all that
 * the server says. That a token goes to the registry alone is checked on what was sent.
 */
#include <curl/curl.h>
#include <sys/socket.h>
#include <time.h>

#include "fuzz.h"
#include "builder/http.h"
#include "util/error.h"

#define HOST  "localhost:5000"
#define SPLIT '\xff' /* what stands between two connections */
#define TURNS 12

static struct {
    struct fuzz_input in;
    unsigned turn;
} server;

CURLcode __real_curl_easy_perform(CURL *curl);
CURLcode __wrap_curl_easy_perform(CURL *curl);
int __wrap_nanosleep(const struct timespec *time, struct timespec *left);

/* Attempts wait for each other. */
int __wrap_nanosleep(const struct timespec *time, struct timespec *left)
{
    return 0;
}

static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    int *ends = arg;
    return ends[0];
}

/* libcurl's: the socket that it got is connected. */
__attribute__((visibility("default"))) int connect(int fd, __CONST_SOCKADDR_ARG to, socklen_t size)
{
    return 0;
}

static int close_socket(void *arg, curl_socket_t fd)
{
    return 0; /* what was sent is still to be read */
}

static bool has_line(const char *request, const char *line)
{
    const char *at = strcasestr(request, line);
    return at && strncmp(at + strlen(line), "\r\n", 2) == 0;
}

static void look_at_request(const char *request)
{
    if (strcasestr(request, "\r\nAuthorization: Bearer "))
        fuzz_demand(has_line(request, "\r\nHost: " HOST));
}

CURLcode __wrap_curl_easy_perform(CURL *curl)
{
    static char request[1 << 16];
    int ends[2];
    char *url = NULL;
    curl_easy_getinfo(curl, CURLINFO_EFFECTIVE_URL, &url);
    if (server.turn++ >= TURNS || !url || strncasecmp(url, "https:", 6) == 0)
        return server.turn > TURNS ? CURLE_COULDNT_CONNECT : CURLE_SSL_CONNECT_ERROR;
    const uint8_t *stop = memchr(server.in.data, (uint8_t)SPLIT, server.in.left);
    size_t n = stop ? (size_t)(stop - server.in.data) : server.in.left;
    const uint8_t *answer = fuzz_bytes(&server.in, &n);
    if (stop)
        (void)fuzz_take(&server.in, 1);
    fuzz_demand(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0);
    (void)!send(ends[1], answer, n, MSG_NOSIGNAL);
    shutdown(ends[1], SHUT_WR);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(curl, CURLOPT_OPENSOCKETDATA, ends);
    curl_easy_setopt(curl, CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    curl_easy_setopt(curl, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(curl, CURLOPT_FORBID_REUSE, 1L);
    struct curl_slist *to = curl_slist_append(NULL, "::127.0.0.1:1"); /* no name is looked up */
    curl_easy_setopt(curl, CURLOPT_CONNECT_TO, to);
    CURLcode rc = __real_curl_easy_perform(curl);
    curl_easy_setopt(curl, CURLOPT_CONNECT_TO, NULL);
    curl_slist_free_all(to);
    ssize_t got = recv(ends[1], request, sizeof(request) - 1, 0);
    if (got > 0) {
        request[got] = '\0';
        look_at_request(request);
    }
    close(ends[0]);
    close(ends[1]);
    return rc;
}

struct body {
    uint64_t at;
    uint64_t most;
};

static int take(void *arg, const void *data, size_t size, sm_error *err)
{
    struct body *b = arg;
    b->at += size;
    return b->at > b->most ? sm_error_set(err, SM_ELIMIT, "too long") : 0;
}

/* Input: kind of request and of login, then the answers. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static bool ready;
    if (!ready)
        fuzz_demand(curl_global_init(CURL_GLOBAL_DEFAULT) == CURLE_OK);
    ready = true;
    struct fuzz_input in = {data, size};
    uint64_t kind = fuzz_take(&in, 1);
    const struct sm_http_options options = {.host = HOST,
        .repository = "library/alpine",
        .user = kind & 1 ? "user" : NULL,
        .password = kind & 1 ? "secret" : NULL,
        .identity_token = kind & 2 ? "identity" : NULL,
        .fetch.insecure = kind & 4};
    struct body body = {.at = (kind >> 4) * 7, .most = 4000};
    struct sm_http_get get = {.what = "a blob",
        .path = "blobs/x",
        .accept = kind & 8 ? "application/json" : NULL,
        .from = kind & 8 ? 0 : body.at,
        .sink = take,
        .arg = &body};
    struct sm_http *http;
    sm_error err = {.code = SM_OK};
    fuzz_demand(sm_http_new(&options, &http, NULL) == 0);
    server.in = in;
    server.turn = 0;
    int rc = sm_http_get(http, &get, &err);
    fuzz_demand(rc <= 0 && (rc == 0 || *err.message));
    if (!(kind & 8) && rc == 0)
        fuzz_demand(get.from == body.at);
    sm_http_free(http);
    return 0;
}
