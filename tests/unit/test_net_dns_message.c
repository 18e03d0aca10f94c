/* DNS messages: questions, answers, compression, what is malformed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "net/dns_message.h"
#include "util/bytes.h"

struct msg {
    uint8_t b[1024];
    size_t len;
};

static void put(struct msg *m, const void *data, size_t n)
{
    assert_true(m->len + n <= sizeof(m->b));
    memcpy(m->b + m->len, data, n);
    m->len += n;
}

static void put16(struct msg *m, unsigned v)
{
    put(m, (uint8_t[]){(uint8_t)(v >> 8), (uint8_t)v}, 2);
}

static struct msg header(unsigned flags, unsigned qd, unsigned an)
{
    struct msg m = {.len = 0};
    put16(&m, 0xbeef);
    put16(&m, flags);
    put16(&m, qd);
    put16(&m, an);
    put16(&m, 0);
    put16(&m, 0);
    return m;
}

static struct msg question(unsigned flags, unsigned an, unsigned type)
{
    struct msg m = header(flags, 1, an);
    put(&m, "\3wWw\7example\3COM", 17);
    put16(&m, type);
    put16(&m, 1);
    return m;
}

static void record(struct msg *m, unsigned type, uint32_t ttl, const void *data, size_t n)
{
    put16(m, 0xc00c);
    put16(m, type);
    put16(m, 1);
    put16(m, ttl >> 16);
    put16(m, ttl & 0xffff);
    put16(m, (unsigned)n);
    put(m, data, n);
}

static bool count_record(void *arg, const struct sm_dns_record *r)
{
    (void)r;
    ++*(size_t *)arg;
    return true;
}

static void test_query(void **state)
{
    (void)state;
    struct msg m = question(0x0100, 0, SM_DNS_TYPE_A);
    struct sm_dns_question q;
    size_t plain = m.len;
    assert_true(sm_dns_parse_query(m.b, m.len, &q));
    assert_string_equal(q.name, "www.example.com");
    assert_int_equal(q.id, 0xbeef);
    assert_int_equal(q.type, SM_DNS_TYPE_A);
    assert_int_equal(q.udp_size, 512);
    assert_int_equal(q.end, plain);
    for (size_t n = 0; n < plain; n++)
        assert_false(sm_dns_parse_query(m.b, n, &q));
    m.b[11] = 1; /* one additional record: OPT, 1232 bytes */
    put(&m, "\0\0\x29\x04\xd0\0\0\0\0\0\0", 11);
    assert_true(sm_dns_parse_query(m.b, m.len, &q));
    assert_int_equal(q.udp_size, 1232);
    assert_false(sm_dns_parse_query(m.b, m.len - 1, &q));
    m.b[2] = 0x80;
    assert_false(sm_dns_parse_query(m.b, m.len, &q)); /* a response */
    m.b[2] = 0x28;
    assert_false(sm_dns_parse_query(m.b, m.len, &q)); /* an update */
}

static void test_names_are_unambiguous(void **state)
{
    (void)state;
    struct msg m = header(0, 1, 0);
    put(&m, "\013a.example\\\xff\3com", 17); /* a dot inside of a label */
    put16(&m, 1);
    put16(&m, 1);
    struct sm_dns_question q;
    assert_true(sm_dns_parse_query(m.b, m.len, &q));
    assert_string_equal(q.name, "a\\046example\\092\\255.com");
    m = header(0, 1, 0);
    put(&m, "", 1);
    put16(&m, 2);
    put16(&m, 1);
    assert_true(sm_dns_parse_query(m.b, m.len, &q));
    assert_string_equal(q.name, "");
}

static void test_name_bounds(void **state)
{
    (void)state;
    struct msg m = header(0, 1, 0); /* a pointer to itself */
    put16(&m, 0xc00c);
    put(&m, "\0\1\0\1", 4);
    struct sm_dns_question q;
    assert_false(sm_dns_parse_query(m.b, m.len, &q));
    m = header(0, 1, 0); /* forwards */
    put16(&m, 0xc00e);
    put(&m, "\0\1\0\1\0", 5);
    assert_false(sm_dns_parse_query(m.b, m.len, &q));
    m = header(0, 1, 0); /* reserved label type */
    put(&m, "\x41x\0\0\1\0\1", 7);
    assert_false(sm_dns_parse_query(m.b, m.len, &q));
    m = header(0, 1, 0); /* 4 * 64 octets are too many, whatever their bytes */
    for (int i = 0; i < 4; i++) {
        put(&m, "\x3f", 1);
        for (int k = 0; k < 63; k++)
            put(&m, "\xff", 1);
    }
    put(&m, "\0\0\1\0\1", 5);
    assert_false(sm_dns_parse_query(m.b, m.len, &q));
}

struct seen {
    unsigned n, addrs, hints, targets;
    struct sm_ip last;
    uint32_t ttl;
    char target[SM_DNS_NAME_TEXT];
};

static bool see(void *arg, const struct sm_dns_record *r)
{
    struct seen *seen = arg;
    seen->n++;
    seen->ttl = r->ttl;
    if (r->addr) {
        seen->last = *r->addr;
        seen->addrs += r->type == SM_DNS_TYPE_A || r->type == SM_DNS_TYPE_AAAA;
        seen->hints += r->type == SM_DNS_TYPE_HTTPS;
    }
    if (r->target) {
        seen->targets++;
        strcpy(seen->target, r->target);
    }
    return true;
}

