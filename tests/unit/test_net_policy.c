/* Egress policy: every special range and disguise, targets, layers, names and answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "net/names.h"
#include "net/policy.h"
#include "util/bytes.h"

static struct sm_ip ip(const char *text)
{
    struct sm_ip out;
    if (!sm_ip_parse(text, &out))
        fail_msg("%s does not parse", text);
    return out;
}

static struct sm_policy policy_of(const char *text)
{
    struct sm_policy p = {0};
    sm_error err;
    if (sm_policy_parse(text, strlen(text), &p, &err))
        fail_msg("%s", err.message);
    return p;
}

static void expect(const struct sm_policy *p, const char *addr, int port, enum sm_verdict want)
{
    struct sm_ip a = ip(addr);
    enum sm_verdict got = sm_policy_decide(p, &a, port, NULL);
    if (got != want)
        fail_msg("%s port %d: got '%s', want '%s'", addr, port, sm_verdict_text(got),
            sm_verdict_text(want));
}

/* First and last address of each range, and its neighbours outside. */
static const struct {
    const char *addr;
    enum sm_ip_class class;
} classes[] = {
    {"0.0.0.0", SM_IP_THIS_HOST},
    {"0.255.255.255", SM_IP_THIS_HOST},
    {"1.0.0.0", SM_IP_GLOBAL},
    {"9.255.255.255", SM_IP_GLOBAL},
    {"10.0.0.0", SM_IP_PRIVATE},
    {"10.255.255.255", SM_IP_PRIVATE},
    {"11.0.0.0", SM_IP_GLOBAL},
    {"100.63.255.255", SM_IP_GLOBAL},
    {"100.64.0.0", SM_IP_PRIVATE},
    {"100.127.255.255", SM_IP_PRIVATE},
    {"100.128.0.0", SM_IP_GLOBAL},
    {"126.255.255.255", SM_IP_GLOBAL},
    {"127.0.0.0", SM_IP_THIS_HOST},
    {"127.0.0.1", SM_IP_THIS_HOST},
    {"127.255.255.255", SM_IP_THIS_HOST},
    {"128.0.0.0", SM_IP_GLOBAL},
    {"169.253.255.255", SM_IP_GLOBAL},
    {"169.254.0.0", SM_IP_PRIVATE},
    {"169.254.169.254", SM_IP_PRIVATE},
    {"169.254.255.255", SM_IP_PRIVATE},
    {"169.255.0.0", SM_IP_GLOBAL},
    {"172.15.255.255", SM_IP_GLOBAL},
    {"172.16.0.0", SM_IP_PRIVATE},
    {"172.31.255.255", SM_IP_PRIVATE},
    {"172.32.0.0", SM_IP_GLOBAL},
    {"191.255.255.255", SM_IP_GLOBAL},
    {"192.0.0.0", SM_IP_PRIVATE},
    {"192.0.0.255", SM_IP_PRIVATE},
    {"192.0.1.0", SM_IP_GLOBAL},
    {"192.0.2.0", SM_IP_PRIVATE},
    {"192.0.2.255", SM_IP_PRIVATE},
    {"192.0.3.0", SM_IP_GLOBAL},
    {"192.88.98.255", SM_IP_GLOBAL},
    {"192.88.99.0", SM_IP_PRIVATE},
    {"192.88.99.255", SM_IP_PRIVATE},
    {"192.88.100.0", SM_IP_GLOBAL},
    {"192.167.255.255", SM_IP_GLOBAL},
    {"192.168.0.0", SM_IP_PRIVATE},
    {"192.168.255.255", SM_IP_PRIVATE},
    {"192.169.0.0", SM_IP_GLOBAL},
    {"198.17.255.255", SM_IP_GLOBAL},
    {"198.18.0.0", SM_IP_PRIVATE},
    {"198.19.255.255", SM_IP_PRIVATE},
    {"198.20.0.0", SM_IP_GLOBAL},
    {"198.51.99.255", SM_IP_GLOBAL},
    {"198.51.100.0", SM_IP_PRIVATE},
    {"198.51.100.255", SM_IP_PRIVATE},
    {"198.51.101.0", SM_IP_GLOBAL},
    {"203.0.112.255", SM_IP_GLOBAL},
    {"203.0.113.0", SM_IP_PRIVATE},
    {"203.0.113.255", SM_IP_PRIVATE},
    {"203.0.114.0", SM_IP_GLOBAL},
    {"223.255.255.255", SM_IP_GLOBAL},
    {"224.0.0.0", SM_IP_PRIVATE},
    {"239.255.255.255", SM_IP_PRIVATE},
    {"240.0.0.0", SM_IP_PRIVATE},
    {"255.255.255.254", SM_IP_PRIVATE},
    {"255.255.255.255", SM_IP_PRIVATE},

    {"::", SM_IP_THIS_HOST},
    {"::1", SM_IP_THIS_HOST},
    {"::2", SM_IP_THIS_HOST}, /* v4-compatible 0.0.0.2 */
    {"100::1", SM_IP_PRIVATE},
    {"1fff:ffff::1", SM_IP_PRIVATE},
    {"2000::1", SM_IP_GLOBAL},
    {"2600::1", SM_IP_GLOBAL},
    {"2a00:1450::1", SM_IP_GLOBAL},
    {"3ffe:ffff::1", SM_IP_GLOBAL},
    {"3fff::1", SM_IP_PRIVATE},
    {"3fff:fff:ffff::1", SM_IP_PRIVATE},
    {"3fff:1000::1", SM_IP_GLOBAL},
    {"4000::1", SM_IP_PRIVATE},
    {"5f00::1", SM_IP_PRIVATE},
    {"fbff:ffff::1", SM_IP_PRIVATE},
    {"fc00::1", SM_IP_PRIVATE},
    {"fd00::1", SM_IP_PRIVATE},
    {"fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", SM_IP_PRIVATE},
    {"fe80::1", SM_IP_PRIVATE},
    {"febf:ffff::1", SM_IP_PRIVATE},
    {"fec0::1", SM_IP_PRIVATE},
    {"ff02::1", SM_IP_PRIVATE},
    {"ff0e::1", SM_IP_PRIVATE},
    {"2001:db8::1", SM_IP_PRIVATE},
    {"2001:db9::1", SM_IP_GLOBAL},
    {"2001:1::1", SM_IP_PRIVATE},
    {"2001:2::1", SM_IP_PRIVATE},
    {"2001:10::1", SM_IP_PRIVATE},
    {"2001:2f:ffff::1", SM_IP_PRIVATE},
    {"2001:30::1", SM_IP_GLOBAL},
    {"2001:4860:4860::8888", SM_IP_GLOBAL},

    /* disguises */
    {"::ffff:127.0.0.1", SM_IP_THIS_HOST},
    {"::ffff:10.0.0.1", SM_IP_PRIVATE},
    {"::ffff:169.254.169.254", SM_IP_PRIVATE},
    {"::ffff:8.8.8.8", SM_IP_GLOBAL},
    {"::127.0.0.1", SM_IP_THIS_HOST},
    {"::10.0.0.1", SM_IP_PRIVATE},
    {"::8.8.8.8", SM_IP_PRIVATE}, /* the form itself is reserved */
    {"::ffff:0:127.0.0.1", SM_IP_THIS_HOST},
    {"64:ff9b::127.0.0.1", SM_IP_THIS_HOST},
    {"64:ff9b::10.1.2.3", SM_IP_PRIVATE},
    {"64:ff9b::169.254.169.254", SM_IP_PRIVATE},
    {"64:ff9b::8.8.8.8", SM_IP_GLOBAL},
    {"64:ff9b:1::8.8.8.8", SM_IP_PRIVATE},
    {"2002:7f00:1::1", SM_IP_THIS_HOST},
    {"2002:a00:1::1", SM_IP_PRIVATE},
    {"2002:c0a8:101::1", SM_IP_PRIVATE},
    {"2002:808:808::1", SM_IP_GLOBAL},
    {"2001:0:808:808:0:0:f7f7:f7f7", SM_IP_GLOBAL},  /* Teredo, client 8.8.8.8 */
    {"2001:0:808:808:0:0:f5ff:fffe", SM_IP_PRIVATE}, /* client 10.0.0.1 */
    {"2001:0:a00:1:0:0:f7f7:f7f7", SM_IP_PRIVATE},   /* server 10.0.0.1 */
    {"2001:0:808:808:0:0:80ff:fffe", SM_IP_THIS_HOST},
};

