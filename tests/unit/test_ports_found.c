/* What the agent says that listens: what of it counts, the ports that it becomes, the front door's
 * first one, and words that are none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "net/ports/found.h"
#include "ports_util.h"

#define TCP SM_WIRE_PROXY_TCP
#define UDP SM_WIRE_PROXY_UDP

static const struct sm_card_addresses card = {
    .v4 = {{[10] = 0xff, 0xff, 10, 0, 2, 15}}, .v6 = {{0xfd, 0x73}}};

struct said {
    uint16_t protocol, family, port;
    uint8_t address[16];
};

static size_t put_records(uint8_t *records, const struct said *said, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        struct sm_wire_socket s = {
            .protocol = said[i].protocol, .family = said[i].family, .port = said[i].port};
        memcpy(s.address, said[i].address, sizeof(s.address));
        sm_wire_socket_store(records + i * SM_WIRE_SOCKET_SIZE, &s);
    }
    return n * SM_WIRE_SOCKET_SIZE;
}

static void test_pick(void **state)
{
    (void)state;
    static const struct said said[] = {
        {UDP, 4, 53, {0}},
        {TCP, 6, 443, {[10] = 0xff, 0xff}},
        {TCP, 4, 80, {0}},
        {TCP, 6, 80, {0}}, /* once only */
        {TCP, 4, 90, {10, 0, 2, 15}},
        {TCP, 6, 92, {0xfd, 0x73}},
        {TCP, 6, 93, {[10] = 0xff, 0xff, 10, 0, 2, 15}},
        /* The guest's own, clients, nonsense. */
        {TCP, 4, 70, {127, 0, 0, 1}},
        {TCP, 6, 71, {[15] = 1}},
        {TCP, 6, 72, {[10] = 0xff, 0xff, 127, 0, 0, 1}},
        {TCP, 4, 91, {127, 0, 0, 2}},
        {TCP, 4, 96, {10, 0, 2, 16}},
        {TCP, 6, 97, {0xfd, 0x74}},
        {UDP, 4, SM_LISTENERS_CLIENT_PORTS, {0}},
        {TCP, 4, 0, {0}},
        {TCP, 5, 94, {0}},
        {132, 4, 95, {0}},
    };
    static const uint16_t tcp[] = {80, 90, 92, 93, 443};
    uint8_t records[SM_ARRAY_LEN(said) * SM_WIRE_SOCKET_SIZE];
    struct sm_wire_sockets m = {.records = {.data = records}};
    m.records.len = (uint32_t)put_records(records, said, SM_ARRAY_LEN(said));
    struct sm_listener found[SM_LISTENERS_MAX];
    assert_int_equal(sm_listeners_pick(&m, &card, found), SM_ARRAY_LEN(tcp) + 1);
    for (size_t i = 0; i < SM_ARRAY_LEN(tcp); i++) {
        assert_int_equal(found[i].port, tcp[i]);
        assert_int_equal(found[i].protocol, TCP);
    }
    assert_int_equal(found[SM_ARRAY_LEN(tcp)].port, 53);
    assert_int_equal(found[SM_ARRAY_LEN(tcp)].protocol, UDP);
}

static void test_pick_bounds(void **state)
{
    (void)state;
    static struct said said[SM_LISTENERS_MAX + 10];
    static uint8_t records[sizeof(said) / sizeof(said[0]) * SM_WIRE_SOCKET_SIZE];
    struct sm_wire_sockets m = {.records = {.data = records}};
    for (size_t i = 0; i < SM_ARRAY_LEN(said); i++)
        said[i] = (struct said){.protocol = TCP, .family = 4, .port = (uint16_t)(1 + i)};
    m.records.len = (uint32_t)put_records(records, said, SM_ARRAY_LEN(said));
    struct sm_listener found[SM_LISTENERS_MAX];
    assert_int_equal(sm_listeners_pick(&m, &card, found), SM_LISTENERS_MAX);
}

/* ---- the agent's word ------------------------------------------------------------------------ */

struct watched {
    struct ports_fixture *ports;
    struct sm_listeners *listeners;
    uint32_t agent_port, host_port; /* of the connection that is watched */
};

