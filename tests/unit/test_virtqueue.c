/* The split virtqueue with a guest that may write anything into its rings: each way of breaking the
 * rules has a name, stops the queue and reads nothing outside of RAM. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "devices/virtqueue.h"
#include "fake_guest.h"

struct fixture {
    struct fg fg;
    struct fg_queue q;
    struct sm_virtq vq;
    struct sm_virtq_chain chain;
    uint64_t a, b; /* two buffers of 4 KiB */
};

static void start(struct fixture *f, bool event_idx)
{
    struct sm_virtq_state s = fg_queue_state(&f->q);
    assert_true(sm_virtq_start(&f->vq, &f->fg.gm, &s, event_idx, true));
}

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fg_init(&f->fg);
    fg_queue_init(&f->q, &f->fg, 0, 8);
    f->a = fg_alloc(&f->fg, 4096);
    f->b = fg_alloc(&f->fg, 4096);
    start(f, false);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    fg_fini(&f->fg);
    free(f);
    return 0;
}

static void expect_broken(struct fixture *f, const char *why)
{
    assert_false(sm_virtq_pop(&f->vq, &f->chain));
    assert_true(f->vq.broken);
    assert_string_equal(f->vq.why_broken, why);
    /* It stays so. */
    fg_desc(&f->q, 0, f->a, 16, 0, 0);
    assert_false(sm_virtq_pop(&f->vq, &f->chain));
    assert_false(sm_virtq_has_avail(&f->vq));
}

static void chain_is_split_into_readable_and_writable(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 3, f->a, 10, FG_NEXT, 5);
    fg_desc(&f->q, 5, f->b, 20, FG_NEXT | FG_WRITE, 1);
    fg_desc(&f->q, 1, f->b + 100, 30, FG_WRITE, 7);
    fg_offer(&f->q, 3);
    assert_true(sm_virtq_has_avail(&f->vq));
    assert_true(sm_virtq_pop(&f->vq, &f->chain));
    assert_int_equal(f->chain.head, 3);
    assert_int_equal(f->chain.n_readable, 1);
    assert_int_equal(f->chain.n_writable, 2);
    assert_int_equal(f->chain.readable_bytes, 10);
    assert_int_equal(f->chain.writable_bytes, 50);
    assert_ptr_equal(f->chain.iov[0].iov_base, fg_ptr(&f->fg, f->a));
    assert_ptr_equal(sm_virtq_writable(&f->chain)[1].iov_base, fg_ptr(&f->fg, f->b + 100));
    assert_false(sm_virtq_pop(&f->vq, &f->chain));
    assert_false(f->vq.broken);
    /* Not visible before it is published. */
    uint32_t id, len;
    sm_virtq_push(&f->vq, 3, 42);
    assert_false(fg_used(&f->q, &id, &len));
    assert_true(sm_virtq_publish(&f->vq));
    assert_true(fg_used(&f->q, &id, &len));
    assert_int_equal(id, 3);
    assert_int_equal(len, 42);
    assert_false(sm_virtq_publish(&f->vq));
}

static void unpop_gives_the_chain_back(void **state)
{
    struct fixture *f = *state;
    fg_send(&f->q, f->a, 8, 0, 0);
    assert_true(sm_virtq_pop(&f->vq, &f->chain));
    sm_virtq_unpop(&f->vq);
    assert_true(sm_virtq_pop(&f->vq, &f->chain));
    assert_false(sm_virtq_pop(&f->vq, &f->chain));
}

static void indices_wrap(void **state)
{
    struct fixture *f = *state;
    struct sm_virtq_state s = fg_queue_state(&f->q);
    s.last_avail_idx = s.next_used_idx = 65530;
    f->q.avail_idx = f->q.last_used = 65530;
    fg_store16(&f->fg, f->q.avail + 2, 65530);
    fg_store16(&f->fg, f->q.used + 2, 65530);
    assert_true(sm_virtq_start(&f->vq, &f->fg.gm, &s, false, true));
    for (int i = 0; i < 20; i++) {
        unsigned head = fg_send(&f->q, f->a, 8, 0, 0);
        uint32_t id;
        assert_true(sm_virtq_pop(&f->vq, &f->chain));
        sm_virtq_push(&f->vq, f->chain.head, 0);
        assert_true(sm_virtq_publish(&f->vq));
        assert_true(fg_used(&f->q, &id, NULL));
        assert_int_equal(id, head);
    }
}

