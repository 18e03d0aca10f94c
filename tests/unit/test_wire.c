/* The message codec: round trips, every way of being cut short, lies about lengths. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "wire/wire.h"

#define MAX_FRAME (SM_WIRE_HEADER + SM_WIRE_MAX_PAYLOAD)

union message {
#define MEMBER(TYPE, name) struct sm_wire_##name name;
    SM_WIRE_MESSAGES(MEMBER)
#undef MEMBER
};

static const uint8_t some_bytes[40] = {0, 1, 2, 3, 0xff};

static const char *const example_argv[] = {"sh", "-c", "", "x", NULL};

/* One of each message with every field set to something of its own; those without fields have no
 * row. */
static const void *const examples[] = {
    [SM_WIRE_HELLO] = &(const struct sm_wire_hello){1, 2, 3, "0.1.0"},
    [SM_WIRE_PING] = &(const struct sm_wire_ping){4},
    [SM_WIRE_EXEC] = &(const struct sm_wire_exec){.flags = 5,
        .timeout_ms = 6,
        .grace_ms = 7,
        .rows = 8,
        .columns = 9,
        .user = "app:staff",
        .cwd = "/srv",
        .argv = {.strv = example_argv},
        .env = {.data = "A=1\0B=", .bytes = 7, .count = 2},
        .process = {.flags = 0x7f,
            .bounding = UINT64_MAX - 1,
            .ambient = 38,
            .umask = 39,
            .oom_score_adj = -40,
            .limits = {some_bytes, 2 * SM_WIRE_LIMIT_SIZE},
            .groups = {.data = "staff\0007", .bytes = 8, .count = 2},
            .sysctls = {.data = "a.b=c", .bytes = 6, .count = 1},
            .tmpfs = {.data = "/t", .bytes = 3, .count = 1},
            .hosts = {.data = "::1\th", .bytes = 6, .count = 1}}},
    [SM_WIRE_ATTACH] = &(const struct sm_wire_attach){10},
    [SM_WIRE_WRITE_FILE] = &(const struct sm_wire_write_file){"/a/b", 0644, 11, 12, 13},
    [SM_WIRE_READ_FILE] = &(const struct sm_wire_read_file){"/a/c", 14},
    [SM_WIRE_SET_CLOCK] = &(const struct sm_wire_set_clock){UINT64_MAX},
    [SM_WIRE_ADD_ENTROPY] = &(const struct sm_wire_add_entropy){{some_bytes, 40}},
    [SM_WIRE_SET_IDENTITY] = &(const struct sm_wire_set_identity){"host", ""},
    [SM_WIRE_RESTORE] = &(const struct sm_wire_restore){15, {some_bytes, 32}, "h", "m", 16},
    [SM_WIRE_SET_NETWORK] = &(const struct sm_wire_set_network){.mac = {some_bytes, 6},
        .mtu = 35,
        .address4 = {some_bytes, 4},
        .address6 = {some_bytes, 16},
        .gateway6 = {some_bytes, 16},
        .prefix4 = 36,
        .prefix6 = 37,
        .resolv_conf = "nameserver"},
    [SM_WIRE_WAIT_LISTEN] = &(const struct sm_wire_wait_listen){80, 16},
    [SM_WIRE_WAIT_IDLE] = &(const struct sm_wire_wait_idle){17, 18},
    [SM_WIRE_FREEZE] = &(const struct sm_wire_freeze){34},
    [SM_WIRE_ERROR] = &(const struct sm_wire_error){3, -2, "what failed"},
    [SM_WIRE_PONG] = &(const struct sm_wire_pong){19, 20, 21, 22, 23},
    [SM_WIRE_STARTED] = &(const struct sm_wire_started){24},
    [SM_WIRE_EXIT] = &(const struct sm_wire_exit){-1, 9, 1, 1, 25, 26},
    [SM_WIRE_FILE] = &(const struct sm_wire_file){27, 28, 29, 30},
    [SM_WIRE_SOCKETS] = &(const struct sm_wire_sockets){{some_bytes, SM_WIRE_SOCKET_SIZE}},
    [SM_WIRE_SIGNAL] = &(const struct sm_wire_signal){15, 1},
    [SM_WIRE_RESIZE] = &(const struct sm_wire_resize){31, 32},
    [SM_WIRE_WINDOW] = &(const struct sm_wire_window){33},
};