static int setup_with(void **state, unsigned max_streams)
{
    struct watched *w = calloc(1, sizeof(*w));
    assert_non_null(w);
    assert_int_equal(ports_setup_with((void **)&w->ports, max_streams, true), 0);
    assert_int_equal(
        sm_listeners_create(w->ports->ports, &card, NULL, NULL, &w->listeners, NULL), 0);
    *state = w;
    return 0;
}

static int setup(void **state)
{
    return setup_with(state, 0);
}

static int setup_one_stream(void **state)
{
    return setup_with(state, 1);
}

static int teardown(void **state)
{
    struct watched *w = *state;
    sm_listeners_destroy(w->listeners);
    ports_teardown((void **)&w->ports);
    free(w);
    return 0;
}

/* The guest is asked, and takes the connection. */
static void be_asked(struct watched *w)
{
    struct vg_packet request = ports_packet(w->ports);
    assert_int_equal(request.op, VG_REQUEST);
    assert_int_equal(request.dst_port, SM_WIRE_PORT);
    w->agent_port = request.dst_port;
    w->host_port = request.src_port;
    vg_send(&w->ports->g, w->agent_port, w->host_port, VG_RESPONSE, 0, NULL, 0);
    struct vg_packet first = ports_packet(w->ports);
    assert_int_equal(first.op, VG_RW);
    struct sm_wire_frame frame;
    assert_int_equal(sm_wire_parse(first.data, first.len, &frame), 1);
    assert_int_equal(frame.type, SM_WIRE_WATCH);
}

static void send_bytes(struct watched *w, const void *bytes, size_t len)
{
    vg_send(&w->ports->g, w->agent_port, w->host_port, VG_RW, 0, bytes, (uint32_t)len);
}

static void say(struct watched *w, const struct said *said, size_t n)
{
    uint8_t records[8 * SM_WIRE_SOCKET_SIZE];
    uint8_t bytes[sizeof(records) + 64];
    struct sm_wire_writer writer = {.buf = bytes, .cap = sizeof(bytes)};
    struct sm_wire_sockets m = {.records = {.data = records}};
    m.records.len = (uint32_t)put_records(records, said, n);
    sm_wire_put_sockets(&writer, &m);
    assert_false(writer.failed);
    send_bytes(w, bytes, writer.len);
}

/* Until so many ports lead in; their list is the newest first. */
static void wait_ports(struct watched *w, size_t n, struct sm_port_spec *specs)
{
    int64_t deadline = sm_deadline(PATIENCE_MS);
    while (sm_ports_list(w->ports->ports, specs, 8) != n) {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("there are no %zu ports", n);
        usleep(1000);
    }
}

static void test_found_and_withdrawn(void **state)
{
    static const struct said first[] = {{TCP, 4, 80, {0}}, {UDP, 4, 53, {0}}, {TCP, 4, 81, {0}}},
                             second[] = {{TCP, 4, 81, {0}}};
    struct watched *w = *state;
    struct sm_port_spec asked;
    assert_int_equal(sm_port_spec_parse("81", &asked, NULL), 0);
    assert_int_equal(sm_ports_publish(w->ports->ports, &asked, NULL), 0);
    sm_listeners_watch(w->listeners);
    sm_listeners_watch(w->listeners); /* does not ask twice */
    be_asked(w);
    say(w, first, SM_ARRAY_LEN(first));
    struct sm_port_spec specs[8];
    wait_ports(w, 3, specs); /* 81 was published, and has no second one */
    assert_true(specs[0].found && specs[0].guest_port == 53 && specs[0].protocol == UDP);
    assert_true(specs[1].found && specs[1].guest_port == 80 && specs[1].host_port != 0);
    assert_true(!specs[2].found && specs[2].guest_port == 81);
    say(w, second, SM_ARRAY_LEN(second));
    wait_ports(w, 1, specs);
    assert_int_equal(specs[0].guest_port, 81);
}

static void lose_by(struct watched *w, const void *bytes, size_t len)
{
    static const struct said said[] = {{TCP, 4, 80, {0}}};
    say(w, said, 1);
    struct sm_port_spec specs[8];
    wait_ports(w, 1, specs);
    send_bytes(w, bytes, len);
    wait_ports(w, 0, specs);
}

