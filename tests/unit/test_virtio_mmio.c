/* The transport under a toy device: a driver that keeps the order, drivers that do not, saved
 * states that lie, and register accesses from several threads. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <unistd.h>

#include "fake_guest.h"
#include "patience.h"

/* A device that counts what the transport tells it, and returns every buffer with one byte in
 * it. */
struct toy {
    struct sm_virtio_dev dev;
    unsigned activated, notified, resets, loaded, config_writes;
    uint8_t config[8];
    uint64_t extra;
};

struct fixture {
    struct fg fg;
    struct sm_loop *loop;
    struct sm_virtio_env env;
    struct toy toy;
    struct fg_queue q[2];
};

static void toy_config_read(struct sm_virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
    memcpy(buf, ((struct toy *)dev)->config + offset, len);
}

static void toy_config_write(
    struct sm_virtio_dev *dev, unsigned offset, const void *buf, unsigned len)
{
    memcpy(((struct toy *)dev)->config + offset, buf, len);
    ((struct toy *)dev)->config_writes++;
}

static void toy_activate(struct sm_virtio_dev *dev)
{
    ((struct toy *)dev)->activated++;
}

static uint32_t toy_serve(struct sm_virtio_dev *dev, struct sm_virtq_chain *chain)
{
    (void)dev;
    return (uint32_t)sm_iov_write(sm_virtq_writable(chain), chain->n_writable, 0, "!", 1);
}

static void toy_notify(struct sm_virtio_dev *dev, unsigned q)
{
    ((struct toy *)dev)->notified++;
    sm_virtio_serve(dev, q, toy_serve);
}

static void toy_reset(struct sm_virtio_dev *dev)
{
    ((struct toy *)dev)->resets++;
}

static void toy_save(struct sm_virtio_dev *dev, uint64_t extra[SM_VIRTIO_EXTRA])
{
    extra[0] = ((struct toy *)dev)->extra;
}

static void toy_load(struct sm_virtio_dev *dev, const uint64_t extra[SM_VIRTIO_EXTRA])
{
    ((struct toy *)dev)->extra = extra[0];
    ((struct toy *)dev)->loaded++;
}

static void toy_destroy(struct sm_virtio_dev *dev)
{
    sm_virtio_fini(dev);
}

static const struct sm_virtio_ops toy_ops = {
    .name = "toy",
    .id = SM_VIRTIO_ID_RNG,
    .n_queues = 2,
    .queue_max = 32,
    .config_size = 8,
    .config_read = toy_config_read,
    .config_write = toy_config_write,
    .activate = toy_activate,
    .notify = toy_notify,
    .reset = toy_reset,
    .save = toy_save,
    .load = toy_load,
    .destroy = toy_destroy,
};

#define TOY_FEATURE (1ULL << 3)

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fg_init(&f->fg);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    f->env = (struct sm_virtio_env){.loop = f->loop, .memory = &f->fg.gm, .irq = fg_bell()};
    assert_int_equal(sm_virtio_init(&f->toy.dev, &toy_ops, &f->env, TOY_FEATURE, NULL), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sm_virtio_destroy(&f->toy.dev);
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->env.irq);
    fg_fini(&f->fg);
    free(f);
    return 0;
}

static void identifies_itself(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    assert_int_equal(fg_reg(dev, 0x000), 0x74726976);
    assert_int_equal(fg_reg(dev, 0x004), 2);
    assert_int_equal(fg_reg(dev, 0x008), SM_VIRTIO_ID_RNG);
    assert_int_equal(fg_reg(dev, 0x034), 32);
    fg_set_reg(dev, 0x30, 2);
    assert_int_equal(fg_reg(dev, 0x034), 0);
    assert_int_equal(fg_reg(dev, 0x0b0), UINT32_MAX);
    assert_true(fg_offered(dev) == (TOY_FEATURE | 1ULL << 28 | 1ULL << 29 | 1ULL << 32));
    fg_set_reg(dev, 0x14, 2);
    assert_int_equal(fg_reg(dev, 0x10), 0);
}

