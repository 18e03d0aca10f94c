/* How a VM comes up: what is refused before it begins, and that its command is asked for when
 * nothing else may fail any more. The machine is none, and its agent says what a test says. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "net/ports/ports.h"
#include "util/error.h"
#include "vm/agent/greeting.h"
#include "vm/bring_up.h"
#include "vm/network_process.h"
#include "vm/client_loop.h"
#include "vm/command.h"
#include "util/bytes.h"
#include "vm/ports.h"
#include "vm/vm.h"

static char order[64]; /* what was done, a letter each */
static int ports_rc;

static int note(char what, int rc)
{
    order[strlen(order)] = what;
    return rc;
}

int __wrap_sm_engine_boot(struct sm_engine *e, const struct sm_engine_config *c, sm_error *err);
int __wrap_sm_engine_boot(struct sm_engine *e, const struct sm_engine_config *c, sm_error *err)
{
    return note('b', 0);
}

/* None: it has a loop of its own accord. */
int __wrap_sm_network_process_create(const struct sm_network_process_config *config, int *end,
    bool *speaks_first, struct sm_network_process **process, sm_error *err);
int __wrap_sm_network_process_create(const struct sm_network_process_config *config, int *end,
    bool *speaks_first, struct sm_network_process **process, sm_error *err)
{
    *process = NULL;
    return 0;
}

const struct sm_guest_clock *__wrap_sm_engine_clock(struct sm_engine *e);
const struct sm_guest_clock *__wrap_sm_engine_clock(struct sm_engine *e)
{
    return NULL;
}

int __wrap_sm_engine_accept(
    struct sm_engine *e, struct sm_wait *wait, int *fd, uint64_t *at_ns, sm_error *err);
int __wrap_sm_engine_accept(
    struct sm_engine *e, struct sm_wait *wait, int *fd, uint64_t *at_ns, sm_error *err)
{
    *fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    *at_ns = 0;
    return 0;
}

void __wrap_sm_engine_link(struct sm_engine *e, struct sm_loop *loop, struct sm_guest_link *link);
void __wrap_sm_engine_link(struct sm_engine *e, struct sm_loop *loop, struct sm_guest_link *link)
{
    *link = (struct sm_guest_link){.arg = e};
}

int __wrap_sm_ports_publish(struct sm_ports *ports, struct sm_port_spec *spec, sm_error *err);
int __wrap_sm_ports_publish(struct sm_ports *ports, struct sm_port_spec *spec, sm_error *err)
{
    assert_non_null(ports);
    return note('p', ports_rc);
}

void __wrap_sm_engine_get_timing(const struct sm_engine *e, struct sm_engine_timing *timing);
void __wrap_sm_engine_get_timing(const struct sm_engine *e, struct sm_engine_timing *timing)
{
    *timing = (struct sm_engine_timing){0};
}

int __wrap_sm_agent_greet(struct sm_channel *channel, struct sm_wait *wait, sm_error *err);
int __wrap_sm_agent_greet(struct sm_channel *channel, struct sm_wait *wait, sm_error *err)
{
    return 0;
}

int __wrap_sm_agent_personalise(struct sm_channel *channel,
    const struct sm_agent_identity *identity, struct sm_wait *wait, sm_error *err);
int __wrap_sm_agent_personalise(struct sm_channel *channel,
    const struct sm_agent_identity *identity, struct sm_wait *wait, sm_error *err)
{
    assert_int_equal(identity->request_type, SM_WIRE_EXEC);
    return note('c', 0);
}

/* A port that is taken is told before the command is asked for. */
static void ports_are_open_before_the_command_begins(void **state)
{
    const struct {
        int rc;
        const char *order;
    } cases[] = {{0, "bppc"}, {-SM_EBUSY, "bp"}};
    static const char *const ports[] = {"80", "81/udp", NULL}, *const argv[] = {"true", NULL};
    const struct sm_vm_plan plan = {
        .network = {.publish = ports}, .command = &(sm_exec_config){.argv = argv}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        sm_error err;
        sm_image image = {.config = {.working_dir = (char[]){""}, .user = (char[]){""}}};
        sm_vm vm = {.image = &image, .lock = PTHREAD_MUTEX_INITIALIZER};
        vm.network.mode = SM_NETWORK_NONE;
        memset(order, 0, sizeof(order));
        ports_rc = cases[i].rc;
        assert_int_equal(sm_vm_boot(&vm, &plan, &err), cases[i].rc);
        assert_string_equal(order, cases[i].order);
        sm_channel_close(&vm.commanded);
        sm_vm_close_ports(&vm);
        sm_vm_end_loop(&vm);
    }
}

/* Which a thread stands for. */
static void a_vm_without_ports_has_no_loop_until_one_is_needed(void **state)
{
    static const char *const argv[] = {"true", NULL};
    const struct sm_vm_plan plan = {.command = &(sm_exec_config){.argv = argv}};
    sm_image image = {.config = {.working_dir = (char[]){""}, .user = (char[]){""}}};
    sm_vm vm = {.image = &image, .lock = PTHREAD_MUTEX_INITIALIZER};
    vm.network.resolv_conf = "/dev/null";
    struct sm_port_spec specs[2];
    sm_error err;
    assert_int_equal(sm_vm_boot(&vm, &plan, &err), 0);
    assert_int_equal(sm_vm_follow_ports(&vm, &plan.network, &err), 0);
    assert_int_equal(sm_vm_list_ports(&vm, specs, 2), 0);
    assert_null(vm.loop);
    ports_rc = 0;
    assert_int_equal(sm_vm_add_port(&vm, "80", &err), 0);
    assert_non_null(vm.loop);
    struct sm_ports *ports = vm.ports.ports;
    sm_vm_watch_ports(&vm); /* beside them */
    assert_int_equal(sm_vm_add_port(&vm, "81", &err), 0);
    assert_ptr_equal(vm.ports.ports, ports);
    assert_non_null(vm.ports.listeners);
    sm_channel_close(&vm.commanded);
    sm_vm_close_ports(&vm);
    sm_vm_end_loop(&vm);
}

