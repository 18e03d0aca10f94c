/* A VM's network as its configuration asks for it: what cannot be is refused, before there is a
 * VM. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <stdlib.h>
#include <unistd.h>

#include "vm/network.h"

static int try(const struct sm_vm_network_config *config, sm_error *err)
{
    struct sm_vm_network network;
    int rc = sm_vm_network_init(&network, config, &(struct sm_vm_events){0}, err);
    sm_vm_network_clear(&network);
    return rc;
}

static void no_ports_without_a_network(void **state)
{
    static const char *const ports[] = {"8080:80", NULL}, *const none[] = {NULL};
    sm_error err;
    assert_int_equal(
        try(&(struct sm_vm_network_config){.plug = "none", .publish = ports}, &err), -SM_EINVAL);
    assert_non_null(strstr(err.message, "8080:80"));
    assert_int_equal(
        try(&(struct sm_vm_network_config){.plug = "none", .publish_exposed = true}, &err),
        -SM_EINVAL);
    assert_int_equal(try(&(struct sm_vm_network_config){.plug = "none", .publish = none}, &err), 0);
    assert_int_equal(try(&(struct sm_vm_network_config){.plug = "none"}, &err), 0);
    assert_int_equal(
        try(&(struct sm_vm_network_config){.publish = ports, .publish_exposed = true}, &err), 0);
}

static void a_resolver_is_what_was_asked_for(void **state)
{
    const struct {
        struct sm_vm_network_config config;
        const char *want; /* the text; or of a refusal, after a '!', part of the sentence */
    } cases[] = {
        {{0}, "search corp.test\nnameserver 10.0.2.3\noptions edns0 ndots:3\n"},
        {{.dns = (const char *const[]){"1.1.1.1", "2001:db8::1", NULL}},
            "search corp.test\nnameserver 1.1.1.1\nnameserver 2001:db8::1\noptions edns0 ndots:3\n"},
        {{.dns_search = (const char *const[]){"a.test", "b.test", NULL},
             .dns_options = (const char *const[]){"timeout:1", "rotate", NULL}},
            "search a.test b.test\nnameserver 10.0.2.3\noptions edns0 timeout:1 rotate\n"},
        {{.dns_search = (const char *const[]){".", NULL}},
            "nameserver 10.0.2.3\noptions edns0 ndots:3\n"},
        {{.plug = "tap:t,dns=9.9.9.9", .dns = (const char *const[]){"1.1.1.1", NULL}},
            "search corp.test\nnameserver 1.1.1.1\noptions edns0 ndots:3\n"},
        {{.dns = (const char *const[]){"1.1.1", NULL}}, "!'1.1.1' is not the address"},
        {{.dns = (const char *const[]){"1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.1.4", NULL}},
            "!'1.1.1.4' is one name server too many"},
        {{.dns_search = (const char *const[]){"a b", NULL}}, "!'a b' is no search domain"},
        {{.dns_search = (const char *const[]){"a\nb", NULL}}, "!is no search domain"},
        {{.dns_search = (const char *const[]){"", NULL}}, "!'' is no search domain"},
        {{.plug = "none", .dns = (const char *const[]){"1.1.1.1", NULL}}, "!without a network"},
        {{.dns = (const char *const[]){"1.1.1.1", NULL},
             .egress = "layer none\nallow 1.1.1.1\nallow example.org\n"},
            "!learns names from the guest's usual one"},
        {{.dns = (const char *const[]){"1.1.1.1", NULL}, .egress = "layer none\nallow 9.9.9.9\n"},
            "!does not let the VM get at it"},
        {{.dns = (const char *const[]){"1.1.1.1", NULL}, .egress = "layer public\n"},
            "search corp.test\nnameserver 1.1.1.1\noptions edns0 ndots:3\n"},
        {{.dns = (const char *const[]){"10.9.9.9", NULL}, .egress = "layer public\n"},
            "!does not let the VM get at it"},
    };
    char path[] = "/tmp/sm-resolv-XXXXXX";
    int fd = mkstemp(path);
    static const char host[] = "nameserver 192.0.2.1\nsearch corp.test\noptions ndots:3\n";
    assert_int_equal(write(fd, host, sizeof(host) - 1), sizeof(host) - 1);
    close(fd);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sm_vm_network network;
        struct sm_vm_network_text text;
        struct sm_wire_set_network m;
        sm_error err;
        int rc = sm_vm_network_init(&network, &cases[i].config, &(struct sm_vm_events){0}, &err);
        network.resolv_conf = path;
        if (cases[i].want[0] == '!') {
            assert_int_not_equal(rc, 0);
            assert_non_null(strstr(err.message, cases[i].want + 1));
        } else {
            assert_int_equal(rc, 0);
            assert_true(sm_vm_network_describe(&network, &text, &m));
            assert_string_equal(m.resolv_conf, cases[i].want);
        }
        sm_vm_network_clear(&network);
    }
    unlink(path);
}