static void goes_all_the_way(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
    assert_int_equal(fg_reg(dev, 0x70), 15);
    assert_int_equal(f->toy.activated, 1);
    uint64_t buf = fg_alloc(&f->fg, 16);
    fg_send(&f->q[1], 0, 0, buf, 16);
    fg_kick(dev, 1);
    sm_loop_turn(f->loop);
    assert_int_equal(f->toy.notified, 1);
    uint32_t len;
    assert_true(fg_used(&f->q[1], NULL, &len));
    assert_int_equal(len, 1);
    assert_int_equal(*fg_ptr(&f->fg, buf), '!');
    assert_int_equal(fg_reg(dev, 0x60), SM_VIRTIO_INT_USED);
    assert_int_equal(fg_interrupts(dev), 1);
    assert_int_equal(fg_reg(dev, 0x60), 0);
    fg_set_reg(dev, 0x70, 0);
    assert_int_equal(f->toy.resets, 1);
    assert_int_equal(fg_reg(dev, 0x70), 0);
    fg_set_reg(dev, 0x30, 1);
    assert_int_equal(fg_reg(dev, 0x44), 0);
    fg_kick(dev, 1);
    sm_loop_turn(f->loop);
    assert_int_equal(f->toy.notified, 1);
    fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
    sm_virtio_reset(dev); /* the machine's own, at its end */
    assert_int_equal(f->toy.resets, 2);
    assert_int_equal(fg_reg(dev, 0x70), 0);
}

static void status_bits_out_of_order_are_ignored(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_set_reg(dev, 0x70, 4);
    assert_int_equal(fg_reg(dev, 0x70), 0);
    fg_set_reg(dev, 0x70, 2);
    assert_int_equal(fg_reg(dev, 0x70), 0);
    fg_set_reg(dev, 0x70, 1);
    fg_set_reg(dev, 0x70, 1 | 8);
    assert_int_equal(fg_reg(dev, 0x70), 1);
    fg_set_reg(dev, 0x70, 3);
    fg_set_reg(dev, 0x70, 3 | 4); /* without FEATURES_OK */
    assert_int_equal(fg_reg(dev, 0x70), 3);
    fg_set_reg(dev, 0x70, 1); /* taking a bit back */
    assert_int_equal(fg_reg(dev, 0x70), 3);
    assert_int_equal(f->toy.activated, 0);
    fg_set_reg(dev, 0x70, 128 | 3);
    assert_int_equal(fg_reg(dev, 0x70), 128 | 3);
}

static void features_are_checked_and_frozen(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_set_features(dev, 1ULL << 32); /* too early: not even DRIVER */
    fg_set_reg(dev, 0x70, 1);
    fg_set_reg(dev, 0x70, 3);
    fg_set_reg(dev, 0x70, 11);
    assert_int_equal(fg_reg(dev, 0x70), 3); /* without VERSION_1 */
    fg_set_features(dev, 1ULL << 32 | 1ULL << 7);
    fg_set_reg(dev, 0x70, 11);
    assert_int_equal(fg_reg(dev, 0x70), 3); /* what was not offered */
    fg_set_features(dev, 1ULL << 32);
    fg_set_reg(dev, 0x70, 11);
    assert_int_equal(fg_reg(dev, 0x70), 11);
    fg_set_features(dev, 1ULL << 32 | TOY_FEATURE);
    assert_false(sm_virtio_has(dev, TOY_FEATURE));
}

static void queues_are_set_up_between_features_and_driver_ok_only(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_queue_init(&f->q[0], &f->fg, 0, 16);
    fg_set_queue(dev, 0, &f->q[0]);
    assert_int_equal(fg_reg(dev, 0x44), 0);
    fg_set_reg(dev, 0x70, 3);
    fg_set_features(dev, 1ULL << 32);
    fg_set_reg(dev, 0x70, 11);
    fg_set_reg(dev, 0x44, 1); /* no size yet */
    assert_int_equal(fg_reg(dev, 0x44), 0);
    fg_set_reg(dev, 0x38, 64); /* larger than the maximum */
    fg_set_reg(dev, 0x38, 12);
    assert_int_equal(dev->queue_regs[0].size, 0);
    fg_set_queue(dev, 0, &f->q[0]);
    assert_int_equal(fg_reg(dev, 0x44), 1);
    fg_set_reg(dev, 0x80, 0x1234); /* a ready queue stays where it is */
    assert_int_equal(dev->queue_regs[0].desc, f->q[0].desc);
    fg_set_reg(dev, 0x30, 99);
    fg_set_reg(dev, 0x38, 16);
    fg_set_reg(dev, 0x44, 1);
    fg_set_reg(dev, 0x70, 15);
    fg_set_queue(dev, 1, &f->q[0]);
    assert_int_equal(dev->queue_regs[1].ready, 0);
    /* A queue that was not set up does not run. */
    fg_kick(dev, 1);
    fg_kick(dev, 7);
    sm_loop_turn(f->loop);
    assert_int_equal(f->toy.notified, 0);
}