/* The id and the flags change on the way to the resolver: a name that lies in them is judged as one
 * and asked as another. In an answer likewise, where the header is not a place for names. */
static void test_name_in_the_header(void **state)
{
    (void)state;
    struct msg m = {.len = 0};
    size_t n = 0;
    put(&m, "\1a\0\0\0\1\0\0\0\0\0\0\xc0\0\0\1\0\1", 18);
    struct sm_dns_question q;
    assert_false(sm_dns_parse_query(m.b, m.len, &q));
    m = question(0x8180, 1, SM_DNS_TYPE_CNAME);
    record(&m, SM_DNS_TYPE_CNAME, 60, "\1x\xc0\x04", 4);
    assert_false(sm_dns_walk(m.b, m.len, count_record, &n));
    assert_int_equal(n, 0);
}

static void test_answer(void **state)
{
    (void)state;
    struct msg query = question(0x0100, 0, SM_DNS_TYPE_A);
    struct msg m = question(0x8180, 4, SM_DNS_TYPE_A);
    struct sm_dns_question q;
    struct seen seen = {0};
    struct sm_ip want = sm_ip_from_v4(0x01020304);
    assert_true(sm_dns_parse_query(query.b, query.len, &q));
    record(&m, SM_DNS_TYPE_CNAME, 60, "\3cdn\xc0\x10", 6); /* cdn.example.com */
    record(&m, 16, 60, "\2hi", 3);                         /* TXT */
    record(&m, SM_DNS_TYPE_HTTPS, 60, "\0\1\0\0\1\0\3\2h2\0\4\0\4\1\1\1\1", 18);
    record(&m, SM_DNS_TYPE_A, 0x10001, "\1\2\3\4", 4);
    size_t whole = m.len;
    assert_true(sm_dns_is_answer(m.b, m.len, 0xbeef, &q));
    assert_false(sm_dns_is_answer(m.b, m.len, 0xbeee, &q));
    assert_false(sm_dns_is_answer(query.b, query.len, 0xbeef, &q));
    assert_true(sm_dns_walk(m.b, m.len, see, &seen));
    assert_int_equal(seen.n, 4);
    assert_int_equal(seen.addrs, 1);
    assert_int_equal(seen.hints, 1);
    assert_int_equal(seen.targets, 1);
    assert_string_equal(seen.target, "cdn.example.com");
    assert_true(sm_ip_equal(&seen.last, &want));
    assert_int_equal(seen.ttl, 0x10001);
    for (size_t n = q.end; n < whole; n++)
        assert_false(sm_dns_walk(m.b, n, see, &seen));
}

static void test_bad_records(void **state)
{
    (void)state;
    static const struct {
        unsigned type;
        const char *data;
        size_t n;
    } bad[] = {
        {SM_DNS_TYPE_A, "\1\2\3\4\5", 5},
        {SM_DNS_TYPE_A, "\1\2\3", 3},
        {SM_DNS_TYPE_AAAA, "\1\2\3\4", 4},
        {SM_DNS_TYPE_CNAME, "\1a\0x", 4},
        {SM_DNS_TYPE_CNAME, "\5a", 2},
        {SM_DNS_TYPE_HTTPS, "\0\1\0\0\4\0\3\1\1\1", 10},
        {SM_DNS_TYPE_HTTPS, "\0\1\0\0\4\0\x40\1\1\1\1", 11},
        {SM_DNS_TYPE_HTTPS, "\0\1\0\0\4", 5},
        {SM_DNS_TYPE_HTTPS, "\0", 1},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        struct msg m = question(0x8180, 1, SM_DNS_TYPE_A);
        struct seen seen = {0};
        record(&m, bad[i].type, 1, bad[i].data, bad[i].n);
        if (sm_dns_walk(m.b, m.len, see, &seen))
            fail_msg("record %zu was accepted", i);
    }
}

static void test_error_and_truncation(void **state)
{
    (void)state;
    struct msg m = question(0x0100, 0, SM_DNS_TYPE_A);
    struct sm_dns_question q;
    struct seen seen = {0};
    assert_true(sm_dns_parse_query(m.b, m.len, &q));
    size_t len = sm_dns_make_error(m.b, &q, SM_DNS_RCODE_NXDOMAIN);
    assert_int_equal(len, q.end);
    assert_memory_equal(m.b + 2, "\x81\x83", 2);
    assert_true(sm_dns_is_answer(m.b, len, 0xbeef, &q));
    m = question(0x8180, 1, SM_DNS_TYPE_A);
    record(&m, SM_DNS_TYPE_A, 1, "\1\2\3\4", 4);
    len = sm_dns_truncate(m.b, &q);
    assert_true(sm_dns_walk(m.b, len, see, &seen));
    assert_int_equal(seen.n, 0);
    assert_int_equal(m.b[2] & 2, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_query),
        cmocka_unit_test(test_names_are_unambiguous),
        cmocka_unit_test(test_name_bounds),
        cmocka_unit_test(test_name_in_the_header),
        cmocka_unit_test(test_answer),
        cmocka_unit_test(test_bad_records),
        cmocka_unit_test(test_error_and_truncation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
