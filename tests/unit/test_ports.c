/* Published ports: their text, listeners, bridges into a guest that speaks vsock, datagrams. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <linux/capability.h>
#include <poll.h>
#include <stdio.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "ports_util.h"

static void check(
    const char *text, const char *ip, unsigned host, unsigned guest, unsigned protocol)
{
    struct sm_port_spec spec;
    if (sm_port_spec_parse(text, &spec, NULL))
        fail_msg("'%s' was refused", text);
    char addr[SM_IP_TEXT];
    assert_string_equal(sm_ip_format(&spec.ip, addr), ip);
    assert_int_equal(spec.host_port, host);
    assert_int_equal(spec.guest_port, guest);
    assert_int_equal(spec.protocol, protocol);
}

static void test_text(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "0", "x", "80:", "65536", "80/sctp", "80/", ":", "1:2:3",
        "1.2.3.4", "1.2.3.4:80", "[::1]80", "[::1]:80", "[1.2.3.4]:1:2", "::1:80:80", "-1", "80:0",
        "1.2.3.4:1:2:3", "80 ", "+80"};
    check("80", "127.0.0.1", 0, 80, 6);
    check("8080:80", "127.0.0.1", 8080, 80, 6);
    check(":80", "127.0.0.1", 0, 80, 6);
    check("53:53/udp", "127.0.0.1", 53, 53, 17);
    check("0.0.0.0:8080:80/tcp", "0.0.0.0", 8080, 80, 6);
    check("0.0.0.0::80", "0.0.0.0", 0, 80, 6);
    check("[::1]:8080:80", "::1", 8080, 80, 6);
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        struct sm_port_spec spec;
        if (sm_port_spec_parse(bad[i], &spec, NULL) == 0)
            fail_msg("'%s' was accepted", bad[i]);
    }
}

static struct sm_port_spec publish(struct ports_fixture *f, const char *text)
{
    struct sm_port_spec spec;
    assert_int_equal(sm_port_spec_parse(text, &spec, NULL), 0);
    sm_error err;
    if (sm_ports_publish(f->ports, &spec, &err))
        fail_msg("%s", err.message);
    assert_true(spec.host_port != 0);
    return spec;
}

static int client(const struct sm_port_spec *spec);

/* A socket belongs to who made it. */
static int other_users_client(const struct sm_port_spec *spec)
{
    setfsuid(65534);
    int fd = client(spec);
    setfsuid(0);
    return fd;
}

static int client(const struct sm_port_spec *spec)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
        .sin_port = htons(spec->host_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, (spec->protocol == 6 ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)), 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), 0);
    return fd;
}

static void test_tcp(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "80");
    int fd = client(&spec);
    assert_int_equal(send(fd, "GET", 3, 0), 3); /* before the guest has answered */
    struct vg_packet request = ports_answer(f, 80, 6);
    struct vg_packet p = ports_packet(f);
    assert_int_equal(p.op, VG_RW);
    assert_int_equal(p.len, 3);
    assert_memory_equal(p.data, "GET", 3);
    vg_send(&f->g, request.dst_port, request.src_port, VG_RW, 0, "page", 4);
    char buf[16];
    assert_int_equal(recv(fd, buf, sizeof(buf), 0), 4);
    assert_memory_equal(buf, "page", 4);

    assert_int_equal(shutdown(fd, SHUT_WR), 0); /* half close, both ways */
    p = ports_packet(f);
    assert_int_equal(p.op, VG_SHUTDOWN);
    assert_int_equal(p.flags, 2);
    vg_send(&f->g, request.dst_port, request.src_port, VG_RW, 0, "end", 3);
    vg_send(&f->g, request.dst_port, request.src_port, VG_SHUTDOWN, 3, NULL, 0);
    assert_int_equal(recv(fd, buf, sizeof(buf), MSG_WAITALL), 3);
    assert_int_equal(recv(fd, buf, sizeof(buf), 0), 0);
    close(fd);
}

