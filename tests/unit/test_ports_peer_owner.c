/* Whose the other end of a connection over the loopback is: asked of the kernel, and read from its
 * lists. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/fsuid.h>
#include <unistd.h>

#include "net/ports/peer_owner.h"

struct pair {
    int here, peer;
    struct sockaddr_storage local, from;
};

static void name(int fd, struct sockaddr_storage *addr)
{
    socklen_t len = sizeof(*addr);
    memset(addr, 0, sizeof(*addr));
    assert_int_equal(getsockname(fd, (struct sockaddr *)addr, &len), 0);
}

static int bound(int family, int type)
{
    struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int fd = socket(family, type | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    assert_int_equal(family == AF_INET ? bind(fd, (struct sockaddr *)&a4, sizeof(a4))
                                       : bind(fd, (struct sockaddr *)&a6, sizeof(a6)),
        0);
    return fd;
}

/* A connection that user `uid` has made; UDP: a socket that has sent, connected or not. */
static struct pair make(int family, int type, unsigned uid, bool connected)
{
    struct pair p = {.here = bound(family, type)};
    int listener = p.here;
    name(p.here, &p.local);
    if (type == SOCK_STREAM)
        assert_int_equal(listen(listener, 1), 0);
    setfsuid(uid);
    p.peer = bound(family, type);
    setfsuid(geteuid());
    if (connected)
        assert_int_equal(connect(p.peer, (struct sockaddr *)&p.local, sizeof(p.local)), 0);
    name(p.peer, &p.from);
    if (type == SOCK_STREAM) {
        p.here = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        close(listener);
    }
    return p;
}

static void check(enum sm_peer_source source)
{
    struct sm_peer_owner o = SM_PEER_OWNER_INIT;
    o.source[0] = o.source[1] = source;

    for (int i = 0; i < 12; i++) {
        int family = i % 2 ? AF_INET6 : AF_INET, type = i < 6 ? SOCK_STREAM : SOCK_DGRAM;
        uint8_t protocol = type == SOCK_STREAM ? 6 : 17;
        bool stranger = i % 6 / 2 == 1, connected = type == SOCK_STREAM || i % 6 / 2 == 2;
        if (stranger && geteuid() != 0)
            continue;
        struct pair p = make(family, type, stranger ? 65534 : geteuid(), connected);
        assert_int_equal(sm_peer_owner_is_us(&o, protocol, &p.from, &p.local), !stranger);
        close(p.peer); /* who has closed it is nobody */
        assert_false(sm_peer_owner_is_us(&o, protocol, &p.from, &p.local));
        close(p.here);
    }
    sm_peer_owner_close(&o);
}

static void test_asked(void **state)
{
    (void)state;
    check(SM_PEER_UNTRIED);
}

static void test_listed(void **state)
{
    (void)state;
    check(SM_PEER_IS_LISTED);
}

/* One question tells whether the kernel can be asked, also when the first who came has gone
 * already. */
static void test_lists_only_without_an_answer(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct sm_peer_owner o = SM_PEER_OWNER_INIT;
        struct pair p = make(AF_INET, i ? SOCK_STREAM : SOCK_DGRAM, geteuid(), true);
        close(p.peer);
        assert_false(sm_peer_owner_is_us(&o, i ? 6 : 17, &p.from, &p.local));
        if (o.source[i] == SM_PEER_IS_TOLD)
            assert_int_equal(o.paid_ns, 0);
        else
            print_message("this kernel does not tell of sockets\n");
        close(p.here);
        sm_peer_owner_close(&o);
    }
}

static void test_lists_cost_their_share(void **state)
{
    (void)state;
    struct sm_peer_owner o = SM_PEER_OWNER_INIT;
    struct pair p = make(AF_INET, SOCK_STREAM, geteuid(), true);
    o.source[1] = SM_PEER_IS_LISTED;
    assert_true(sm_peer_owner_is_us(&o, 6, &p.from, &p.local));
    assert_true(o.cost_ns > 0);
    o.cost_ns = UINT64_MAX;
    assert_false(sm_peer_owner_is_us(&o, 6, &p.from, &p.local));
    o.cost_ns = 1000000000;
    o.paid_ns -= 5000000000;
    assert_true(sm_peer_owner_is_us(&o, 6, &p.from, &p.local));
    close(p.peer);
    close(p.here);
    sm_peer_owner_close(&o);
}

/* 0 is a descriptor as any other. */
static void test_descriptor_0(void **state)
{
    (void)state;
    struct sm_peer_owner o = SM_PEER_OWNER_INIT;
    struct pair p = make(AF_INET, SOCK_STREAM, geteuid(), true);
    int kept = fcntl(0, F_DUPFD_CLOEXEC, 3);
    close(0);
    assert_true(sm_peer_owner_is_us(&o, 6, &p.from, &p.local));
    assert_true(sm_peer_owner_is_us(&o, 6, &p.from, &p.local));
    assert_int_equal(o.fd, 0);
    sm_peer_owner_close(&o);
    assert_int_equal(fcntl(0, F_GETFD), -1);
    if (kept >= 0) {
        dup2(kept, 0);
        close(kept);
    }
    close(p.peer);
    close(p.here);
}

static void test_not_loopback(void **state)
{
    (void)state;
    struct sm_peer_owner o = SM_PEER_OWNER_INIT;
    struct pair p = make(AF_INET, SOCK_STREAM, geteuid(), true);
    ((struct sockaddr_in *)(void *)&p.from)->sin_addr.s_addr = htonl(0x0a000001);
    assert_false(sm_peer_owner_is_us(&o, 6, &p.from, &p.local));
    close(p.peer);
    close(p.here);
    sm_peer_owner_close(&o);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_asked),
        cmocka_unit_test(test_listed),
        cmocka_unit_test(test_lists_only_without_an_answer),
        cmocka_unit_test(test_lists_cost_their_share),
        cmocka_unit_test(test_descriptor_0),
        cmocka_unit_test(test_not_loopback),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
