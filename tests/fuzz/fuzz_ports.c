/*
 * What leads into the guest, with a guest and clients that keep to no rules: the front door's
 * handshake, the agent's word of what listens, published ports, the streams of UDP sessions. The
 * guest answers, talks and hangs up as the input says; time passes when it says so.
 */
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"
#include "net/ports/found.h"
#include "ports_link.h"
#include "vsock_guest.h"
#include "wire/wire.h"

#define MAX_STREAMS 24
#define MAX_CLIENTS 8
#define MAX_STEPS   200

struct stream {
    uint32_t guest_port, host_port;
    bool answered;
};

struct world {
    struct vg g;
    struct sm_loop *loop;
    struct sm_virtio_env env;
    struct sm_vsock *vsock;
    struct ports_link link;
    struct sm_ports *ports;
    struct sm_listeners *listeners;
    struct sockaddr_in udp;
    struct stream streams[MAX_STREAMS];
    unsigned n_streams;                        /* that there ever were; the newest are known */
    int doors[MAX_CLIENTS], udps[MAX_CLIENTS]; /* -1: none */
};

/* ---- time ------------------------------------------------------------------------------------ */

#define MAX_TIMERS 16

static struct {
    uint64_t passed_ns;
    struct sm_loop_timer *armed[MAX_TIMERS];
} fake;

int __real_clock_gettime(clockid_t clock, struct timespec *t);
int __wrap_clock_gettime(clockid_t clock, struct timespec *t);
void __real_sm_loop_timer_arm(struct sm_loop_timer *timer, unsigned delay_ms);
void __wrap_sm_loop_timer_arm(struct sm_loop_timer *timer, unsigned delay_ms);
void __real_sm_loop_timer_destroy(struct sm_loop_timer *timer);
void __wrap_sm_loop_timer_destroy(struct sm_loop_timer *timer);

int __wrap_clock_gettime(clockid_t clock, struct timespec *t)
{
    int rc = __real_clock_gettime(clock, t);
    t->tv_sec += (time_t)(fake.passed_ns / 1000000000u);
    return rc;
}

static void forget(const struct sm_loop_timer *timer)
{
    for (unsigned i = 0; i < MAX_TIMERS; i++)
        if (fake.armed[i] == timer)
            fake.armed[i] = NULL;
}

/* Armed timers wait for time_passes. */
void __wrap_sm_loop_timer_arm(struct sm_loop_timer *timer, unsigned delay_ms)
{
    unsigned i = 0;
    forget(timer);
    while (i < MAX_TIMERS && fake.armed[i])
        i++;
    fuzz_demand(i < MAX_TIMERS);
    fake.armed[i] = timer;
}

void __wrap_sm_loop_timer_destroy(struct sm_loop_timer *timer)
{
    forget(timer);
    __real_sm_loop_timer_destroy(timer);
}

static void time_passes(struct world *w, uint64_t seconds)
{
    fake.passed_ns += seconds * 1000000000u;
    for (unsigned i = 0; i < MAX_TIMERS; i++)
        if (fake.armed[i])
            __real_sm_loop_timer_arm(sm_steal_ptr(&fake.armed[i]), 0);
    sm_loop_turn(w->loop);
}

/* ---- the world ------------------------------------------------------------------------------- */

static const struct sockaddr_un *door(socklen_t *size)
{
    static struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path + 1, sizeof(address.sun_path) - 1, "sm-fuzz-%d", getpid());
    *size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + (size_t)n);
    return &address;
}

