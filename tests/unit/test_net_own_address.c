/* Which addresses are this host's, in a network namespace that has some; and what a policy says of
 * them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net/egress.h"
#include "own_network.h"
#include "util/bytes.h"

static struct sm_ip ip(const char *text)
{
    struct sm_ip out;
    assert_true(sm_ip_parse(text, &out));
    return out;
}

static bool has(struct sm_own_address *own, const char *text, uint64_t now_ms)
{
    struct sm_ip addr = ip(text);
    return sm_own_address_has(own, &addr, now_ms);
}

static void test_addresses(void **state)
{
    (void)state;
    static const char *const mine[] = {"127.0.0.1", "127.9.9.9", "::1", "8.8.4.4", "198.51.100.1",
        "192.0.2.77", "2600::7", "64:ff9b::808:404", "2002:808:404::1"};
    static const char *const others[] = {
        "8.8.8.8", "198.51.100.2", "198.51.101.1", "2600::8", "64:ff9b::808:808", "240.0.0.1"};
    struct sm_own_address *own;
    assert_int_equal(sm_own_address_create(&own, NULL), 0);
    for (size_t i = 0; i < SM_ARRAY_LEN(mine); i++)
        assert_true(has(own, mine[i], 1));
    for (size_t i = 0; i < SM_ARRAY_LEN(others); i++)
        assert_false(has(own, others[i], 1));
    /* What comes is seen within a second, and so is what goes. */
    assert_int_equal(system("ip addr add 8.8.8.8/32 dev lo && ip addr del 8.8.4.4/32 dev lo"), 0);
    assert_true(has(own, "8.8.8.8", 1 + SM_OWN_ADDRESS_MS));
    assert_false(has(own, "8.8.4.4", 1 + SM_OWN_ADDRESS_MS));
    assert_int_equal(system("ip addr del 8.8.8.8/32 dev lo && ip addr add 8.8.4.4/32 dev lo"), 0);
    assert_false(has(NULL, "8.8.4.4", 1));
    sm_own_address_destroy(own);
}

static enum sm_verdict decide(const char *text, const char *address, int port)
{
    auto_policy policy = {0};
    struct sm_ip to = ip(address);
    assert_int_equal(sm_policy_parse(text, strlen(text), &policy, NULL), 0);
    struct sm_egress egress;
    sm_egress_init(&egress, &policy, true, NULL, NULL);
    assert_int_equal(sm_own_address_create(&egress.own, NULL), 0);
    enum sm_verdict v = sm_egress_decide(&egress, &to, port, NULL, 1);
    sm_egress_clear(&egress);
    return v;
}

static void test_policy(void **state)
{
    (void)state;
    static const struct {
        const char *text, *address;
        int port;
        enum sm_verdict verdict;
    } cases[] = {
        {"", "8.8.8.8", 80, SM_VERDICT_ALLOW},
        {"", "8.8.4.4", 80, SM_VERDICT_OWN},
        {"", "2600::7", 80, SM_VERDICT_OWN},
        {"layer all\n", "8.8.4.4", 80, SM_VERDICT_OWN},
        {"layer all\n", "8.8.4.4", SM_NO_PORT, SM_VERDICT_OWN},
        {"layer public\n", "8.8.4.4", 80, SM_VERDICT_OWN},
        {"layer public\n", "64:ff9b::808:404", 80, SM_VERDICT_OWN},
        {"layer public\nallow 8.8.0.0/16\n", "8.8.4.4", 80, SM_VERDICT_OWN},
        {"layer public\nallow 0.0.0.0/0\n", "8.8.4.4", 80, SM_VERDICT_OWN},
        {"layer none\nallow 8.8.4.4:80\n", "8.8.4.4", 80, SM_VERDICT_ALLOW},
        {"layer none\nallow 8.8.4.4:80\n", "8.8.4.4", 81, SM_VERDICT_OWN},
        {"layer none\nallow 8.8.4.4:80\n", "8.8.4.4", SM_ANY_PORT, SM_VERDICT_ALLOW},
        {"layer none\nallow [2600::7]:80\n", "2600::7", 80, SM_VERDICT_ALLOW},
        {"layer all\nallow host-loopback:80\n", "198.51.100.1", 80, SM_VERDICT_ALLOW},
        {"layer all\nallow host-loopback:80\n", "198.51.100.1", 81, SM_VERDICT_OWN},
        {"layer all\nallow 8.8.4.4\ndeny 8.8.0.0/16\n", "8.8.4.4", 80, SM_VERDICT_RULE},
        {"layer all\nallow 8.8.4.4\nlayer all\n", "8.8.4.4", 80, SM_VERDICT_OWN},
        {"layer all\nallow 127.0.0.1\n", "127.0.0.1", 80, SM_VERDICT_LOOPBACK},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        enum sm_verdict v = decide(cases[i].text, cases[i].address, cases[i].port);
        if (v != cases[i].verdict)
            fail_msg("case %zu: %s", i, sm_verdict_text(v));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_addresses),
        cmocka_unit_test(test_policy),
    };
    /* The last but one is what getifaddrs(3) does not list: a range that is local. */
    if (!enter_own_network() ||
        system("ip addr add 8.8.4.4/32 dev lo && ip addr add 198.51.100.1/32 dev lo && "
               "ip route add local 192.0.2.0/24 dev lo && "
               "ip route add default dev lo && "
               "ip -6 addr add 2600::7/128 dev lo nodad && "
               /* The kernel makes its route a moment later. */
               "until ip -6 route get 2600::7 | grep -q ^local; do sleep 0.01; done"))
        return 77; /* skipped */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
