/* vmm on a hypervisor that is as awkward as hypervisor.h allows: vCPUs that belong to one thread
 * each, interrupts that are raised by hand, stores to doorbells that exit. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fake_hypervisor.h"
#include "guest_code.h"
#include "machine_parts.h"
#include "patience.h"
#include "snapshot/page_map.h"
#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "util/clock.h"
#include "vmm/machine_internal.h"

#define MEMORY (64u << 20)
#define VCPUS  3

static sm_error err;

static void ok(int rc)
{
    if (rc)
        fail_msg("%d: %s", rc, err.message);
}

static struct sm_machine *booted(void)
{
    static const uint8_t code[] = {0xf4};
    char path[32];
    int fd = guest_kernel(code, sizeof(code), path);
    struct sm_machine *m;
    ok(make_machine(&m,
        &(struct sm_machine_config){.memory_bytes = MEMORY, .vcpus = VCPUS, .kernel = path}, &err));
    ok(sm_machine_boot(m, &err));
    close(fd);
    return m;
}

static bool same_state(const struct sm_vcpu_state *a, const struct sm_vcpu_state *b)
{
    return a->gp.n == b->gp.n && a->redist.n == b->redist.n &&
           (!a->gp.n || !memcmp(a->gp.v, b->gp.v, a->gp.n * sizeof(*a->gp.v))) &&
           !memcmp(a->redist.v, b->redist.v, a->redist.n * sizeof(*a->redist.v));
}

static struct sm_snapshot *captured(struct sm_machine *m, struct sm_pause *pause)
{
    struct sm_snapshot *s;
    ok(sm_machine_pause(m, pause, &err));
    ok(sm_machine_save(m, &s, &err));
    return s;
}

/* The fake ends the test where a state is touched from another thread. */
static void each_vcpu_is_touched_by_its_own_thread(void **state)
{
    (void)state;
    char path[] = "/tmp/sm-test-XXXXXX";
    close(mkstemp(path));
    struct sm_ram ram;
    struct sm_pause pause = {0};
    struct sm_machine *m = booted();
    auto_snapshot before = captured(m, &pause);
    assert_int_equal(before->n_vcpus, VCPUS);
    assert_true(before->vcpus[0].gp.n > 0 && before->vcpus[1].gp.n == 0);
    sm_machine_ram(m, &ram);
    ok(sm_snapshot_save_streaming(path, before, &ram, NULL, NULL, NULL, &err));
    ok(sm_machine_resume(m, &pause, &err));
    sm_machine_close(m);

    auto_snapshot there = NULL;
    int fd;
    ok(sm_snapshot_open(path, &fd, &err));
    ok(sm_snapshot_load_meta(fd, path, &there, &err));
    const struct sm_machine_config config = {.memory_bytes = MEMORY, .vcpus = VCPUS};
    ok(make_machine(&m, &config, &err));
    ok(sm_machine_load(m, fd, there, NULL, &err));
    ok(sm_machine_start(m, &err));
    struct sm_pause again = {0};
    auto_snapshot after = captured(m, &again);
    for (unsigned i = 0; i < VCPUS; i++)
        assert_true(same_state(&after->vcpus[i], &before->vcpus[i]));
    sm_machine_close(m);

    /* A state that says too little, and a machine that ends while it is asked. */
    sm_vcpu_state_clear(&there->vcpus[1]);
    ok(make_machine(&m, &config, &err));
    assert_int_equal(sm_machine_load(m, fd, there, NULL, &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "too little of vCPU 1"));
    sm_machine_kill(m);
    struct sm_vcpu_state s;
    if (!fake_hv.any_thread)
        assert_int_equal(sm_machine_get_vcpu(m, 0, &s, &err), -SM_EGUEST);
    sm_machine_close(m);
    close(fd);
    unlink(path);
}

/* The first store of a driver that the device answers with an interrupt: a queue that makes no
 * sense. */
static void interrupts_and_doorbells_take_the_long_way(void **state)
{
    (void)state;
    struct sm_machine *m = booted();
    const struct sm_machine_device *d = &m->devices[1];
    const uint64_t at = d->place.window;
    static const uint32_t stores[][2] = {
        {0x70, 1},
        {0x70, 3},
        {0x24, 1},
        {0x20, 1},
        {0x70, 11}, /* FEATURES_OK with VERSION_1 */
        {0x30, 0},
        {0x38, 8},
        {0x80, 0x1000},
        {0x90, 0x2000},
        {0xa0, 0x3000},
        {0x44, 1},
        {0x70, 15},
    };
    for (size_t i = 0; i < sizeof(stores) / sizeof(stores[0]); i++)
        fake_hv_store(at + stores[i][0], stores[i][1]);
    assert_true(sm_virtio_is_driven(d->dev));
    m->ram.host[0x2002] = 99; /* more than the queue can hold */
    fake_hv_store(at + SM_VIRTIO_MMIO_NOTIFY, 0);
    for (uint64_t end = sm_now_ns() + PATIENCE_MS * 1000000ull;
         !fake_hv_raised(d->place.irq) && sm_now_ns() < end;)
        usleep(1000);
    assert_true(fake_hv_raised(d->place.irq) > 0);
    assert_int_equal(fake_hv_raised(m->devices[0].place.irq), 0);
    sm_machine_close(m);
}

static int awkward(void **state)
{
    (void)state;
    fake_hv = (struct fake_hv_rules){0};
    return 0;
}

static int easy(void **state)
{
    (void)state;
    fake_hv = (struct fake_hv_rules){.any_thread = true};
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(each_vcpu_is_touched_by_its_own_thread, awkward),
        cmocka_unit_test_setup(each_vcpu_is_touched_by_its_own_thread, easy),
        cmocka_unit_test_setup(interrupts_and_doorbells_take_the_long_way, awkward),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