static void wait_sessions(struct ports_fixture *f, unsigned sessions, unsigned dropped)
{
    int64_t deadline = sm_deadline(PATIENCE_MS);
    struct sm_ports_counters c;
    do {
        sm_ports_get_counters(f->ports, &c);
        if (sm_deadline_left(deadline) == 0)
            fail_msg(
                "%u sessions, %u dropped", (unsigned)c.sessions, (unsigned)c.datagrams_dropped);
        usleep(1000);
    } while (c.sessions < sessions || c.datagrams_dropped < dropped);
    assert_int_equal(c.sessions, sessions);
    assert_int_equal(c.datagrams_dropped, dropped);
}

/* Nothing can be handed to the guest now: connections wait with the kernel, datagrams are lost. */
static void who_comes_while_the_link_is_busy_waits(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec tcp = publish(f, "80"), udp = publish(f, "53/udp");
    struct vg_packet p;
    atomic_store(&f->link.busy, true);
    int one = client(&tcp), two = client(&udp);
    assert_int_equal(send(two, "lost", 4, 0), 4);
    wait_sessions(f, 0, 1);
    assert_false(vg_recv(&f->g, &p));
    atomic_store(&f->link.busy, false);
    ports_answer(f, 80, 6);
    assert_int_equal(send(two, "name", 4, 0), 4);
    ports_answer(f, 53, 17);
    close(one);
    close(two);
}

static void test_guest_refuses(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "81");
    int fd = client(&spec);
    struct vg_packet request = ports_packet(f);
    vg_send(&f->g, request.dst_port, request.src_port, VG_RST, 0, NULL, 0);
    char c;
    assert_true(recv(fd, &c, 1, 0) <= 0);
    close(fd);
}

/* Who waits for a service must not take it for one that is there and says nothing. */
static void a_client_is_reset_where_nobody_listens_in_the_guest(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "81");
    for (int listens = 0; listens < 2; listens++) {
        int fd = client(&spec);
        struct vg_packet request = ports_answer(f, 81, 6);
        if (!listens)
            vg_send(&f->g, request.dst_port, request.src_port, VG_SHUTDOWN, 1, NULL, 0);
        vg_send(&f->g, request.dst_port, request.src_port, VG_SHUTDOWN, 3, NULL, 0);
        char c;
        assert_int_equal(recv(fd, &c, 1, 0), listens ? 0 : -1);
        assert_true(listens || errno == ECONNRESET);
        close(fd);
        if (!listens)
            assert_int_equal(ports_packet(f).op, VG_RST);
    }
}

static void test_udp(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "53/udp");
    int one = client(&spec), two = client(&spec);
    assert_int_equal(send(one, "question", 8, 0), 8);
    struct vg_packet first = ports_answer(f, 53, 17);
    struct vg_packet p = ports_packet(f);
    assert_int_equal(p.len, 10);
    assert_memory_equal(p.data, "\10\0question", 10);
    assert_int_equal(send(two, "other", 5, 0), 5);
    struct vg_packet second = ports_answer(f, 53, 17);
    assert_int_not_equal(first.src_port, second.src_port);
    p = ports_packet(f);
    assert_memory_equal(p.data, "\5\0other", 7);
    /* Two datagrams in pieces; each goes to whom it belongs. */
    vg_send(&f->g, first.dst_port, first.src_port, VG_RW, 0, "\1", 1);
    vg_send(&f->g, first.dst_port, first.src_port, VG_RW, 0, "\0a\2\0b", 5);
    vg_send(&f->g, second.dst_port, second.src_port, VG_RW, 0, "\3\0two", 5);
    vg_send(&f->g, first.dst_port, first.src_port, VG_RW, 0, "c", 1);
    char buf[16];
    assert_int_equal(recv(one, buf, sizeof(buf), 0), 1);
    assert_memory_equal(buf, "a", 1);
    assert_int_equal(recv(one, buf, sizeof(buf), 0), 2);
    assert_memory_equal(buf, "bc", 2);
    assert_int_equal(recv(two, buf, sizeof(buf), 0), 3);
    assert_memory_equal(buf, "two", 3);
    close(one);
    close(two);
}