/* A guest is told of its resolv.conf where it is not that of a boot, and where it was told before;
 * of its card only where it comes to another network. */
static void a_guest_is_told_what_it_does_not_know(void **state)
{
    (void)state;
    static const char *const plain = "nameserver 192.0.2.1\n", *const corp = "search corp.test\n";
    const struct {
        const char *plug, *host;
        bool was_moved, was_told;      /* in the snapshot */
        bool describes, card, is_told; /* and then */
    } cases[] = {
        {NULL, plain, false, false, false, false, false},
        {NULL, NULL, false, false, false, false, false}, /* there is no such file */
        {NULL, corp, false, false, true, false, true},
        {NULL, corp, false, true, true, false, true},
        {NULL, plain, false, true, true, false, false},
        {NULL, plain, true, false, true, true, false},
        {NULL, corp, true, true, true, true, true},
        {"tap:t", plain, false, false, true, true, true},
        {"tap:t", corp, false, true, true, true, true},
        {"none", corp, true, true, false, false, true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char path[] = "/tmp/sm-test-resolv-XXXXXX";
        int fd = mkstemp(path);
        assert_true(fd >= 0);
        if (cases[i].host)
            assert_true(write(fd, cases[i].host, strlen(cases[i].host)) > 0);
        else
            unlink(path);
        close(fd);
        struct sm_vm_network network;
        struct sm_vm_network_text text;
        struct sm_wire_set_network m;
        const struct sm_vm_network_config config = {.plug = cases[i].plug};
        assert_int_equal(sm_vm_network_init(&network, &config, &(struct sm_vm_events){0}, NULL), 0);
        network.resolv_conf = path;
        network.moved = cases[i].was_moved;
        network.told = cases[i].was_told;
        assert_int_equal(sm_vm_network_describe(&network, &text, &m), cases[i].describes);
        assert_int_equal(network.told, cases[i].is_told);
        if (cases[i].describes) {
            assert_int_equal(m.mac.len, cases[i].card ? 6 : 0);
            assert_int_equal(
                strncmp(m.resolv_conf, corp, strlen(corp)) == 0, cases[i].host == corp);
        }
        sm_vm_network_clear(&network);
        unlink(path);
    }
}

#define TELLERS 4
#define TOLD    200

static void count_line(void *arg, const char *line)
{
    unsigned *n = arg;
    (void)line;
    unsigned before = *n;
    sched_yield();
    *n = before + 1;
}

static void *tell(void *arg)
{
    const struct sm_vm_network *network = arg;
    for (int i = 0; i < TOLD; i++)
        network->events.notice(network->events.notice_arg, "line");
    return NULL;
}

static void a_caller_is_told_one_thing_at_a_time(void **state)
{
    unsigned n = 0;
    const struct sm_vm_events events = {.notice = count_line, .notice_arg = &n};
    struct sm_vm_network network;
    pthread_t threads[TELLERS];
    assert_int_equal(
        sm_vm_network_init(&network, &(struct sm_vm_network_config){0}, &events, NULL), 0);
    for (int i = 0; i < TELLERS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, tell, &network), 0);
    for (int i = 0; i < TELLERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(n, TELLERS * TOLD);
    sm_vm_network_clear(&network);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_ports_without_a_network),
        cmocka_unit_test(a_resolver_is_what_was_asked_for),
        cmocka_unit_test(a_guest_is_told_what_it_does_not_know),
        cmocka_unit_test(a_caller_is_told_one_thing_at_a_time)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
