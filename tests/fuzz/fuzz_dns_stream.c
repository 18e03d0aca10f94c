/*
 * Questions over TCP, from a guest and to a resolver that keep to no rules: what either sends comes
 * in the pieces that the input says, and so does its end. What the guest gets are messages with
 * their length in front, each the answer to one question.
 */
#include <fcntl.h>
#include <sys/socket.h>

#include "fuzz.h"
#include "net/dns_stream.h"
#include "util/bytes.h"

#define MAX_RESOLVERS 64
#define MAX_STEPS     200

static struct {
    int fds[MAX_RESOLVERS]; /* their ends of connections; -1: closed */
    unsigned n;
} resolvers;

struct world {
    struct sm_loop *loop;
    struct sm_egress egress;
    struct sm_dns_proxy *proxy;
    struct sm_dns_stream *stream;
    int guest;                 /* -1: it has gone */
    size_t sent;               /* bytes */
    size_t answers, got, left; /* of the answers; of the length in front of one, of its rest */
    uint8_t length[SM_DNS_LENGTH];
};

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len);

/* The resolver is a pair of sockets of which the target has the other end. */
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t len)
{
    int pair[2];
    (void)address, (void)len;
    if (resolvers.n == MAX_RESOLVERS)
        return -1;
    fuzz_demand(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    fuzz_demand(dup3(pair[0], fd, O_CLOEXEC) == fd);
    close(pair[0]);
    resolvers.fds[resolvers.n++] = pair[1];
    return 0;
}

static void on_answer(void *arg, const struct sm_dns_client *client, const uint8_t *msg, size_t len)
{
    struct world *w = arg;
    fuzz_demand(client->stream == sm_dns_stream_id(w->stream));
    fuzz_demand(sm_dns_stream_is_open(w->stream));
    sm_dns_stream_answer(w->stream, msg, len);
}

static void open_world(struct world *w, bool closed)
{
    static const char text[] = "layer none\nallow a\n";
    int pair[2];
    auto_policy policy = {0};
    if (closed)
        fuzz_demand(sm_policy_parse(text, sizeof(text) - 1, &policy, NULL) == 0);
    sm_egress_init(&w->egress, &policy, true, NULL, NULL);
    fuzz_demand(sm_loop_create(&w->loop, NULL) == 0);
    fuzz_demand(
        sm_dns_proxy_create(w->loop, &w->egress, "/dev/null", on_answer, w, &w->proxy, NULL) == 0);
    fuzz_demand(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair) == 0);
    w->guest = pair[0];
    w->stream = sm_dns_stream_create(w->loop, w->proxy, pair[1], 7);
    fuzz_demand(w->stream);
    resolvers.n = 0;
}

static void close_world(struct world *w)
{
    sm_dns_stream_destroy(w->stream);
    sm_dns_proxy_destroy(w->proxy);
    sm_egress_clear(&w->egress);
    sm_loop_destroy(w->loop);
    sm_close(w->guest);
    for (unsigned i = 0; i < resolvers.n; i++)
        sm_close(resolvers.fds[i]);
}

static void take_byte(struct world *w, uint8_t byte)
{
    if (w->left > 0) {
        w->left--;
        return;
    }
    w->length[w->got++] = byte;
    if (w->got < SM_DNS_LENGTH)
        return;
    w->got = 0;
    w->left = sm_load_be16(w->length);
    w->answers++;
    fuzz_demand(w->left >= SM_DNS_HEADER);
    /* The shortest question: the root's. */
    fuzz_demand(w->answers * (SM_DNS_LENGTH + SM_DNS_HEADER + 5) <= w->sent);
}

static void guest_reads(struct world *w)
{
    uint8_t buf[4096];
    ssize_t n = recv(w->guest, buf, sizeof(buf), 0);
    for (ssize_t i = 0; i < n; i++)
        take_byte(w, buf[i]);
}

static void send_piece(int fd, struct fuzz_input *in, size_t *sent)
{
    size_t len = fuzz_take(in, 1);
    const uint8_t *data = fuzz_bytes(in, &len);
    ssize_t n = send(fd, data, len, MSG_NOSIGNAL);
    *sent += n > 0 ? (size_t)n : 0;
}

/* An answer to the question that came, with a byte or two of the input's in it. */
static void resolver_answers(int fd, struct fuzz_input *in)
{
    uint8_t msg[SM_DNS_LENGTH + SM_DNS_MAX_UDP];
    ssize_t n = recv(fd, msg, sizeof(msg), 0);
    if (n < SM_DNS_LENGTH + SM_DNS_HEADER)
        return;
    msg[SM_DNS_LENGTH + 2] |= 0x80;
    msg[SM_DNS_LENGTH + 3] = (uint8_t)fuzz_take(in, 1);
    msg[SM_DNS_LENGTH + 7] = (uint8_t)fuzz_take(in, 1);
    (void)!send(fd, msg, (size_t)n, MSG_NOSIGNAL);
}

static void step(struct world *w, struct fuzz_input *in)
{
    uint64_t kind = fuzz_take(in, 1);
    size_t sent = 0;
    int *resolver =
        resolvers.n ? &resolvers.fds[resolvers.n - 1 - (kind >> 4) % resolvers.n] : NULL;
    switch (kind % 8) {
    case 0:
        shutdown(w->guest, SHUT_WR);
        break;
    case 1:
        guest_reads(w);
        break;
    case 2:
    case 3:
        if (resolver && *resolver >= 0)
            resolver_answers(*resolver, in);
        break;
    case 4:
        if (resolver && *resolver >= 0)
            send_piece(*resolver, in, &sent);
        break;
    case 5:
        if (resolver) {
            sm_close(*resolver);
            *resolver = -1;
        }
        break;
    default:
        send_piece(w->guest, in, &w->sent);
    }
    sm_loop_turn(w->loop);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct world w = {.guest = -1};
    int before = fuzz_next_fd();
    open_world(&w, fuzz_take(&in, 1) & 1);
    for (unsigned i = 0; in.left > 0 && i < MAX_STEPS; i++)
        step(&w, &in);
    guest_reads(&w);
    close_world(&w);
    fuzz_demand(fuzz_next_fd() == before);
    return 0;
}