/* At a port that is published another user comes from outside; the owner does not. */
static void test_strangers(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec tcp = publish(f, "0.0.0.0::80"), udp = publish(f, "53/udp");
    if (geteuid() != 0)
        skip();
    int fd;
    for (int round = 0; round < 2; round++) {
        fd = other_users_client(&tcp);
        ports_answer(f, 80, 6 | SM_WIRE_PROXY_OUTSIDE);
        close(fd);
        ports_packet(f);
        fd = client(&tcp);
        ports_answer(f, 80, 6);
        close(fd);
        ports_packet(f);
    }
    fd = other_users_client(&udp);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    ports_answer(f, 53, 17 | SM_WIRE_PROXY_OUTSIDE);
    close(fd);
}

/* At one that was found he is sent away, and the guest hears nothing of it. */
static void test_strangers_at_found(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec tcp = {.ip = sm_ip_from_v4(0x7f000001), .guest_port = 80, .found = true};
    struct sm_port_spec udp = tcp;
    int64_t deadline = sm_deadline(PATIENCE_MS);
    if (geteuid() != 0)
        skip();
    tcp.protocol = 6;
    udp.protocol = 17;
    assert_int_equal(sm_ports_publish(f->ports, &tcp, NULL), 0);
    assert_int_equal(sm_ports_publish(f->ports, &udp, NULL), 0);
    int fd = other_users_client(&tcp);
    char c;
    assert_true(recv(fd, &c, 1, 0) <= 0);
    close(fd);
    fd = other_users_client(&udp);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    struct sm_ports_counters counters;
    do {
        if (sm_deadline_left(deadline) == 0)
            fail_msg("nobody was sent away");
        usleep(1000);
        sm_ports_get_counters(f->ports, &counters);
    } while (counters.strangers < 2);
    usleep(100000);
    close(fd);
    struct vg_packet p;
    assert_false(vg_recv(&f->g, &p));
    sm_ports_get_counters(f->ports, &counters);
    assert_int_equal(counters.strangers, 2);
    fd = client(&tcp);
    ports_answer(f, 80, 6);
    close(fd);
}

/* Connects, sends and is gone. On the loop's thread: nothing is accepted meanwhile. */
static void come_and_go(void *arg)
{
    int fd = client(arg);
    assert_int_equal(send(fd, "x", 1, 0), 1);
    close(fd);
}

/* Whose it was cannot be told any more: he may have been anybody. */
static void test_who_is_gone_is_a_stranger(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec published = publish(f, "80");
    struct sm_port_spec found = {
        .ip = sm_ip_from_v4(0x7f000001), .guest_port = 81, .protocol = 6, .found = true};
    struct sm_ports_counters counters = {0};
    assert_int_equal(sm_ports_publish(f->ports, &found, NULL), 0);
    sm_loop_run(f->loop, come_and_go, &found);
    struct vg_packet p;
    while (counters.strangers == 0) {
        assert_false(vg_recv(&f->g, &p));
        usleep(1000);
        sm_ports_get_counters(f->ports, &counters);
    }

    sm_loop_run(f->loop, come_and_go, &published);
    ports_answer(f, 80, 6 | SM_WIRE_PROXY_OUTSIDE);
    p = ports_packet(f);
    assert_int_equal(p.len, 1); /* what he has sent arrives */
    p = ports_packet(f);
    assert_int_equal(p.op, VG_SHUTDOWN);
}

#define STREAMS 8

static int setup_few_streams(void **state)
{
    return ports_setup_with(state, STREAMS, true);
}

static void expect_refusal(int fd)
{
    char c;
    assert_true(recv(fd, &c, 1, 0) <= 0);
    close(fd);
}