static void a_broken_queue_asks_for_a_reset(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
    fg_offer(&f->q[0], 99);
    fg_kick(dev, 0);
    sm_loop_turn(f->loop);
    assert_int_equal(fg_reg(dev, 0x70), 15 | SM_VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(fg_reg(dev, 0x60), SM_VIRTIO_INT_CONFIG);
    assert_int_equal(fg_interrupts(dev), 1);
    fg_kick(dev, 1);
    sm_loop_turn(f->loop);
    assert_int_equal(f->toy.notified, 1); /* nothing works until the reset */
    fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
    assert_int_equal(fg_reg(dev, 0x70), 15);
    fg_kick(dev, 1);
    sm_loop_turn(f->loop);
    assert_int_equal(f->toy.notified, 2);
}

static void rings_outside_of_ram_ask_for_a_reset(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_set_reg(dev, 0x70, 3);
    fg_set_features(dev, 1ULL << 32);
    fg_set_reg(dev, 0x70, 11);
    fg_queue_init(&f->q[0], &f->fg, 0, 16);
    f->q[0].used = 0xfffffffffffff000ULL;
    fg_set_queue(dev, 0, &f->q[0]);
    fg_set_reg(dev, 0x70, 15);
    assert_int_equal(fg_reg(dev, 0x70), 15 | SM_VIRTIO_STATUS_NEEDS_RESET);
    assert_int_equal(f->toy.activated, 0);
}

static void configuration_space_is_bounded(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    uint8_t data[8] = {1, 2, 3, 4, 5, 6, 7, 8};
    sm_virtio_mmio_ops.write(dev, 0x100, data, 8);
    assert_memory_equal(f->toy.config, data, 8);
    sm_virtio_mmio_ops.write(dev, 0x104, data, 8);
    sm_virtio_mmio_ops.write(dev, 0x107, data, 2);
    sm_virtio_mmio_ops.write(dev, 0xffc, data, 4);
    assert_int_equal(f->toy.config_writes, 1);
    memset(data, 0, 8);
    sm_virtio_mmio_ops.read(dev, 0x106, data, 2);
    assert_int_equal(data[0], 7);
    memset(data, 0, 8);
    sm_virtio_mmio_ops.read(dev, 0x106, data, 4);
    assert_int_equal(data[0], 0);
    sm_virtio_mmio_ops.read(dev, 0x000, data, 1); /* registers are 32 bits wide */
    assert_int_equal(data[0], 0);
    fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
    uint32_t generation = fg_reg(dev, 0xfc);
    sm_virtio_config_changed(dev);
    assert_int_not_equal(fg_reg(dev, 0xfc), generation);
    assert_int_equal(fg_reg(dev, 0x60), SM_VIRTIO_INT_CONFIG);
}

static void state_survives_save_and_load(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
    uint64_t buf = fg_alloc(&f->fg, 16);
    for (int i = 0; i < 3; i++)
        fg_send(&f->q[0], 0, 0, buf, 16);
    fg_kick(dev, 0);
    sm_loop_turn(f->loop);
    f->toy.extra = 77;
    struct sm_virtio_state saved;
    sm_virtio_save(dev, &saved);
    assert_int_equal(saved.status, 15);
    assert_int_equal(saved.n_queues, 2);
    assert_int_equal(saved.interrupt_status, 1);
    assert_int_equal(saved.driver_features[1], 1);
    assert_int_equal(saved.queues[0].last_avail_idx, 3);
    assert_int_equal(saved.queues[0].next_used_idx, 3);
    assert_int_equal(saved.queues[1].size, 16);

    /* A kick that was under way at capture is not in the state: wake looks by itself. */
    fg_send(&f->q[0], 0, 0, buf, 16);
    fg_interrupts(dev);
    f->toy.extra = 0;
    assert_int_equal(sm_virtio_load(dev, &saved, NULL), 0);
    assert_int_equal(f->toy.resets, 1);
    assert_int_equal(f->toy.loaded, 1);
    assert_int_equal(f->toy.extra, 77);
    assert_int_equal(f->toy.activated, 1);
    assert_int_equal(fg_reg(dev, 0x70), 15);
    sm_virtio_wake(dev);
    assert_true(sm_bell_clear(&f->env.irq)); /* the saved interrupt again */
    sm_loop_turn(f->loop);
    f->q[0].last_used = 3;
    assert_true(fg_used(&f->q[0], NULL, NULL));
    assert_false(fg_used(&f->q[0], NULL, NULL));
}

static void lies_in_a_saved_state_are_refused(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
    struct sm_virtio_state good, bad[8];
    sm_virtio_save(dev, &good);
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        bad[i] = good;
    bad[0].n_queues = 1;
    bad[1].n_queues = 1000;
    bad[2].status = 4;
    bad[3].driver_features[0] |= 1u << 30;
    bad[4].driver_features[1] = 0;
    bad[5].queues[0].size = 64;
    bad[6].queues[0].desc = 0;
    bad[7].queues[1].ready = 2;
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        sm_error err = {0};
        assert_int_equal(sm_virtio_load(dev, &bad[i], &err), -SM_ECORRUPT);
        assert_int_equal(fg_reg(dev, 0x70), 0);
        assert_non_null(strstr(err.message, "virtio-toy"));
    }
    assert_int_equal(sm_virtio_load(dev, &good, NULL), 0);
    assert_int_equal(fg_reg(dev, 0x70), 15);
}