static void test_classes(void **state)
{
    (void)state;
    for (size_t i = 0; i < SM_ARRAY_LEN(classes); i++) {
        struct sm_ip a = ip(classes[i].addr);
        if (sm_ip_classify(&a) != classes[i].class)
            fail_msg(
                "%s: class %d, want %d", classes[i].addr, sm_ip_classify(&a), classes[i].class);
    }
}

static void test_modes(void **state)
{
    (void)state;
    struct sm_policy empty = {0};
    auto_policy all = policy_of("layer all\n");
    auto_policy public = policy_of("layer public\n");
    auto_policy none = policy_of("layer none\n");
    for (size_t i = 0; i < SM_ARRAY_LEN(classes); i++) {
        enum sm_ip_class c = classes[i].class;
        const char *a = classes[i].addr;
        enum sm_verdict loop = SM_VERDICT_LOOPBACK;
        expect(&empty, a, 80, c == SM_IP_THIS_HOST ? loop : SM_VERDICT_ALLOW);
        expect(&all, a, 80, c == SM_IP_THIS_HOST ? loop : SM_VERDICT_ALLOW);
        expect(&public, a, 80,
            c == SM_IP_THIS_HOST ? loop
            : c                  ? SM_VERDICT_PRIVATE
                                 : SM_VERDICT_ALLOW);
        expect(&none, a, 80,
            c == SM_IP_THIS_HOST ? loop
            : c                  ? SM_VERDICT_PRIVATE
                                 : SM_VERDICT_UNLISTED);
    }
}