static void indirect_table_is_followed(void **state)
{
    struct fixture *f = *state;
    uint64_t table = fg_alloc(&f->fg, 64);
    fg_put_desc(fg_ptr(&f->fg, table), f->a, 16, FG_NEXT, 2);
    fg_put_desc(fg_ptr(&f->fg, table + 32), f->b, 32, FG_WRITE, 0);
    fg_desc(&f->q, 0, f->a + 64, 4, FG_NEXT, 1); /* a plain one may stand before the table */
    fg_desc(&f->q, 1, table, 48, FG_INDIRECT, 0);
    fg_offer(&f->q, 0);
    assert_true(sm_virtq_pop(&f->vq, &f->chain));
    assert_int_equal(f->chain.readable_bytes, 20);
    assert_int_equal(f->chain.writable_bytes, 32);
}

/* Each takes the queue to one way of being broken. */
static void loop_of_descriptors(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, f->a, 8, FG_NEXT, 1);
    fg_desc(&f->q, 1, f->a, 8, FG_NEXT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "loop of descriptors");
}

static void self_loop(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, f->a, 8, FG_NEXT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "loop of descriptors");
}

static void loop_inside_of_a_table(void **state)
{
    struct fixture *f = *state;
    uint64_t table = fg_alloc(&f->fg, 32);
    fg_put_desc(fg_ptr(&f->fg, table), f->a, 16, FG_NEXT, 1);
    fg_put_desc(fg_ptr(&f->fg, table + 16), f->a, 16, FG_NEXT, 0);
    fg_desc(&f->q, 0, table, 32, FG_INDIRECT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "loop of descriptors");
}

static void head_beyond_the_table(void **state)
{
    struct fixture *f = *state;
    fg_offer(&f->q, 8);
    expect_broken(f, "descriptor number");
}

static void next_beyond_the_table(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, f->a, 8, FG_NEXT, 8);
    fg_offer(&f->q, 0);
    expect_broken(f, "descriptor number");
}

static void next_beyond_the_indirect_table(void **state)
{
    struct fixture *f = *state;
    uint64_t table = fg_alloc(&f->fg, 32);
    fg_put_desc(fg_ptr(&f->fg, table), f->a, 16, FG_NEXT, 2);
    fg_desc(&f->q, 0, table, 32, FG_INDIRECT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "descriptor number");
}

static void empty_buffer(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, f->a, 0, 0, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "empty buffer");
}

static void buffer_outside_of_ram(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, FG_RAM_GPA + FG_RAM_SIZE - 8, 16, 0, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "buffer is not in RAM");
}

static void buffer_below_ram(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, FG_RAM_GPA - 8, 16, 0, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "buffer is not in RAM");
}

static void buffer_that_wraps_the_address_space(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, UINT64_MAX - 4, UINT32_MAX, 0, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "buffer is not in RAM");
}

static void readable_after_writable(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, f->a, 8, FG_NEXT | FG_WRITE, 1);
    fg_desc(&f->q, 1, f->b, 8, 0, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "readable buffer after a writable one");
}

static void nested_indirect(void **state)
{
    struct fixture *f = *state;
    uint64_t table = fg_alloc(&f->fg, 32);
    fg_put_desc(fg_ptr(&f->fg, table), table, 16, FG_INDIRECT, 0);
    fg_desc(&f->q, 0, table, 32, FG_INDIRECT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "misplaced indirect table");
}

static void indirect_with_next(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, f->a, 32, FG_INDIRECT | FG_NEXT, 1);
    fg_offer(&f->q, 0);
    expect_broken(f, "misplaced indirect table");
}

static void indirect_not_negotiated(void **state)
{
    struct fixture *f = *state;
    f->vq.indirect = false;
    fg_desc(&f->q, 0, f->a, 32, FG_INDIRECT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "misplaced indirect table");
}

static void indirect_size(void **state)
{
    struct fixture *f = *state;
    static const uint32_t sizes[] = {0, 8, 17, 16 * 9, UINT32_MAX & ~15u};
    for (size_t i = 0; i < SM_ARRAY_LEN(sizes); i++) {
        fg_queue_init(&f->q, &f->fg, 0, 8);
        start(f, false);
        fg_desc(&f->q, 0, f->a, sizes[i], FG_INDIRECT, 0);
        fg_offer(&f->q, 0);
        expect_broken(f, "size of an indirect table");
    }
}