static int check(struct sm_strv *publish, bool all, const char *const *exposed, sm_error *err)
{
    struct sm_oci_config image = {0};
    for (; *exposed; exposed++)
        assert_true(sm_strv_add(&image.exposed, *exposed));
    const struct sm_vm_network_config config = {
        .publish = (const char *const *)publish->items, .publish_exposed = all};
    int rc = sm_vm_check_ports(&image, &config, err);
    sm_strv_clear(&image.exposed);
    return rc;
}

static void ports_are_counted_before_anything_is_made(void **state)
{
    static const char *const none[] = {NULL}, *const one[] = {"300/tcp", NULL},
                             *const same[] = {"1/tcp", NULL}, *const many[] = {"1-65535/tcp", NULL},
                             *const sctp[] = {"80/sctp", NULL};
    sm_error err;
    auto_strv publish = {0};
    char text[8];
    for (int port = 1; port <= 256; port++) {
        snprintf(text, sizeof(text), "%d", port);
        assert_true(sm_strv_add(&publish, text));
    }
    assert_int_equal(check(&publish, false, one, &err), 0);
    assert_int_equal(check(&publish, true, same, &err), 0);
    assert_int_equal(check(&publish, true, one, &err), -SM_ELIMIT);
    assert_non_null(strstr(err.message, "more than 256 ports"));
    assert_true(sm_strv_add(&publish, "257"));
    assert_int_equal(check(&publish, false, none, &err), -SM_ELIMIT);
    assert_non_null(strstr(err.message, "more than 256 ports"));
    auto_strv no_port = {0};
    assert_int_equal(check(&no_port, true, many, &err), -SM_ELIMIT);
    assert_non_null(strstr(err.message, "more than 256 ports"));
    assert_int_equal(check(&no_port, true, sctp, &err), -SM_ECORRUPT);
    assert_int_equal(check(&no_port, false, sctp, &err), 0);
    auto_strv bad = {0};
    assert_true(sm_strv_add(&bad, "80:x"));
    assert_int_equal(check(&bad, false, none, &err), -SM_EINVAL);
}

static void a_port_of_the_host_leads_to_one_of_the_guest(void **state)
{
    static const struct {
        const char *ports[2], *why; /* NULL: nothing is wrong */
    } cases[] = {
        {{"8080:80", "8080:80"}, NULL}, /* said twice */
        {{"8080:80", "8080:81"}, "cannot lead to both port 80 and port 81"},
        {{"[::1]:8080:80", "[0:0::1]:8080:81"}, "cannot lead to both port 80 and port 81"},
        {{"8080:80", "8080:81/udp"}, NULL},
        {{"8080:80", "127.0.0.2:8080:81"}, NULL},
        {{"8080:80", "[::1]:8080:81"}, NULL},
        {{"8080:80", "8081:80"}, NULL},
        {{"127.0.0.1::80", ":81"}, NULL}, /* any two */
        {{"0.0.0.0:8080:80", "8080:80"}, "published on both 0.0.0.0 and 127.0.0.1: one of them"},
        {{"8080:80", "0.0.0.0:8080:81"}, "published on both 127.0.0.1 and 0.0.0.0: one of them"},
        {{"[::]:8080:80/udp", "[::1]:8080:80/udp"}, "published on both :: and ::1: one of them"},
        {{"0.0.0.0:8080:80", "[::1]:8080:80"}, NULL},
        {{"[::]:8080:80", "8080:80"}, NULL},
    };
    static const char *const none[] = {NULL};
    for (size_t i = 0; i < SM_ARRAY_LEN(cases); i++) {
        sm_error err;
        auto_strv publish = {0};
        assert_true(sm_strv_add(&publish, cases[i].ports[0]));
        assert_true(sm_strv_add(&publish, cases[i].ports[1]));
        assert_int_equal(check(&publish, false, none, &err), cases[i].why ? -SM_EINVAL : 0);
        if (cases[i].why)
            assert_non_null(strstr(err.message, cases[i].why));
    }
}

static void a_command_that_is_too_long_is_told_as_that(void **state)
{
    const struct sm_oci_config image = {.user = (char[]){""}, .working_dir = (char[]){""}};
    char *text = malloc(SM_WIRE_MAX_PAYLOAD + 1);
    assert_non_null(text);
    memset(text, 'x', SM_WIRE_MAX_PAYLOAD);
    text[SM_WIRE_MAX_PAYLOAD] = '\0';
    const char *const argv[] = {"true", text, NULL};
    const sm_exec_config config = {.argv = argv};
    sm_error err;
    assert_int_equal(sm_command_check(&image, &config, &err), -SM_ELIMIT);
    assert_ptr_equal(strstr(err.message, "the command's arguments"), err.message);
    text[100] = '\0';
    assert_int_equal(sm_command_check(&image, &config, &err), 0);
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_are_open_before_the_command_begins),
        cmocka_unit_test(a_vm_without_ports_has_no_loop_until_one_is_needed),
        cmocka_unit_test(ports_are_counted_before_anything_is_made),
        cmocka_unit_test(a_port_of_the_host_leads_to_one_of_the_guest),
        cmocka_unit_test(a_command_that_is_too_long_is_told_as_that),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