/* Strangers have half of the streams; a place that one leaves is the next one's. */
static void test_strangers_leave_room(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "80");
    struct vg_packet first = {0};
    if (geteuid() != 0)
        skip();
    int strangers[STREAMS / 2];
    for (int i = 0; i < STREAMS / 2; i++) {
        strangers[i] = other_users_client(&spec);
        struct vg_packet p = ports_answer(f, 80, 6 | SM_WIRE_PROXY_OUTSIDE);
        if (i == 0)
            first = p;
    }
    expect_refusal(other_users_client(&spec));
    int owner[STREAMS / 2];
    for (int i = 0; i < STREAMS / 2; i++) {
        owner[i] = client(&spec);
        ports_answer(f, 80, 6);
    }
    expect_refusal(client(&spec));
    vg_send(&f->g, first.dst_port, first.src_port, VG_RST, 0, NULL, 0);
    expect_refusal(strangers[0]);
    int next = other_users_client(&spec);
    ports_answer(f, 80, 6 | SM_WIRE_PROXY_OUTSIDE);
    close(next);
    for (int i = 0; i < STREAMS / 2; i++) {
        if (i > 0)
            close(strangers[i]);
        close(owner[i]);
    }
}

/* ... and three quarters of a UDP port's sessions. */
static void test_strangers_sessions(void **state)
{
    enum { THEIRS = SM_PORTS_SESSIONS / 4 * 3 };
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "53/udp");
    struct rlimit files;
    int fd[SM_PORTS_SESSIONS + 2];

    if (geteuid() != 0)
        skip();
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &files), 0);
    files.rlim_cur = files.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &files), 0);
    for (int i = 0; i < SM_PORTS_SESSIONS + 2; i++) {
        bool stranger = i <= THEIRS;
        fd[i] = stranger ? other_users_client(&spec) : client(&spec);
        assert_int_equal(send(fd[i], "x", 1, 0), 1);
        wait_sessions(f,
            (unsigned)(stranger ? SM_MIN(i + 1, THEIRS) : SM_MIN(i, SM_PORTS_SESSIONS)),
            (unsigned)((i >= THEIRS) + (i > SM_PORTS_SESSIONS)));
    }
    for (int i = 0; i < SM_PORTS_SESSIONS + 2; i++)
        close(fd[i]);
}

static void test_taken_and_withdrawn(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "80");
    struct sm_port_spec same = spec;
    sm_error err;
    assert_int_equal(sm_ports_publish(f->ports, &same, &err), -SM_EBUSY);
    struct sm_port_spec list[4];
    assert_int_equal(sm_ports_list(f->ports, list, 4), 1);
    assert_int_equal(list[0].host_port, spec.host_port);
    sm_ports_withdraw(f->ports, &spec);
    assert_int_equal(sm_ports_list(f->ports, list, 4), 0);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in to = {.sin_family = AF_INET,
        .sin_port = htons(spec.host_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (struct sockaddr *)&to, sizeof(to)), -1);
    close(fd);
}

/* With the rights of a user, if there are such. */
static int publish_as_user(struct ports_fixture *f, struct sm_port_spec *spec, sm_error *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct had[2], caps[2];
    assert_int_equal(syscall(SYS_capget, &head, had), 0);
    memcpy(caps, had, sizeof(caps));
    caps[0].effective &= ~(1u << CAP_NET_BIND_SERVICE);
    assert_int_equal(syscall(SYS_capset, &head, caps), 0);
    int rc = sm_ports_publish(f->ports, spec, err);
    assert_int_equal(syscall(SYS_capset, &head, had), 0);
    return rc;
}