/* Words that are none take the ports away; the agent is asked again after a while. */
static void test_nonsense(void **state)
{
    static const uint8_t other_type[SM_WIRE_HEADER] = {[4] = SM_WIRE_OK},
                         too_long[SM_WIRE_HEADER] = {0, 0, 1, 0, SM_WIRE_SOCKETS};
    struct watched *w = *state;
    sm_listeners_watch(w->listeners);
    be_asked(w);
    lose_by(w, other_type, sizeof(other_type));
    do {
    } while (ports_packet(w->ports).op != VG_SHUTDOWN);
    vg_send(&w->ports->g, w->agent_port, w->host_port, VG_RST, 0, NULL, 0);
    be_asked(w);
    lose_by(w, too_long, sizeof(too_long));
}

/* They are destroyed before their loop has come to a watch that was asked for. */
static void a_watch_that_comes_too_late_is_none(void **state)
{
    struct watched *w = *state;
    struct vg_packet p;
    sm_loop_pause(w->ports->loop);
    sm_listeners_watch(w->listeners);
    sm_listeners_destroy(sm_steal_ptr(&w->listeners));
    sm_loop_resume(w->ports->loop);
    usleep(2000 * SM_LISTENERS_DELAY_MS);
    assert_false(vg_recv(&w->ports->g, &p));
}

/* There is no stream left when the agent is to be asked: it is asked later. */
static void test_no_stream_left(void **state)
{
    struct watched *w = *state;
    struct sm_port_spec spec;
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(sm_port_spec_parse("80", &spec, NULL), 0);
    assert_int_equal(sm_ports_publish(w->ports->ports, &spec, NULL), 0);
    to.sin_port = htons(spec.host_port);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    struct vg_packet taken = ports_answer(w->ports, 80, TCP);
    sm_listeners_watch(w->listeners);
    usleep(2000 * SM_LISTENERS_DELAY_MS);
    vg_send(&w->ports->g, taken.dst_port, taken.src_port, VG_RST, 0, NULL, 0);
    be_asked(w);
    close(fd);
}

/* ---- the front door -------------------------------------------------------------------------- */

static int enter(const char *path)
{
    struct sockaddr_un to = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    snprintf(to.sun_path, sizeof(to.sun_path), "%s", path);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void test_front_door(void **state)
{
    static const struct sm_listener known[] = {
        {.port = 80, .protocol = TCP, .family = 4}, {.port = 90, .protocol = TCP, .family = 4}};
    struct watched *w = *state;
    char dir[] = "/tmp/sm-listeners-XXXXXX";
    assert_non_null(mkdtemp(dir));
    char path[64];
    snprintf(path, sizeof(path), "%s/door", dir);
    assert_int_equal(sm_ports_front_door(w->ports->ports, path, NULL), 0);

    /* It speaks before there is a port; once there are, it gets to the first. */
    int fd = enter(path);
    assert_int_equal(send(fd, "GET", 3, 0), 3);
    sm_listeners_set(w->listeners, known, 2);
    ports_answer(w->ports, 80, TCP);
    assert_memory_equal(ports_packet(w->ports).data, "GET", 3);
    close(fd);
    assert_int_equal(ports_packet(w->ports).op, VG_SHUTDOWN);

    struct sm_port_spec asked;
    /* It says nothing, and one that was asked for is there. */
    assert_int_equal(sm_port_spec_parse("70", &asked, NULL), 0);
    assert_int_equal(sm_ports_publish(w->ports->ports, &asked, NULL), 0);
    fd = enter(path);
    ports_answer(w->ports, 70, TCP);
    close(fd);
    assert_int_equal(ports_packet(w->ports).op, VG_SHUTDOWN);

    /* It names a port: the guest's end is asked for the OK. */
    fd = enter(path);
    assert_int_equal(send(fd, "CONNECT 91\nGET", 14, 0), 14);
    ports_answer(w->ports, 91, TCP | SM_WIRE_PROXY_SAY_OK);
    assert_memory_equal(ports_packet(w->ports).data, "GET", 3);
    close(fd);

    fd = enter(path);
    assert_int_equal(send(fd, "CONNECT 65536\n", 14, 0), 14);
    char said[4];
    assert_int_equal(recv(fd, said, 4, MSG_WAITALL), 4);
    assert_memory_equal(said, "ERR ", 4);
    close(fd);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pick),
        cmocka_unit_test(test_pick_bounds),
        T(test_found_and_withdrawn),
        T(test_nonsense),
        T(a_watch_that_comes_too_late_is_none),
        cmocka_unit_test_setup_teardown(test_no_stream_left, setup_one_stream, teardown),
        T(test_front_door),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