static void test_rules(void **state)
{
    (void)state;
    auto_policy p = policy_of("# comment\nlayer public\nallow 10.1.0.0/16:443\n"
                              "allow 192.168.7.7\ndeny 8.8.8.0/24\ndeny 1.1.1.1:53-853\n"
                              "allow [fd00:1::/32]:80-81\ndeny 10.1.9.0/24\n");
    expect(&p, "10.1.2.3", 443, SM_VERDICT_ALLOW);
    expect(&p, "10.1.2.3", 80, SM_VERDICT_PRIVATE);
    expect(&p, "10.1.2.3", SM_NO_PORT, SM_VERDICT_PRIVATE);
    expect(&p, "10.1.9.3", 443, SM_VERDICT_RULE); /* deny wins */
    expect(&p, "10.2.2.3", 443, SM_VERDICT_PRIVATE);
    expect(&p, "192.168.7.7", 1, SM_VERDICT_ALLOW);
    expect(&p, "192.168.7.7", SM_NO_PORT, SM_VERDICT_ALLOW);
    expect(&p, "192.168.7.8", 1, SM_VERDICT_PRIVATE);
    expect(&p, "8.8.8.8", 80, SM_VERDICT_RULE);
    expect(&p, "::ffff:8.8.8.8", 80, SM_VERDICT_RULE);
    expect(&p, "64:ff9b::8.8.8.8", 80, SM_VERDICT_RULE);
    expect(&p, "2002:808:808::1", 80, SM_VERDICT_RULE);
    expect(&p, "8.8.9.8", 80, SM_VERDICT_ALLOW);
    expect(&p, "1.1.1.1", 52, SM_VERDICT_ALLOW);
    expect(&p, "1.1.1.1", 53, SM_VERDICT_RULE);
    expect(&p, "1.1.1.1", 853, SM_VERDICT_RULE);
    expect(&p, "1.1.1.1", 854, SM_VERDICT_ALLOW);
    expect(&p, "fd00:1::5", 80, SM_VERDICT_ALLOW);
    expect(&p, "fd00:1::5", 82, SM_VERDICT_PRIVATE);
}