static void open_world(struct world *w)
{
    char path[64];
    struct sm_port_spec udp = {
        .ip = sm_ip_from_v4(INADDR_LOOPBACK), .guest_port = 53, .protocol = SM_WIRE_PROXY_UDP};
    fg_init(&w->g.fg);
    fuzz_demand(sm_loop_create(&w->loop, NULL) == 0);
    w->env = (struct sm_virtio_env){.loop = w->loop, .memory = &w->g.fg.gm, .irq = fg_bell()};
    fuzz_demand(sm_vsock_create(&w->env, &(struct sm_vsock_config){.max_streams = MAX_STREAMS},
                    &w->vsock, NULL) == 0);
    vg_init(&w->g, sm_vsock_dev(w->vsock), 16, 8192);
    w->link.vsock = w->vsock;
    const struct sm_guest_link link = ports_link_of(&w->link);
    fuzz_demand(sm_ports_create(w->loop, &link, NULL, NULL, &w->ports, NULL) == 0);
    fuzz_demand(sm_listeners_create(w->ports, &(struct sm_card_addresses){0}, NULL, NULL,
                    &w->listeners, NULL) == 0);
    fuzz_demand(sm_ports_publish(w->ports, &udp, NULL) == 0);
    w->udp = (struct sockaddr_in){.sin_family = AF_INET,
        .sin_port = htons(udp.host_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    snprintf(path, sizeof(path), "@sm-fuzz-%d", getpid());
    fuzz_demand(sm_ports_front_door(w->ports, path, NULL) == 0);
    for (unsigned i = 0; i < MAX_CLIENTS; i++)
        w->doors[i] = w->udps[i] = -1;
}

static void close_world(struct world *w)
{
    for (unsigned i = 0; i < MAX_CLIENTS; i++) {
        sm_close(w->doors[i]);
        sm_close(w->udps[i]);
    }
    sm_listeners_destroy(w->listeners);
    sm_ports_destroy(w->ports);
    sm_virtio_destroy(sm_vsock_dev(w->vsock));
    sm_loop_destroy(w->loop);
    sm_bell_close(&w->env.irq);
    fg_fini(&w->g.fg);
}

/* What the host has sent: new connections are remembered, all else is taken and no more. */
static void guest_receives(struct world *w)
{
    struct vg_packet p;
    sm_loop_turn(w->loop);
    while (vg_recv(&w->g, &p)) {
        w->g.fwd_cnt += p.op == VG_RW ? p.len : 0;
        if (p.op == VG_REQUEST)
            w->streams[w->n_streams++ % MAX_STREAMS] =
                (struct stream){.guest_port = p.dst_port, .host_port = p.src_port};
        sm_loop_turn(w->loop);
    }
}

/* ---- steps ----------------------------------------------------------------------------------- */

static void guest_sends(struct world *w, const struct stream *s, unsigned op, uint32_t flags,
    const void *data, size_t len)
{
    if (!vg_tx_room(&w->g))
        sm_loop_turn(w->loop);
    if (vg_tx_room(&w->g))
        vg_send(&w->g, s->guest_port, s->host_port, op, flags, data, (uint32_t)len);
}

static void guest_acts(struct world *w, struct fuzz_input *in)
{
    uint64_t kind = fuzz_take(in, 1);
    unsigned n = SM_MIN(w->n_streams, (unsigned)MAX_STREAMS);
    struct stream *s = n ? &w->streams[fuzz_take(in, 1) % n] : NULL;
    size_t len;
    const uint8_t *data;
    if (!s)
        return;
    if (!s->answered && kind % 8 != 1) {
        s->answered = true;
        guest_sends(w, s, VG_RESPONSE, 0, NULL, 0);
    }
    switch (kind % 8) {
    case 0:
        guest_sends(w, s, VG_SHUTDOWN, kind >> 6, NULL, 0);
        break;
    case 1:
        guest_sends(w, s, VG_RST, 0, NULL, 0);
        break;
    default:
        len = kind & 0x80 ? fuzz_take(in, 2) % 8192 : fuzz_take(in, 1);
        data = fuzz_bytes(in, &len);
        guest_sends(w, s, VG_RW, 0, data, len);
    }
}

/* A message as the agent would put it, of records that the input has. */
static void agent_says(struct world *w, struct fuzz_input *in)
{
    static uint8_t bytes[SM_WIRE_HEADER + 4 + 8 * SM_WIRE_SOCKET_SIZE];
    struct sm_wire_writer writer = {.buf = bytes, .cap = sizeof(bytes)};
    struct sm_wire_sockets m;
    size_t len = fuzz_take(in, 1) % 9 * SM_WIRE_SOCKET_SIZE;
    m.records.data = fuzz_bytes(in, &len);
    m.records.len = (uint32_t)(len - len % SM_WIRE_SOCKET_SIZE);
    sm_wire_put_sockets(&writer, &m);
    for (unsigned i = 0; !writer.failed && i < SM_MIN(w->n_streams, (unsigned)MAX_STREAMS); i++)
        if (w->streams[i].guest_port == SM_WIRE_PORT && w->streams[i].answered)
            guest_sends(w, &w->streams[i], VG_RW, 0, bytes, writer.len);
}

static int client(int *slot, int domain, int type, const void *to, socklen_t size)
{
    if (*slot >= 0)
        return *slot;
    *slot = socket(domain, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (*slot >= 0 && connect(*slot, to, size) != 0) {
        close(*slot);
        *slot = -1;
    }
    return *slot;
}

static void client_acts(int *slot, int fd, struct fuzz_input *in)
{
    static uint8_t buf[70000];
    uint64_t kind = fuzz_take(in, 1);
    size_t len = kind & 0x80 ? fuzz_take(in, 2) : kind & 0x3f;
    const uint8_t *data;
    if (fd < 0)
        return;
    switch (kind >> 4 & 3) {
    case 0:
        (void)!recv(fd, buf, sizeof(buf), 0);
        break;
    case 1:
        shutdown(fd, kind & 1 ? SHUT_RDWR : SHUT_WR);
        break;
    case 2:
        close(fd);
        *slot = -1;
        break;
    default:
        data = fuzz_bytes(in, &len);
        (void)!send(fd, data, len, MSG_NOSIGNAL);
    }
}

/* A client's first words, whole. */
static void client_wishes(struct world *w, struct fuzz_input *in)
{
    static const uint32_t ports[] = {53, 80, SM_WIRE_PORT, SM_WIRE_PROXY_PORT};
    char line[64];
    socklen_t size;
    const struct sockaddr_un *to = door(&size);
    uint64_t kind = fuzz_take(in, 1);
    int fd = client(&w->doors[kind % MAX_CLIENTS], AF_UNIX, SOCK_STREAM, to, size);
    int n = snprintf(
        line, sizeof(line), "CONNECT %s%u\n", kind & 0x80 ? "vsock:" : "", ports[kind >> 4 & 3]);
    (void)!send(fd, line, (size_t)n, MSG_NOSIGNAL);
}

static void step(struct world *w, struct fuzz_input *in)
{
    uint64_t kind = fuzz_take(in, 1);
    unsigned i = kind >> 4 & (MAX_CLIENTS - 1);
    socklen_t size;
    const struct sockaddr_un *to = door(&size);
    switch (kind % 8) {
    case 0:
        client_acts(&w->doors[i], client(&w->doors[i], AF_UNIX, SOCK_STREAM, to, size), in);
        break;
    case 1:
        client_acts(
            &w->udps[i], client(&w->udps[i], AF_INET, SOCK_DGRAM, &w->udp, sizeof(w->udp)), in);
        break;
    case 2:
        client_wishes(w, in);
        break;
    case 3:
        sm_listeners_watch(w->listeners);
        break;
    case 4:
        agent_says(w, in);
        break;
    case 5:
        time_passes(w, kind >> 3);
        break;
    default:
        guest_acts(w, in);
    }
    if (kind & 0x80)
        guest_receives(w);
}

static void check(struct world *w)
{
    struct sm_vsock_stats stats;
    struct sm_port_spec specs[2 * SM_PORTS_MAX];
    sm_vsock_get_stats(w->vsock, &stats);
    fuzz_demand(stats.streams <= MAX_STREAMS);
    fuzz_demand(sm_ports_list(w->ports, specs, SM_ARRAY_LEN(specs)) <= SM_ARRAY_LEN(specs));
}

/* Input: steps. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct world w = {.n_streams = 0};
    int before = fuzz_next_fd();
    memset(&fake, 0, sizeof(fake));
    open_world(&w);
    for (unsigned i = 0; in.left > 0 && i < MAX_STEPS; i++)
        step(&w, &in);
    guest_receives(&w);
    check(&w);
    close_world(&w);
    fuzz_demand(fuzz_next_fd() == before);
    return 0;
}