static size_t example(enum sm_wire_type type, uint8_t *buf, size_t cap)
{
    struct sm_wire_writer w = {.buf = buf, .cap = cap};
    if ((size_t)type < SM_ARRAY_LEN(examples) && examples[type])
        sm_wire_put(&w, type, examples[type]);
    else
        sm_wire_put_empty(&w, type);
    assert_false(w.failed);
    return w.len;
}

static const enum sm_wire_type with_fields[] = {
#define NAME(TYPE, name) SM_WIRE_##TYPE,
    SM_WIRE_MESSAGES(NAME)
#undef NAME
};

static void exec_comes_back(void **state)
{
    uint8_t buf[512];
    struct sm_wire_frame f;
    struct sm_wire_exec m;
    size_t len = example(SM_WIRE_EXEC, buf, sizeof(buf));
    assert_int_equal(sm_wire_parse(buf, len, &f), 1);
    assert_true(sm_wire_get_exec(&f, &m));
    assert_int_equal(m.flags, 5);
    assert_int_equal(m.timeout_ms, 6);
    assert_int_equal(m.grace_ms, 7);
    assert_int_equal(m.rows, 8);
    assert_int_equal(m.columns, 9);
    assert_string_equal(m.user, "app:staff");
    assert_string_equal(m.cwd, "/srv");
    static const char *const argv[] = {"sh", "-c", "", "x"}, *const env[] = {"A=1", "B="};
    uint32_t cursor = 0;
    const char *s;
    assert_int_equal(m.argv.count, 4);
    for (size_t i = 0; i < 4; i++) {
        assert_true(sm_wire_list_next(&m.argv, &cursor, &s));
        assert_string_equal(s, argv[i]);
    }
    assert_false(sm_wire_list_next(&m.argv, &cursor, &s));
    cursor = 0;
    assert_int_equal(m.env.count, 2);
    for (size_t i = 0; i < 2; i++) {
        assert_true(sm_wire_list_next(&m.env, &cursor, &s));
        assert_string_equal(s, env[i]);
    }
    assert_false(sm_wire_list_next(&m.env, &cursor, &s));
}

static void attributes_of_the_process_come_back(void **state)
{
    uint8_t buf[512];
    struct sm_wire_frame f;
    struct sm_wire_exec m;
    size_t len = example(SM_WIRE_EXEC, buf, sizeof(buf));
    assert_int_equal(sm_wire_parse(buf, len, &f), 1);
    assert_true(sm_wire_get_exec(&f, &m));
    assert_int_equal(m.process.flags, 0x7f);
    assert_true(m.process.bounding == UINT64_MAX - 1);
    assert_int_equal(m.process.ambient, 38);
    assert_int_equal(m.process.umask, 39);
    assert_int_equal(m.process.oom_score_adj, -40);
    assert_int_equal(m.process.groups.count, 2);
    assert_string_equal(m.process.groups.data, "staff");
    assert_string_equal(m.process.sysctls.data, "a.b=c");
    assert_string_equal(m.process.tmpfs.data, "/t");
    assert_string_equal(m.process.hosts.data, "::1\th");
}

static void limits_are_records(void **state)
{
    uint8_t records[2 * SM_WIRE_LIMIT_SIZE];
    struct sm_wire_limit in = {.resource = 7, .soft = 1024, .hard = UINT64_MAX}, out;
    sm_wire_limit_store(records, &in);
    in.resource = 8;
    sm_wire_limit_store(records + SM_WIRE_LIMIT_SIZE, &in);
    struct sm_wire_process m = {.limits = {records, sizeof(records)}};
    for (uint32_t i = 0; i < 2; i++) {
        assert_true(sm_wire_limit_get(&m, i, &out));
        assert_int_equal(out.resource, 7 + i);
        assert_int_equal(out.soft, 1024);
        assert_true(out.hard == UINT64_MAX);
    }
    assert_false(sm_wire_limit_get(&m, 2, &out));
}

/* The usual command pays four bytes for what it does not ask for. */
static void default_attributes_are_a_flags_word(void **state)
{
    uint8_t buf[256];
    struct sm_wire_frame f;
    struct sm_wire_exec m = {.argv = {.strv = example_argv}};
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    sm_wire_put_exec(&w, &m);
    size_t bare = w.len;
    m.process.bounding = 1; /* nothing says that it counts */
    sm_wire_put_exec(&w, &m);
    assert_false(w.failed);
    assert_int_equal(w.len, 2 * bare);
    assert_memory_equal(buf + bare - 4, "\0\0\0\0", 4);
    memset(&m, 0xff, sizeof(m));
    assert_int_equal(sm_wire_parse(buf + bare, bare, &f), 1);
    assert_true(sm_wire_get_exec(&f, &m));
    assert_memory_equal(&m.process, &(struct sm_wire_process){0}, sizeof(m.process));
}