static void test_v6_rule_is_not_v4(void **state)
{
    (void)state;
    auto_policy p = policy_of("layer none\nallow [::/0]\n");
    auto_policy q = policy_of("layer none\nallow 0.0.0.0/0\n");
    expect(&p, "2600::1", 80, SM_VERDICT_ALLOW);
    expect(&p, "8.8.8.8", 80, SM_VERDICT_UNLISTED);
    expect(&p, "127.0.0.1", 80, SM_VERDICT_LOOPBACK);
    expect(&p, "::1", 80, SM_VERDICT_LOOPBACK);
    expect(&q, "8.8.8.8", 80, SM_VERDICT_ALLOW);
    expect(&q, "127.0.0.1", 80, SM_VERDICT_LOOPBACK);
    expect(&q, "2600::1", 80, SM_VERDICT_UNLISTED);
}

static void test_host_loopback(void **state)
{
    (void)state;
    struct sm_policy empty = {0};
    auto_policy p = policy_of("layer all\nallow host-loopback:8000-8001\n");
    auto_policy all = policy_of("layer all\nallow host-loopback\ndeny host-loopback:22\n");
    auto_policy other = policy_of("layer all\n");
    assert_false(sm_policy_opens_host(&empty));
    assert_int_equal(sm_policy_decide_host(&empty, 80), SM_VERDICT_LOOPBACK);
    assert_true(sm_policy_opens_host(&p));
    assert_int_equal(sm_policy_decide_host(&p, 8000), SM_VERDICT_ALLOW);
    assert_int_equal(sm_policy_decide_host(&p, 8002), SM_VERDICT_LOOPBACK);
    assert_int_equal(sm_policy_decide_host(&p, SM_NO_PORT), SM_VERDICT_LOOPBACK);
    assert_int_equal(sm_policy_decide_host(&all, 23), SM_VERDICT_ALLOW);
    assert_int_equal(sm_policy_decide_host(&all, 22), SM_VERDICT_RULE);
    expect(&all, "127.0.0.1", 80, SM_VERDICT_LOOPBACK); /* by the gateway only */
    assert_int_equal(sm_policy_narrow(&p, &other, NULL), 0);
    assert_int_equal(sm_policy_decide_host(&p, 8000), SM_VERDICT_LOOPBACK);
}

static void test_names(void **state)
{
    (void)state;
    auto_policy p = policy_of("layer none\nallow *.Example.com.:443\nallow db.internal\n"
                              "deny secret.example.com\n");
    struct sm_name_set set = {0};
    struct sm_ip pub = ip("93.184.216.34"), priv = ip("10.0.0.5");
    assert_true(sm_policy_has_names(&p));
    assert_int_equal(sm_policy_decide_name(&p, "www.EXAMPLE.com"), SM_VERDICT_ALLOW);
    assert_int_equal(sm_policy_decide_name(&p, "a.b.example.com"), SM_VERDICT_ALLOW);
    assert_int_equal(sm_policy_decide_name(&p, "example.com"), SM_VERDICT_NAME);
    assert_int_equal(sm_policy_decide_name(&p, "evilexample.com"), SM_VERDICT_NAME);
    assert_int_equal(sm_policy_decide_name(&p, "example.com.evil.org"), SM_VERDICT_NAME);
    assert_int_equal(sm_policy_decide_name(&p, "secret.example.com"), SM_VERDICT_NAME);
    assert_int_equal(sm_policy_decide_name(&p, "db.internal"), SM_VERDICT_ALLOW);
    assert_int_equal(sm_policy_decide_name(&p, "x.db.internal"), SM_VERDICT_NAME);
    assert_int_equal(sm_policy_decide_name(&p, ""), SM_VERDICT_NAME);

    assert_false(sm_policy_match_names(&p, "other.org", &set));
    assert_true(sm_policy_match_names(&p, "www.example.com", &set));
    assert_int_equal(sm_policy_decide(&p, &pub, 443, &set), SM_VERDICT_ALLOW);
    assert_int_equal(sm_policy_decide(&p, &pub, 80, &set), SM_VERDICT_UNLISTED);
    assert_int_equal(sm_policy_decide(&p, &pub, 443, NULL), SM_VERDICT_UNLISTED);
    assert_int_equal(sm_policy_decide(&p, &priv, 443, &set), SM_VERDICT_PRIVATE);
    assert_int_equal(sm_policy_decide(&p, &pub, 53, NULL), SM_VERDICT_RESOLVER);
}