static void what_cannot_be_published_is_told_with_its_cause(void **state)
{
    struct ports_fixture *f = *state;
    static const struct {
        const char *text;
        int rc;
        const char *why;
    } cases[] = {
        {"127.0.0.1:7:80", -SM_EPERM, "127.0.0.1 port 7: ports this low are for root"},
        {"[::1]:7:80/udp", -SM_EPERM, "::1 port 7: ports this low are for root"},
        {"192.0.2.1:8080:80", -SM_EINVAL, "192.0.2.1 port 8080: this host has no such address"},
        {"[2001:db8::1]::80", -SM_EINVAL, "2001:db8::1 port 0: this host has no such address"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_port_spec spec;
        sm_error err;
        assert_int_equal(sm_port_spec_parse(cases[i].text, &spec, NULL), 0);
        assert_int_equal(publish_as_user(f, &spec, &err), cases[i].rc);
        assert_non_null(strstr(err.message, cases[i].why));
    }
    struct sm_port_spec v4 = publish(f, "80"), v6 = publish(f, "[::1]::80");
    sm_error err;
    assert_int_equal(sm_ports_try(&v4, 1, &err), -SM_EBUSY);
    assert_int_equal(sm_ports_try(&v6, 1, &err), -SM_EBUSY);
    sm_ports_withdraw(f->ports, &v4);
    assert_int_equal(sm_ports_try(&v4, 1, &err), 0);
    assert_int_equal(sm_ports_try(&v4, 1, &err), 0); /* it is tried, and no more */
}

/* All addresses of the host and one of them. */
static void ports_are_tried_together(void **state)
{
    struct ports_fixture *f = *state;
    static const char *const protocols[] = {"tcp", "udp"};
    for (size_t i = 0; i < SM_ARRAY_LEN(protocols); i++) {
        struct sm_port_spec specs[2];
        sm_error err;
        char text[32];
        snprintf(text, sizeof(text), "80/%s", protocols[i]);
        specs[0] = publish(f, text); /* a port that is free again */
        sm_ports_withdraw(f->ports, &specs[0]);
        snprintf(text, sizeof(text), "0.0.0.0:%u:81/%s", specs[0].host_port, protocols[i]);
        assert_int_equal(sm_port_spec_parse(text, &specs[1], NULL), 0);
        assert_int_equal(sm_ports_try(&specs[0], 1, &err), 0);
        assert_int_equal(sm_ports_try(&specs[1], 1, &err), 0);
        assert_int_equal(sm_ports_try(specs, 2, &err), -SM_EBUSY);
        assert_non_null(strstr(err.message, "cannot publish on 0.0.0.0 port"));
        assert_int_equal(sm_ports_try(&specs[0], 1, &err), 0);
    }
}

/* Connections of the VM before, which was killed, are in TIME_WAIT on the port. */
static void a_port_is_had_again_at_once(void **state)
{
    struct ports_fixture *f = *state;
    struct sm_port_spec spec = publish(f, "80");
    sm_ports_withdraw(f->ports, &spec);
    struct sockaddr_in at = {.sin_family = AF_INET,
        .sin_port = htons(spec.host_port),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;
    assert_int_equal(setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)), 0);
    assert_int_equal(bind(listener, (struct sockaddr *)&at, sizeof(at)), 0);
    assert_int_equal(listen(listener, 1), 0);
    int visitor = client(&spec);
    int peer = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(peer >= 0);
    close(peer); /* whose side ends first has to wait */
    close(listener);
    char c;
    assert_int_equal(recv(visitor, &c, 1, 0), 0);
    close(visitor);
    assert_int_equal(sm_ports_publish(f->ports, &spec, NULL), 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, ports_setup, ports_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_text),
        T(test_tcp),
        T(who_comes_while_the_link_is_busy_waits),
        T(test_guest_refuses),
        T(a_client_is_reset_where_nobody_listens_in_the_guest),
        T(test_udp),
        T(test_strangers),
        T(test_strangers_at_found),
        T(test_who_is_gone_is_a_stranger),
        cmocka_unit_test_setup_teardown(
            test_strangers_leave_room, setup_few_streams, ports_teardown),
        T(test_strangers_sessions),
        T(test_taken_and_withdrawn),
        T(what_cannot_be_published_is_told_with_its_cause),
        T(ports_are_tried_together),
        T(a_port_is_had_again_at_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
