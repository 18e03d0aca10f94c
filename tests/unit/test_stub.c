/* All that is above the seam, as it is, linked to an architecture and a hypervisor that are not
 * there: that it links is half of the test. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "arch/arch.h"
#include "hypervisor/hypervisor.h"
#include "vmm/machine.h"

static sm_error err;

static void a_machine_is_refused_in_a_sentence(void **state)
{
    (void)state;
    const struct sm_machine_config config = {.memory_bytes = 64 << 20, .vcpus = 1};
    struct sm_machine *m = NULL;
    assert_int_equal(sm_machine_create(&m, &config, &err), -SM_EUNSUPPORTED);
    assert_null(m);
    assert_non_null(strstr(err.message, "no hypervisor"));
    /* Nor with a hypervisor that somebody has opened. */
    struct sm_machine_config opened = config;
    char somebodys;
    opened.hv = (void *)&somebodys;
    assert_int_equal(sm_machine_create(&m, &opened, &err), -SM_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "this architecture"));
}

static void every_part_says_not_here(void **state)
{
    (void)state;
    struct sm_arch_ram ram;
    struct sm_arch_place place;
    struct sm_vcpu_state vcpu = {0};
    struct sm_hv *hv = NULL;
    struct sm_hv_vm *vm = NULL;
    struct sm_hv_exit exit;
    bool needed;
    const int rc[] = {
        sm_arch_ram(1u << 30, &ram, &err),
        sm_arch_place(0, &place, &err),
        sm_arch_boot(&(struct sm_arch_boot){0}, &vcpu, &err),
        sm_hv_open(&hv, &err),
        sm_hv_adopt(-1, &hv, &err),
        sm_hv_needs_assist(hv, &needed, &err),
        sm_hv_vm_create(hv, &vm, &err),
        sm_hv_vm_make_cpus(vm, 1, &err),
        sm_hv_vm_irqfd(vm, -1, 5, &err),
        sm_hv_vm_raise(vm, 5, &err),
        sm_hv_vm_ioeventfd(vm, -1, 0, 0, &err),
        sm_hv_vm_restore(vm, NULL, 0, &err),
        sm_hv_vcpu_set_state(NULL, &vcpu, &err),
        sm_hv_vcpu_run(NULL, &exit, &err),
    };
    for (size_t i = 0; i < sizeof(rc) / sizeof(rc[0]); i++)
        assert_int_equal(rc[i], -SM_EUNSUPPORTED);
    assert_int_equal(sm_arch_platform()->serial.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_machine_is_refused_in_a_sentence),
        cmocka_unit_test(every_part_says_not_here),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
