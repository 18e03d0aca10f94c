/*
 * The front door: what its clients say and where they are connected to, its socket, and what leads
 * out. The guest speaks vsock (vsock_guest.h), the loop is turned by hand.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "ports_util.h"
#include "vsock_util.h"

struct door_test {
    struct ports_fixture *ports;
    char dir[32];
};

static int setup(void **state)
{
    struct door_test *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    *state = f;
    return ports_setup_with((void **)&f->ports, 0, false);
}

/* The door's socket is gone with it: its directory is empty. */
static int teardown(void **state)
{
    struct door_test *f = *state;
    ports_teardown((void **)&f->ports);
    if (f->dir[0])
        assert_int_equal(rmdir(f->dir), 0);
    free(f);
    return 0;
}

static void turn(struct door_test *f)
{
    sm_loop_turn(f->ports->loop);
}

static struct vg_packet expect(struct door_test *f, unsigned op)
{
    return vsock_expect(&f->ports->g, f->ports->loop, op);
}

static void expect_silence(struct door_test *f)
{
    vsock_expect_silence(&f->ports->g, f->ports->loop);
}

static int open_door(struct door_test *f, const char *path, sm_error *err)
{
    return sm_ports_front_door(f->ports->ports, path, err);
}

static const char *make_dir(struct door_test *f)
{
    snprintf(f->dir, sizeof(f->dir), "/tmp/sm-door-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    return f->dir;
}

static const char *make_door(struct door_test *f, char *path, size_t size)
{
    snprintf(path, size, "%s/door", make_dir(f));
    assert_int_equal(open_door(f, path, NULL), 0);
    return path;
}

/* Port 50 is what a client gets that names none. */
static void publish(struct door_test *f)
{
    struct sm_port_spec spec;
    assert_int_equal(sm_port_spec_parse("50", &spec, NULL), 0);
    assert_int_equal(sm_ports_publish(f->ports->ports, &spec, NULL), 0);
}

static int dial(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, sizeof(addr)), 0);
    return fd;
}

static void connects(void **state)
{
    struct door_test *f = *state;
    char path[108], answer[32], expected[32];
    make_door(f, path, sizeof(path));
    int fd = dial(path);
    /* In pieces, and with data right behind. */
    assert_int_equal(write(fd, "CONN", 4), 4);
    expect_silence(f);
    assert_int_equal(write(fd, "ECT vsock:52\nearly", 18), 18);
    struct vg_packet p = expect(f, VG_REQUEST);
    assert_int_equal(p.dst_port, 52);
    expect_silence(f);
    vg_send(&f->ports->g, 52, p.src_port, VG_RESPONSE, 0, NULL, 0);
    vg_send(&f->ports->g, 52, p.src_port, VG_RW, 0, "hello", 5);
    struct vg_packet data = expect(f, VG_RW);
    assert_int_equal(data.len, 5);
    assert_memory_equal(data.data, "early", 5);
    snprintf(expected, sizeof(expected), "OK %u\nhello", p.src_port);
    ssize_t n = recv(fd, answer, sizeof(answer), 0);
    if (n > 0 && (size_t)n < strlen(expected))
        n += recv(fd, answer + n, sizeof(answer) - (size_t)n, 0);
    assert_int_equal(n, strlen(expected));
    assert_memory_equal(answer, expected, strlen(expected));
    close(fd);
    expect(f, VG_SHUTDOWN);
}

/* The guest's proxy is asked for the port; what it is told first, and then. */
static void expect_routed(struct door_test *f, uint16_t port, bool named, const char *data)
{
    struct vg_packet p = expect(f, VG_REQUEST);
    assert_int_equal(p.dst_port, SM_WIRE_PROXY_PORT);
    vg_send(&f->ports->g, SM_WIRE_PROXY_PORT, p.src_port, VG_RESPONSE, 0, NULL, 0);
    p = expect(f, VG_RW);
    assert_int_equal(p.len, 4);
    assert_int_equal(sm_load_le16(p.data), port);
    assert_int_equal(
        sm_load_le16(p.data + 2), SM_WIRE_PROXY_TCP | (named ? SM_WIRE_PROXY_SAY_OK : 0));
    if (!*data)
        return;
    p = expect(f, VG_RW);
    assert_int_equal(p.len, strlen(data));
    assert_memory_equal(p.data, data, strlen(data));
}