static void a_flood_does_not_keep_the_loop(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    fg_probe(&f->fg, dev, UINT64_MAX & ~(1ULL << 29), f->q, 2, 32);
    uint64_t buf = fg_alloc(&f->fg, 16);
    for (int i = 0; i < 32; i++)
        fg_send(&f->q[0], 0, 0, buf, 16);
    fg_kick(dev, 0);
    sm_loop_turn(f->loop);
    assert_true(f->toy.notified > 1); /* in several turns, and all of it */
    assert_int_equal(fg_load16(&f->fg, f->q[0].used + 2), 32);
    assert_int_equal(fg_load16(&f->fg, f->q[0].used), 0);
}

static void works_from_other_threads(void **state)
{
    struct fixture *f = *state;
    struct sm_virtio_dev *dev = &f->toy.dev;
    assert_int_equal(sm_loop_start(f->loop, "devices", NULL), 0);
    for (int round = 0; round < 50; round++) {
        fg_probe(&f->fg, dev, UINT64_MAX, f->q, 2, 16);
        uint64_t buf = FG_RAM_GPA + FG_HEAP;
        fg_send(&f->q[0], 0, 0, buf, 16);
        fg_kick(dev, 0);
        int ms = 0;
        while (!fg_used(&f->q[0], NULL, NULL) && ms++ < PATIENCE_MS)
            usleep(1000);
        assert_true(ms < PATIENCE_MS);
    }
    fg_set_reg(dev, 0x70, 0);
    sm_loop_stop(f->loop);
    assert_int_equal(f->toy.activated, 50);
    assert_int_equal(f->toy.resets, 50);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(identifies_itself),
        T(goes_all_the_way),
        T(status_bits_out_of_order_are_ignored),
        T(features_are_checked_and_frozen),
        T(queues_are_set_up_between_features_and_driver_ok_only),
        T(a_broken_queue_asks_for_a_reset),
        T(rings_outside_of_ram_ask_for_a_reset),
        T(configuration_space_is_bounded),
        T(state_survives_save_and_load),
        T(lies_in_a_saved_state_are_refused),
        T(a_flood_does_not_keep_the_loop),
        T(works_from_other_threads),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