static void numbers_and_bytes_come_back(void **state)
{
    uint8_t buf[256];
    struct sm_wire_frame f;
    struct sm_wire_exit e;
    size_t len = example(SM_WIRE_EXIT, buf, sizeof(buf));
    assert_int_equal(sm_wire_parse(buf, len, &f), 1);
    assert_true(sm_wire_get_exit(&f, &e));
    assert_int_equal(e.code, -1);
    assert_int_equal(e.signal, 9);
    assert_int_equal(e.timed_out, 1);
    assert_int_equal(e.out_of_memory, 1);
    assert_int_equal(e.peak_rss_bytes, 25);
    assert_int_equal(e.wall_us, 26);
    /* The bytes themselves: the other side may be another build. */
    static const uint8_t want[] = {32, 0, 0, 0, 0x44, 0, 0, 0, 255, 255, 255, 255, 9, 0, 0, 0, 1, 0,
        0, 0, 1, 0, 0, 0, 25, 0, 0, 0, 0, 0, 0, 0, 26, 0, 0, 0, 0, 0, 0, 0};
    assert_int_equal(len, sizeof(want));
    assert_memory_equal(buf, want, len);

    struct sm_wire_restore r;
    len = example(SM_WIRE_RESTORE, buf, sizeof(buf));
    assert_int_equal(sm_wire_parse(buf, len, &f), 1);
    assert_true(sm_wire_get_restore(&f, &r));
    assert_int_equal(r.realtime_ns, 15);
    assert_int_equal(r.seed.len, 32);
    assert_memory_equal(r.seed.data, some_bytes, 32);
    assert_string_equal(r.hostname, "h");
    assert_string_equal(r.machine_id, "m");
    assert_int_equal(r.attach_pid, 16);
}

/* Every message: encoding what was decoded gives the same bytes. */
static void all_come_back(void **state)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(with_fields); i++) {
        uint8_t one[512], two[512];
        union message m;
        struct sm_wire_frame f;
        size_t len = example(with_fields[i], one, sizeof(one));
        assert_true(len > SM_WIRE_HEADER);
        assert_int_equal(sm_wire_parse(one, len, &f), 1);
        assert_int_equal(f.len, len - SM_WIRE_HEADER);
        assert_true(sm_wire_get(&f, with_fields[i], &m));
        struct sm_wire_writer w = {.buf = two, .cap = sizeof(two)};
        sm_wire_put(&w, with_fields[i], &m);
        assert_false(w.failed);
        assert_int_equal(w.len, len);
        assert_memory_equal(one, two, len);
    }
}

/* On memory of the exact size, so that a sanitizer sees a read beyond. */
static bool decodes(const uint8_t *frame, size_t payload, enum sm_wire_type type)
{
    union message m;
    uint8_t *exact = malloc(payload ? payload : 1);
    if (payload)
        memcpy(exact, frame + SM_WIRE_HEADER, payload);
    struct sm_wire_frame f = {.len = (uint32_t)payload, .type = (uint16_t)type, .payload = exact};
    bool ok = sm_wire_get(&f, type, &m);
    free(exact);
    return ok;
}

static void every_cut_is_refused(void **state)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(with_fields); i++) {
        uint8_t buf[600] = {0};
        struct sm_wire_frame f;
        size_t len = example(with_fields[i], buf, sizeof(buf));
        for (size_t cut = 0; cut < len; cut++)
            assert_int_equal(sm_wire_parse(buf, cut, &f), 0);
        size_t payload = len - SM_WIRE_HEADER;
        assert_true(decodes(buf, payload, with_fields[i]));
        for (size_t cut = 0; cut < payload; cut++)
            assert_false(decodes(buf, cut, with_fields[i]));
        assert_false(decodes(buf, payload + 1, with_fields[i])); /* a byte left over */
    }
}

/* Each 4 bytes of a payload in turn say something outrageous: never a crash, and what is accepted
 * all the same is within the payload. */