static void asks_where_to(void **state)
{
    struct door_test *f = *state;
    char path[108], said[4];
    make_door(f, path, sizeof(path));
    publish(f);
    static const char *const wrong[] = {"CONNECT \n", "CONNECT 4294967296\n", "CONNECT -1\n",
        "CONNECT vsock:\n", "CONNECT vsock:x\n", "CONNECT abc\r\nmore", "CONNECT 0\n",
        "CONNECT 65536\n"};
    static const struct {
        const char *says;
        uint8_t port;
        bool named;
        const char *data;
    } clients[] = {
        {"CONNECT 80\n", 80, true, ""},
        {"CONNECT 80\r\nmore", 80, true, "more"},
        {"GET / HTTP/1.1\r\n", 50, false, "GET / HTTP/1.1\r\n"},
        {"CONNECT a.example:443 HTTP/1.1\r\nx", 50, false, "CONNECT a.example:443 HTTP/1.1\r\nx"},
        {"CONNECT 5 \n", 50, false, "CONNECT 5 \n"},
        {"\n", 50, false, "\n"},
        {"CONNECT 00000000000000000000000000000000000000\n", 50, false,
            "CONNECT 00000000000000000000000000000000000000\n"},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(clients); i++) {
        int fd = dial(path);
        size_t len = strlen(clients[i].says);
        assert_int_equal(write(fd, clients[i].says, len), len);
        expect_routed(f, clients[i].port, clients[i].named, clients[i].data);
        close(fd);
        expect(f, VG_SHUTDOWN);
    }
    int fd = dial(path); /* sends nothing, and tells so */
    shutdown(fd, SHUT_WR);
    expect_routed(f, 50, false, "");
    assert_int_equal(expect(f, VG_SHUTDOWN).flags, 2);
    close(fd);
    assert_int_equal(expect(f, VG_SHUTDOWN).flags, 3);
    for (size_t i = 0; i < SM_ARRAY_LEN(wrong); i++) {
        fd = dial(path);
        assert_int_equal(write(fd, wrong[i], strlen(wrong[i])), strlen(wrong[i]));
        expect_silence(f);
        assert_int_equal(recv(fd, said, sizeof(said), MSG_DONTWAIT), sizeof(said));
        assert_memory_equal(said, "ERR ", sizeof(said));
        close(fd);
    }
}

static void waits_for_the_silent(void **state)
{
    struct door_test *f = *state;
    char path[108];
    make_door(f, path, sizeof(path));
    int fd = dial(path);
    expect_silence(f);
    usleep(1100000); /* silence, and a tick */
    expect_silence(f);
    publish(f);
    usleep(600000);
    expect_routed(f, 50, false, "");
    close(fd);
    expect(f, VG_SHUTDOWN);
}

/* A client that has said what it wants, while nothing can be handed to the guest. */
static void waits_for_the_link(void **state)
{
    struct door_test *f = *state;
    char path[108];
    make_door(f, path, sizeof(path));
    atomic_store(&f->ports->link.busy, true);
    int fd = dial(path);
    assert_int_equal(write(fd, "CONNECT 80\nGET", 14), 14);
    expect_silence(f);
    atomic_store(&f->ports->link.busy, false);
    usleep(1100000); /* ticks */
    expect_routed(f, 80, true, "GET");
    close(fd);
    expect(f, VG_SHUTDOWN);
}

/* More clients than are looked at at once: the others wait. */
static void queues(void **state)
{
    struct door_test *f = *state;
    char path[108];
    int fds[80];
    make_door(f, path, sizeof(path));
    for (unsigned i = 0; i < 60; i++)
        fds[i] = dial(path);
    turn(f);
    for (unsigned i = 60; i < 80; i++)
        fds[i] = dial(path);
    turn(f);
    for (unsigned i = 0; i < 80; i++) {
        assert_int_equal(write(fds[i], "CONNECT 80\n", 11), 11);
        expect_routed(f, 80, true, "");
    }
    for (unsigned i = 0; i < 80; i++)
        close(fds[i]);
}

static void refuses(void **state)
{
    struct door_test *f = *state;
    struct sm_vsock_stats stats;
    char path[108], said[1];
    make_door(f, path, sizeof(path));
    /* A port that nobody listens on in the guest */
    int fd = dial(path);
    assert_int_equal(write(fd, "CONNECT vsock:9\n", 16), 16);
    struct vg_packet p = expect(f, VG_REQUEST);
    vg_send(&f->ports->g, 9, p.src_port, VG_RST, 0, NULL, 0);
    turn(f);
    assert_int_equal(recv(fd, said, 1, MSG_DONTWAIT), 0);
    close(fd);
    fd = dial(path); /* gone before its line was complete */
    assert_int_equal(write(fd, "", 0), 0);
    turn(f);
    close(fd);
    expect_silence(f);
    sm_vsock_get_stats(f->ports->vsock, &stats);
    assert_int_equal(stats.streams, 0);
}