static void indirect_table_outside_of_ram(void **state)
{
    struct fixture *f = *state;
    fg_desc(&f->q, 0, FG_RAM_GPA + FG_RAM_SIZE - 16, 32, FG_INDIRECT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "indirect table is not in RAM");
}

static void chain_longer_than_the_queue(void **state)
{
    struct fixture *f = *state;
    uint64_t table = fg_alloc(&f->fg, 128);
    for (size_t i = 0; i < 8; i++)
        fg_put_desc(fg_ptr(&f->fg, table + 16 * i), f->a, 1, i < 7 ? FG_NEXT : 0, (unsigned)i + 1);
    fg_desc(&f->q, 0, f->a, 1, FG_NEXT, 1);
    fg_desc(&f->q, 1, table, 8 * 16, FG_INDIRECT, 0);
    fg_offer(&f->q, 0);
    expect_broken(f, "chain is longer than the queue");
}

static void index_jump(void **state)
{
    struct fixture *f = *state;
    fg_store16(&f->fg, f->q.avail + 2, 9);
    expect_broken(f, "available index jumped");
}

static void index_backwards(void **state)
{
    struct fixture *f = *state;
    fg_store16(&f->fg, f->q.avail + 2, 65535);
    expect_broken(f, "available index jumped");
}

static void bad_set_up_is_refused(void **state)
{
    struct fixture *f = *state;
    struct sm_virtq_state good = fg_queue_state(&f->q);
    struct sm_virtq_state bad[10];
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++)
        bad[i] = good;
    bad[0].size = 0;
    bad[1].size = 12;
    bad[2].size = 512;
    bad[3].desc += 8;
    bad[4].avail += 1;
    bad[5].used += 2;
    bad[6].desc = 0;
    bad[7].avail = FG_RAM_GPA + FG_RAM_SIZE - 8;
    bad[8].used = UINT64_MAX - 3;
    bad[9].used = FG_RAM_GPA + FG_RAM_SIZE - 4 - 8 * 8; /* all but the event word */
    for (size_t i = 0; i < SM_ARRAY_LEN(bad); i++) {
        struct sm_virtq vq;
        assert_false(sm_virtq_start(&vq, &f->fg.gm, &bad[i], true, true));
        assert_true(vq.broken);
        assert_false(sm_virtq_pop(&vq, &f->chain));
        sm_virtq_push(&vq, 0, 0);
        assert_false(sm_virtq_publish(&vq));
    }
}

static void flags_suppress_interrupts_and_kicks(void **state)
{
    struct fixture *f = *state;
    fg_store16(&f->fg, f->q.avail, 1); /* NO_INTERRUPT */
    sm_virtq_push(&f->vq, 0, 0);
    assert_false(sm_virtq_publish(&f->vq));
    fg_store16(&f->fg, f->q.avail, 0);
    sm_virtq_push(&f->vq, 1, 0);
    assert_true(sm_virtq_publish(&f->vq));

    sm_virtq_notify_off(&f->vq);
    assert_int_equal(fg_load16(&f->fg, f->q.used), 1);
    fg_send(&f->q, f->a, 8, 0, 0);
    assert_true(sm_virtq_notify_on(&f->vq));
    assert_int_equal(fg_load16(&f->fg, f->q.used), 0);
    assert_true(sm_virtq_pop(&f->vq, &f->chain));
    assert_false(sm_virtq_notify_on(&f->vq));
}