static void every_lie_stays_inside(void **state)
{
    static const uint32_t lies[] = {0, 1, 0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffc, 70000};
    for (size_t i = 0; i < SM_ARRAY_LEN(with_fields); i++) {
        uint8_t buf[512], lie[512];
        size_t len = example(with_fields[i], buf, sizeof(buf));
        for (size_t at = SM_WIRE_HEADER; at + 4 <= len; at++) {
            for (size_t k = 0; k < SM_ARRAY_LEN(lies); k++) {
                memcpy(lie, buf, len);
                sm_store_le32(lie + at, lies[k]);
                decodes(lie, len - SM_WIRE_HEADER, with_fields[i]);
            }
        }
    }
}

static void lists_must_count_right(void **state)
{
    uint8_t buf[512];
    size_t len = example(SM_WIRE_EXEC, buf, sizeof(buf));
    /* flags, timeouts, size of the terminal: 16; user: 4 + 9 + 1; cwd: 4 + 4 + 1. */
    uint8_t *argv = buf + SM_WIRE_HEADER + 16 + 14 + 9;
    assert_int_equal(sm_load_le32(argv), 4);
    assert_int_equal(sm_load_le32(argv + 4), 9);
    assert_true(decodes(buf, len - SM_WIRE_HEADER, SM_WIRE_EXEC));
    sm_store_le32(argv, 3);
    assert_false(decodes(buf, len - SM_WIRE_HEADER, SM_WIRE_EXEC));
    sm_store_le32(argv, 5);
    assert_false(decodes(buf, len - SM_WIRE_HEADER, SM_WIRE_EXEC));
    sm_store_le32(argv, 4);
    argv[8 + 8] = 'x'; /* the last string's NUL */
    assert_false(decodes(buf, len - SM_WIRE_HEADER, SM_WIRE_EXEC));
}

static void strings_hold_no_nul(void **state)
{
    uint8_t buf[128];
    size_t len = example(SM_WIRE_READ_FILE, buf, sizeof(buf));
    assert_true(decodes(buf, len - SM_WIRE_HEADER, SM_WIRE_READ_FILE));
    buf[SM_WIRE_HEADER + 4 + 2] = 0;
    assert_false(decodes(buf, len - SM_WIRE_HEADER, SM_WIRE_READ_FILE));
    buf[SM_WIRE_HEADER + 4 + 2] = 'a';
    buf[SM_WIRE_HEADER + 4 + 4] = 'a'; /* no end */
    assert_false(decodes(buf, len - SM_WIRE_HEADER, SM_WIRE_READ_FILE));
}

static void headers_that_are_none(void **state)
{
    uint8_t h[SM_WIRE_HEADER];
    struct sm_wire_frame f;
    sm_wire_data_header(h, SM_WIRE_STDOUT, SM_WIRE_MAX_DATA);
    assert_int_equal(sm_wire_parse(h, sizeof(h), &f), 0);
    assert_int_equal(f.len, SM_WIRE_MAX_DATA);
    sm_wire_data_header(h, SM_WIRE_STDOUT, SM_WIRE_MAX_DATA + 1);
    assert_int_equal(sm_wire_parse(h, sizeof(h), &f), -1);
    sm_wire_data_header(h, SM_WIRE_EXEC, SM_WIRE_MAX_PAYLOAD + 1);
    assert_int_equal(sm_wire_parse(h, sizeof(h), &f), -1);
    sm_wire_data_header(h, SM_WIRE_OK, 1);
    assert_int_equal(sm_wire_parse(h, sizeof(h), &f), -1);
    sm_wire_data_header(h, (enum sm_wire_type)0x99, 0);
    assert_int_equal(sm_wire_parse(h, sizeof(h), &f), -1);
    sm_wire_data_header(h, SM_WIRE_OK, 0);
    assert_int_equal(sm_wire_parse(h, sizeof(h), &f), 1);
    h[6] = 1;
    assert_int_equal(sm_wire_parse(h, sizeof(h), &f), -1);
}

static void what_does_not_fit_is_not_written(void **state)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(with_fields); i++) {
        uint8_t buf[512], exact[512];
        union message m;
        struct sm_wire_frame f;
        size_t len = example(with_fields[i], buf, sizeof(buf));
        assert_int_equal(sm_wire_parse(buf, len, &f), 1);
        assert_true(sm_wire_get(&f, with_fields[i], &m));
        for (size_t cap = 0; cap < len; cap++) {
            memset(exact, 0xaa, sizeof(exact));
            struct sm_wire_writer w = {.buf = exact, .cap = cap};
            sm_wire_put(&w, with_fields[i], &m);
            assert_true(w.failed);
            assert_int_equal(w.len, 0);
            assert_int_equal(exact[cap], 0xaa);
        }
        struct sm_wire_writer count = {.buf = NULL};
        sm_wire_put(&count, with_fields[i], &m);
        assert_false(count.failed);
        assert_int_equal(count.len, len);
    }
}