/* A unix socket at "PATH_77", beside the door. */
static int listen_beside(const char *path, struct sockaddr_un *addr)
{
    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    assert_true(snprintf(addr->sun_path, sizeof(addr->sun_path), "%.100s_77", path) < 108);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(listener, (struct sockaddr *)addr, sizeof(*addr)), 0);
    assert_int_equal(listen(listener, 5), 0);
    return listener;
}

static void leads_out_as_well(void **state)
{
    struct door_test *f = *state;
    struct sockaddr_un addr;
    char path[108], said[2];
    make_door(f, path, sizeof(path));
    int listener = listen_beside(path, &addr);
    vg_send(&f->ports->g, 7000, 77, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RESPONSE);
    int fd = accept(listener, NULL, NULL);
    vg_send(&f->ports->g, 7000, 77, VG_RW, 0, "hi", 2);
    turn(f);
    assert_int_equal(recv(fd, said, sizeof(said), MSG_WAITALL), 2);
    assert_memory_equal(said, "hi", 2);
    vg_send(&f->ports->g, 7001, 78, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST);
    close(fd);
    close(listener);
    unlink(addr.sun_path);
}

static void leads_out_of_a_private_directory_only(void **state)
{
    struct door_test *f = *state;
    struct sockaddr_un addr;
    char path[108];
    snprintf(path, sizeof(path), "%s/door", make_dir(f));
    assert_int_equal(chmod(f->dir, 0755), 0);
    assert_int_equal(open_door(f, path, NULL), 0);
    int listener = listen_beside(path, &addr);
    vg_send(&f->ports->g, 7000, 77, VG_REQUEST, 0, NULL, 0);
    expect(f, VG_RST);
    close(listener);
    unlink(addr.sun_path);
}

static void is_the_callers_own(void **state)
{
    struct door_test *f = *state;
    char path[256];
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct stat st;
    sm_error err;
    const char *dir = make_dir(f);
    snprintf(path, sizeof(path), "%s/%0100d", dir, 0);
    assert_int_equal(open_door(f, path, &err), -SM_EINVAL);
    snprintf(path, sizeof(path), "%s/none/door", dir);
    assert_int_equal(open_door(f, path, &err), -SM_ENOTFOUND);
    snprintf(path, sizeof(path), "%s/door", dir);
    int other = open(path, O_CREAT | O_RDWR, 0600); /* no socket: stays */
    close(other);
    assert_int_equal(open_door(f, path, &err), -SM_EBUSY);
    assert_int_equal(unlink(path), 0);
    assert_true(snprintf(addr.sun_path, sizeof(addr.sun_path), "%.100s", path) < 108);
    other = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(other, (struct sockaddr *)&addr, sizeof(addr)), 0);
    assert_int_equal(listen(other, 5), 0);
    assert_int_equal(open_door(f, path, &err), -SM_EBUSY); /* somebody lives there */
    close(other);
    assert_int_equal(open_door(f, path, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    char second[sizeof(path) + 8];
    snprintf(second, sizeof(second), "%s2", path);
    assert_int_equal(open_door(f, second, &err), -SM_EEXIST);
    assert_int_equal(stat(second, &st), -1); /* nothing left behind */
}

static void in_the_abstract(void **state)
{
    struct door_test *f = *state;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    char name[64];
    int n = snprintf(name, sizeof(name), "@sm-test-%d", (int)getpid());
    assert_int_equal(open_door(f, name, NULL), 0);
    memcpy(addr.sun_path + 1, name + 1, (size_t)n - 1);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    socklen_t size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + (size_t)n);
    assert_int_equal(connect(fd, (struct sockaddr *)&addr, size), 0);
    assert_int_equal(write(fd, "CONNECT 7\n", 10), 10);
    expect_routed(f, 7, true, "");
    close(fd);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(connects),
        T(asks_where_to),
        T(waits_for_the_silent),
        T(waits_for_the_link),
        T(queues),
        T(refuses),
        T(leads_out_as_well),
        T(leads_out_of_a_private_directory_only),
        T(is_the_callers_own),
        T(in_the_abstract),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