static void event_idx_suppresses_both_ways(void **state)
{
    struct fixture *f = *state;
    start(f, true);
    uint64_t used_event = f->q.avail + 20, avail_event = f->q.used + 68;
    /* Interrupt only once element 2 is there (the third). */
    fg_store16(&f->fg, used_event, 2);
    sm_virtq_push(&f->vq, 0, 0);
    sm_virtq_push(&f->vq, 1, 0);
    assert_false(sm_virtq_publish(&f->vq));
    sm_virtq_push(&f->vq, 2, 0);
    assert_true(sm_virtq_publish(&f->vq));
    sm_virtq_push(&f->vq, 3, 0);
    assert_false(sm_virtq_publish(&f->vq)); /* it was told already */
    /* A batch that goes past the event interrupts once. */
    fg_store16(&f->fg, used_event, 5);
    for (int i = 0; i < 4; i++)
        sm_virtq_push(&f->vq, 0, 0);
    assert_true(sm_virtq_publish(&f->vq));

    fg_send(&f->q, f->a, 8, 0, 0);
    assert_true(sm_virtq_pop(&f->vq, &f->chain));
    sm_virtq_notify_off(&f->vq);
    assert_int_equal(fg_load16(&f->fg, avail_event), 0);
    assert_false(sm_virtq_notify_on(&f->vq));
    assert_int_equal(fg_load16(&f->fg, avail_event), 1);
}

static void memory_bounds(void **state)
{
    struct fixture *f = *state;
    struct sm_guest_memory *gm = &f->fg.gm;
    assert_non_null(sm_gm_ptr(gm, FG_RAM_GPA, FG_RAM_SIZE));
    assert_null(sm_gm_ptr(gm, FG_RAM_GPA, FG_RAM_SIZE + 1ULL));
    assert_null(sm_gm_ptr(gm, FG_RAM_GPA + FG_RAM_SIZE, 0));
    assert_null(sm_gm_ptr(gm, FG_RAM_GPA - 1, 1));
    assert_null(sm_gm_ptr(gm, FG_RAM_GPA + 1, UINT64_MAX));
    assert_null(sm_gm_ptr(gm, UINT64_MAX, 2));
    assert_non_null(sm_gm_ptr(gm, FG_RAM_GPA + FG_RAM_SIZE - 1, 1));
    /* Two regions that touch do not make one. */
    gm->n = 2;
    gm->regions[1] = gm->regions[0];
    gm->regions[0].size /= 2;
    gm->regions[1].gpa += FG_RAM_SIZE / 2;
    gm->regions[1].size /= 2;
    assert_null(sm_gm_ptr(gm, FG_RAM_GPA + FG_RAM_SIZE / 2 - 1, 2));
    assert_non_null(sm_gm_ptr(gm, FG_RAM_GPA + FG_RAM_SIZE / 2, 2));
}

static void iovec_helpers(void **state)
{
    (void)state;
    char a[4] = "abcd", b[3] = "efg", c[5] = "hijkl", out[16] = {0};
    struct iovec iov[3] = {{a, 4}, {b, 3}, {c, 5}}, slice[3];
    assert_int_equal(sm_iov_read(iov, 3, 3, out, 6), 6);
    assert_memory_equal(out, "defghi", 6);
    assert_int_equal(sm_iov_read(iov, 3, 11, out, 6), 1);
    assert_int_equal(sm_iov_read(iov, 3, 12, out, 6), 0);
    assert_int_equal(sm_iov_write(iov, 3, 6, "XYZ", 3), 3);
    assert_memory_equal(b, "efX", 3);
    assert_memory_equal(c, "YZjkl", 5);
    assert_int_equal(sm_iov_slice(iov, 3, 4, 5, slice), 2);
    assert_ptr_equal(slice[0].iov_base, b);
    assert_int_equal(slice[1].iov_len, 2);
    assert_int_equal(sm_iov_slice(iov, 3, 12, 5, slice), 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(chain_is_split_into_readable_and_writable),
        T(unpop_gives_the_chain_back),
        T(indices_wrap),
        T(indirect_table_is_followed),
        T(loop_of_descriptors),
        T(self_loop),
        T(loop_inside_of_a_table),
        T(head_beyond_the_table),
        T(next_beyond_the_table),
        T(next_beyond_the_indirect_table),
        T(empty_buffer),
        T(buffer_outside_of_ram),
        T(buffer_below_ram),
        T(buffer_that_wraps_the_address_space),
        T(readable_after_writable),
        T(nested_indirect),
        T(indirect_with_next),
        T(indirect_not_negotiated),
        T(indirect_size),
        T(indirect_table_outside_of_ram),
        T(chain_longer_than_the_queue),
        T(index_jump),
        T(index_backwards),
        T(bad_set_up_is_refused),
        T(flags_suppress_interrupts_and_kicks),
        T(event_idx_suppresses_both_ways),
        T(memory_bounds),
        cmocka_unit_test(iovec_helpers),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
