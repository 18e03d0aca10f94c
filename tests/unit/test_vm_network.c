/* A VM's network as its configuration asks for it: what cannot be is refused, before there is a
 * VM. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_ports_without_a_network),
        cmocka_unit_test(a_guest_is_told_what_it_does_not_know)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