static void test_answers(void **state)
{
    (void)state;
    struct sm_policy empty = {0};
    auto_policy all = policy_of("layer all\ndeny 9.9.9.0/24\n");
    auto_policy public = policy_of("layer public\nallow 10.5.0.0/16:443\n");
    auto_policy none = policy_of("layer none\nallow *.example.com\n");
    static const struct {
        const char *addr;
        enum sm_verdict empty, all, public, none;
    } cases[] = {
        {"8.8.8.8", 0, 0, 0, 0},
        {"9.9.9.9", 0, SM_VERDICT_REBIND, 0, 0},
        {"10.5.0.1", 0, 0, 0, SM_VERDICT_REBIND},
        {"10.6.0.1", 0, 0, SM_VERDICT_REBIND, SM_VERDICT_REBIND},
        {"169.254.169.254", 0, 0, SM_VERDICT_REBIND, SM_VERDICT_REBIND},
        {"127.0.0.1", 0, SM_VERDICT_REBIND, SM_VERDICT_REBIND, SM_VERDICT_REBIND},
        {"::1", 0, SM_VERDICT_REBIND, SM_VERDICT_REBIND, SM_VERDICT_REBIND},
        {"::ffff:10.6.0.1", 0, 0, SM_VERDICT_REBIND, SM_VERDICT_REBIND},
        {"fd00::1", 0, 0, SM_VERDICT_REBIND, SM_VERDICT_REBIND},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        struct sm_ip a = ip(cases[i].addr);
        assert_int_equal(sm_policy_decide_answer(&empty, &a), cases[i].empty);
        assert_int_equal(sm_policy_decide_answer(&all, &a), cases[i].all);
        assert_int_equal(sm_policy_decide_answer(&public, &a), cases[i].public);
        assert_int_equal(sm_policy_decide_answer(&none, &a), cases[i].none);
    }
}

static void test_layers_only_narrow(void **state)
{
    (void)state;
    auto_policy saved = policy_of("layer public\n");
    auto_policy open = policy_of("layer all\nallow 10.0.0.0/8\n");
    auto_policy text2 = {0};
    auto_free char *text = NULL;
    auto_free char *again = NULL;
    assert_int_equal(sm_policy_narrow(&saved, &open, NULL), 0);
    expect(&saved, "10.0.0.1", 80, SM_VERDICT_PRIVATE);
    expect(&saved, "8.8.8.8", 80, SM_VERDICT_ALLOW);
    assert_int_equal(sm_policy_narrow(&saved, &open, NULL), 0); /* known: nothing added */
    assert_int_equal(saved.n_layers, 2);
    assert_int_equal(sm_policy_format(&saved, &text, NULL), 0);
    assert_string_equal(text, "layer public\nlayer all\nallow 10.0.0.0/8\n");
    assert_int_equal(sm_policy_parse(text, strlen(text), &text2, NULL), 0);
    assert_int_equal(sm_policy_format(&text2, &again, NULL), 0);
    assert_string_equal(text, again);
}

