/*
 * Both ends of bench/network, one static program that runs on hosts and in guests:
 *
 *     netpeer serve PORT                         serves connections, one after the other
 *     netpeer run LABEL ADDRESS PORT MIB ROUNDS  measures against a server, tells it the result:
 *
 * a stream to the server, a stream from it, round trips of one byte, and new connections with one
 * round trip. Both print "LABEL send_mbps recv_mbps rtt_us connect_us", so that a guest needs no
 * console; the clock is the client's.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define CHUNK 262144

enum { SINK = 's', SOURCE = 'g', ECHO = 'e', PRINT = 'p' };

static char buffer[CHUNK];

static _Noreturn void die(const char *what)
{
    fprintf(stderr, "netpeer: %s: %s\n", what, strerror(errno));
    exit(1);
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void send_all(int fd, const char *data, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, data, len);
        if (n <= 0)
            die("write");
        data += n;
        len -= (size_t)n;
    }
}

static void send_bytes(int fd, uint64_t bytes)
{
    while (bytes > 0) {
        size_t n = bytes < CHUNK ? (size_t)bytes : CHUNK;
        send_all(fd, buffer, n);
        bytes -= n;
    }
}

/* Reads to the end; returns how many bytes. */
static uint64_t drain(int fd)
{
    uint64_t sum = 0;
    ssize_t n;
    while ((n = read(fd, buffer, CHUNK)) > 0)
        sum += (uint64_t)n;
    if (n < 0)
        die("read");
    return sum;
}

static void no_delay(int fd)
{
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
}

/* ---- server -------------------------------------------------------------------------------- */

static void answer(int fd)
{
    struct {
        char what, pad[7];
        uint64_t bytes;
    } request;
    if (recv(fd, &request, sizeof(request), MSG_WAITALL) != sizeof(request))
        return;
    ssize_t n;
    switch (request.what) {
    case SINK:
        request.bytes = drain(fd);
        send_all(fd, (const char *)&request, sizeof(request));
        break;
    case SOURCE:
        send_bytes(fd, request.bytes);
        break;
    case ECHO:
        while ((n = read(fd, buffer, CHUNK)) > 0)
            send_all(fd, buffer, (size_t)n);
        break;
    default:
        n = recv(fd, buffer, CHUNK - 1, MSG_WAITALL);
        printf("%.*s\n", n > 0 ? (int)n : 0, buffer);
        fflush(stdout);
    }
}

static int serve(int port)
{
    struct sockaddr_in any = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    signal(SIGPIPE, SIG_IGN);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int));
    if (bind(fd, (struct sockaddr *)&any, sizeof(any)) || listen(fd, 16))
        die("listen");
    for (;;) {
        int peer = accept(fd, NULL, NULL);
        if (peer < 0)
            die("accept");
        no_delay(peer);
        answer(peer);
        close(peer);
    }
}

/* ---- client -------------------------------------------------------------------------------- */

static struct sockaddr_in server = {.sin_family = AF_INET};

static int ask(char what, uint64_t bytes)
{
    struct {
        char what, pad[7];
        uint64_t bytes;
    } request = {.what = what, .bytes = bytes};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)))
        die("connect");
    no_delay(fd);
    send_all(fd, (const char *)&request, sizeof(request));
    return fd;
}

static void round_trip(int fd)
{
    send_all(fd, buffer, 1);
    if (read(fd, buffer, 1) != 1)
        die("echo");
}

static double stream_out(uint64_t bytes)
{
    double begin = now();
    int fd = ask(SINK, 0);
    send_bytes(fd, bytes);
    shutdown(fd, SHUT_WR);
    uint64_t echo[2] = {0};
    if (recv(fd, echo, sizeof(echo), MSG_WAITALL) != sizeof(echo) || echo[1] != bytes)
        die("the server did not get everything");
    close(fd);
    return (double)bytes / (now() - begin) / 1e6;
}

static double stream_in(uint64_t bytes)
{
    double begin = now();
    int fd = ask(SOURCE, bytes);
    if (drain(fd) != bytes)
        die("the server did not send everything");
    close(fd);
    return (double)bytes / (now() - begin) / 1e6;
}

static double echo_us(int rounds)
{
    int fd = ask(ECHO, 0);
    round_trip(fd);
    double begin = now();
    for (int i = 0; i < rounds; i++)
        round_trip(fd);
    double seconds = now() - begin;
    close(fd);
    return seconds * 1e6 / rounds;
}

static double connect_us(int rounds)
{
    double begin = now();
    for (int i = 0; i < rounds; i++) {
        int fd = ask(ECHO, 0);
        round_trip(fd);
        close(fd);
    }
    return (now() - begin) * 1e6 / rounds;
}

static int measure(char **argv)
{
    server.sin_port = htons((uint16_t)atoi(argv[2]));
    if (inet_pton(AF_INET, argv[1], &server.sin_addr) != 1)
        die(argv[1]);
    uint64_t bytes = strtoull(argv[3], NULL, 10) << 20;
    double out = stream_out(bytes);
    double in = stream_in(bytes);
    int rounds = atoi(argv[4]);
    double echo = echo_us(rounds);
    double connects = connect_us(rounds / 10 + 1);
    char line[200];
    snprintf(line, sizeof(line), "%s %.3f %.3f %.1f %.1f", argv[0], out, in, echo, connects);
    printf("%s\n", line);
    int fd = ask(PRINT, 0);
    send_all(fd, line, strlen(line));
    close(fd);
    return 0;
}

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(atoi(argv[2]));
    if (argc == 7 && strcmp(argv[1], "run") == 0)
        return measure(argv + 2);
    fprintf(stderr, "usage: netpeer serve PORT | netpeer run LABEL ADDRESS PORT MIB ROUNDS\n");
    return 2;
}