static void a_failure_sticks(void **state)
{
    uint8_t buf[64];
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    char hostname[SM_WIRE_MAX_HOSTNAME + 2];
    memset(hostname, 'h', sizeof(hostname) - 1);
    hostname[sizeof(hostname) - 1] = 0;
    sm_wire_put_ping(&w, &(struct sm_wire_ping){1});
    assert_int_equal(w.len, 16);
    sm_wire_put_set_identity(&w, &(struct sm_wire_set_identity){.hostname = hostname});
    assert_true(w.failed);
    sm_wire_put_empty(&w, SM_WIRE_OK);
    assert_true(w.failed);
    assert_int_equal(w.len, 16);
}

static void bounds_hold_for_the_writer_too(void **state)
{
    static uint8_t buf[MAX_FRAME + 64];
    static char *strings[SM_WIRE_MAX_STRINGS + 2];
    static uint8_t data[SM_WIRE_MAX_DATA + 1];
    static char a[] = "a";
    struct sm_wire_writer w = {.buf = buf, .cap = sizeof(buf)};
    for (size_t i = 0; i < SM_WIRE_MAX_STRINGS; i++)
        strings[i] = a;
    struct sm_wire_exec m = {.argv = {.strv = (const char *const *)strings}};
    sm_wire_put_exec(&w, &m);
    assert_false(w.failed);
    strings[SM_WIRE_MAX_STRINGS] = a;
    sm_wire_put_exec(&w, &m);
    assert_true(w.failed);

    char *huge = malloc(SM_WIRE_MAX_PAYLOAD);
    memset(huge, 'x', SM_WIRE_MAX_PAYLOAD - 1);
    huge[SM_WIRE_MAX_PAYLOAD - 1] = 0;
    w = (struct sm_wire_writer){.buf = buf, .cap = sizeof(buf)};
    m.argv = (struct sm_wire_list){.strv = (const char *const[]){huge, NULL}};
    sm_wire_put_exec(&w, &m);
    assert_true(w.failed);
    free(huge);

    w = (struct sm_wire_writer){.buf = buf, .cap = sizeof(buf)};
    sm_wire_put_data(&w, SM_WIRE_DATA, data, SM_WIRE_MAX_DATA);
    assert_false(w.failed);
    sm_wire_put_data(&w, SM_WIRE_DATA, data, SM_WIRE_MAX_DATA + 1);
    assert_true(w.failed);
}

static void sockets_are_records(void **state)
{
    uint8_t records[2 * SM_WIRE_SOCKET_SIZE];
    struct sm_wire_socket in = {.family = 6,
                              .protocol = 17,
                              .port = 5353,
                              .address = {1, 2, 3, [15] = 9}},
                          out;
    sm_wire_socket_store(records, &in);
    sm_wire_socket_store(records + SM_WIRE_SOCKET_SIZE, &(struct sm_wire_socket){.port = 80});
    struct sm_wire_sockets m = {.records = {records, sizeof(records) - 1}};
    assert_true(sm_wire_sockets_get(&m, 0, &out));
    assert_int_equal(out.family, 6);
    assert_int_equal(out.protocol, 17);
    assert_int_equal(out.port, 5353);
    assert_memory_equal(out.address, in.address, 16);
    assert_false(sm_wire_sockets_get(&m, 1, &out)); /* half a record is none */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exec_comes_back),
        cmocka_unit_test(attributes_of_the_process_come_back),
        cmocka_unit_test(limits_are_records),
        cmocka_unit_test(default_attributes_are_a_flags_word),
        cmocka_unit_test(numbers_and_bytes_come_back),
        cmocka_unit_test(all_come_back),
        cmocka_unit_test(every_cut_is_refused),
        cmocka_unit_test(every_lie_stays_inside),
        cmocka_unit_test(lists_must_count_right),
        cmocka_unit_test(strings_hold_no_nul),
        cmocka_unit_test(headers_that_are_none),
        cmocka_unit_test(what_does_not_fit_is_not_written),
        cmocka_unit_test(a_failure_sticks),
        cmocka_unit_test(bounds_hold_for_the_writer_too),
        cmocka_unit_test(sockets_are_records),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