static void test_bad_text(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "allow 1.2.3.4",
        "layer",
        "layer some",
        "layer all\nallow",
        "layer all\nallow a b",
        "layer all\nfoo bar",
        "layer all\nallow 1.2.3.4/33",
        "layer all\nallow 1.2.3",
        "layer all\nallow 1.2.3.4:0",
        "layer all\nallow 1.2.3.4:65536",
        "layer all\nallow 1.2.3.4:5-4",
        "layer all\nallow 1.2.3.4:5-",
        "layer all\nallow 1.2.3.4:",
        "layer all\nallow [::1",
        "layer all\nallow [1.2.3.4]:5",
        "layer all\nallow ::/129",
        "layer all\nallow a..b",
        "layer all\nallow *.",
        "layer all\nallow *",
        "layer all\nallow .a",
        "layer all\nallow a.com/24",
        "layer all\nallow a*b.com",
        "layer all\nallow 3com.com/24",
        "layer all\nallow [::1]x",
        "layer all\nallow host-loopback:x",
        "layer all\nallow 1.2.3.4/",
        "layer all\nallow Host-Loopback",
        "layer all\nallow host-loopback.",
        "layer all\nallow 1.2.3.4/+3",
        "layer all\nallow a_\x80.com",
        ("layer all\nlayer all\nlayer all\nlayer all\nlayer all\nlayer all\nlayer all\nlayer all\n"
         "layer all\n"),
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        struct sm_policy p = {.n_layers = 77};
        sm_error err = {0};
        if (sm_policy_parse(bad[i], strlen(bad[i]), &p, &err) == 0)
            fail_msg("accepted: %s", bad[i]);
        assert_int_equal(p.n_layers, 77);
        assert_true(err.message[0] != '\0');
    }
    assert_int_equal(sm_policy_parse("layer all\0x", 11, &(struct sm_policy){0}, NULL), -SM_EINVAL);
}

static void test_table(void **state)
{
    (void)state;
    struct sm_names names = {0};
    struct sm_name_set one = {{1}}, two = {{2}};
    struct sm_ip a = ip("1.2.3.4");
    assert_null(sm_names_find(&names, &a, 0));
    assert_true(sm_names_learn(&names, &a, &one, 0, 1000));
    const struct sm_name_set *set = sm_names_find(&names, &a, 1000);
    assert_non_null(set);
    assert_int_equal(set->bits[0], 1);
    assert_true(sm_names_learn(&names, &a, &two, 100, 2000));
    set = sm_names_find(&names, &a, 2000);
    assert_int_equal(set->bits[0], 3);
    assert_non_null(sm_names_find(&names, &a, 101999));
    assert_null(sm_names_find(&names, &a, 102000));
    assert_true(sm_names_learn(&names, &a, &two, UINT32_MAX, 200000)); /* not rule 1 any more */
    assert_int_equal(sm_names_find(&names, &a, 200000)->bits[0], 2);
    assert_null(sm_names_find(&names, &a, 200000 + SM_NAMES_MAX_TTL_S * 1000ull));
    for (uint32_t i = 0; i < 20000; i++) { /* bounded, and the newest stays */
        struct sm_ip b = sm_ip_from_v4(0x05000000u + i);
        assert_true(sm_names_learn(&names, &b, &one, 60, 300000 + i));
        assert_non_null(sm_names_find(&names, &b, 300000 + i));
    }
    sm_names_clear(&names);
}

/* What the command makes of its options: messages name them. */
static void test_options_in_messages(void **state)
{
    (void)state;
    static const struct {
        const char *text, *message;
    } cases[] = {
        {"--egress some\n", "--egress some: 'some' is no mode"},
        {"layer none\n--allow bad/target\n",
            "--allow bad/target: 'bad/target' is no network target"},
        {"layer all\n--deny \n", "--deny : 'deny' takes one value"},
        {"layer all\ndeny\n", "network policy, line 2: 'deny' takes one value"},
    };
    struct sm_policy policy;
    sm_error err;
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        assert_int_equal(
            sm_policy_parse(cases[i].text, strlen(cases[i].text), &policy, &err), -SM_EINVAL);
        if (strncmp(err.message, cases[i].message, strlen(cases[i].message)) != 0)
            fail_msg("%s", err.message);
    }
    assert_int_equal(sm_policy_parse("--egress none\n--allow 1.2.3.4", 29, &policy, NULL), 0);
    assert_int_equal(policy.n_rules, 1);
    sm_policy_clear(&policy);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_classes),
        cmocka_unit_test(test_modes),
        cmocka_unit_test(test_rules),
        cmocka_unit_test(test_v6_rule_is_not_v4),
        cmocka_unit_test(test_host_loopback),
        cmocka_unit_test(test_names),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_layers_only_narrow),
        cmocka_unit_test(test_bad_text),
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_options_in_messages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
