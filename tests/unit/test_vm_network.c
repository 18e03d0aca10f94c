/* A VM's network as its configuration asks for it: what cannot be is refused, before there is a
 * VM. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(no_ports_without_a_network)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
