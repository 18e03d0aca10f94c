/* Records between the processes of a VM, and the machine's calls: what is whole passes, all else is
 * refused and leaves no descriptor behind (control/record.h, control/machine_call.h). */
#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "control/machine_call.h"

static int count_descriptors(void)
{
    int n = 0;
    DIR *dir = opendir("/proc/self/fd");
    while (readdir(dir))
        n++;
    closedir(dir);
    return n;
}

struct pair {
    int ends[2], open_before;
};

static int setup(void **state)
{
    static struct pair p;
    p.open_before = count_descriptors();
    *state = &p;
    return socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, p.ends);
}

static int teardown(void **state)
{
    const struct pair *p = *state;
    close(p->ends[0]);
    close(p->ends[1]);
    return count_descriptors() != p->open_before;
}

static void send_bytes(const struct pair *p, const void *bytes, size_t size, unsigned n_fds)
{
    int fds[] = {p->ends[0], p->ends[0]};
    assert_int_equal(sm_record_send(p->ends[0], bytes, size, fds, n_fds), 0);
}

static void a_record_comes_whole_with_its_descriptors(void **state)
{
    const struct pair *p = *state;
    char got[8];
    int fds[2];
    unsigned n;
    send_bytes(p, "abc", 3, 2);
    assert_int_equal(sm_record_take(p->ends[1], got, sizeof(got), fds, 2, &n), 3);
    assert_memory_equal(got, "abc", 3);
    assert_int_equal(n, 2);
    close(fds[0]);
    close(fds[1]);
    assert_int_equal(sm_record_take_now(p->ends[1], got, sizeof(got), fds, 2, &n), -EAGAIN);
}

static void what_does_not_fit_is_refused_and_its_descriptors_are_closed(void **state)
{
    const struct pair *p = *state;
    char got[2];
    int fds[1];
    unsigned n;
    send_bytes(p, "abc", 3, 1); /* too long */
    assert_int_equal(sm_record_take(p->ends[1], got, sizeof(got), fds, 1, &n), -EPROTO);
    send_bytes(p, "ab", 2, 2); /* too many */
    assert_int_equal(sm_record_take(p->ends[1], got, sizeof(got), fds, 1, &n), -EPROTO);
    send_bytes(p, "ab", 2, 1); /* none wanted: the kernel keeps them back, and the record is odd */
    assert_int_equal(sm_record_take(p->ends[1], got, sizeof(got), NULL, 0, NULL), -EPROTO);
    send_bytes(p, "ab", 2, 0);
    assert_int_equal(sm_record_take(p->ends[1], got, sizeof(got), NULL, 0, NULL), 2);
}

static void looking_at_a_record_leaves_it_there(void **state)
{
    const struct pair *p = *state;
    char got[4];
    assert_int_equal(sm_record_peek(p->ends[1], got, sizeof(got)), -EAGAIN);
    send_bytes(p, "end", 3, 0);
    for (int i = 0; i < 3; i++)
        assert_int_equal(sm_record_peek(p->ends[1], got, sizeof(got)), 3);
    assert_int_equal(sm_record_peek(p->ends[1], got, 2), -EPROTO);
}

static void a_closed_end_is_told(void **state)
{
    struct pair *p = *state;
    char got[4];
    close(p->ends[0]);
    p->ends[0] = dup(p->ends[1]);
    assert_int_equal(sm_record_take(p->ends[1], got, sizeof(got), NULL, 0, NULL), 0);
    assert_int_equal(sm_record_send(p->ends[1], got, sizeof(got), NULL, 0), -EPIPE);
}

static void a_message_has_the_texts_that_were_put_into_it(void **state)
{
    const struct pair *p = *state;
    struct sm_machine_message *m = calloc(1, sizeof(*m)), *got = malloc(sizeof(*got));
    const char *texts[3];
    sm_error err;
    m->request.call = SM_CALL_START;
    assert_int_equal(sm_machine_add(m, "12345678", 8, &err), 0);
    assert_int_equal(sm_machine_add_text(m, "quiet", &err), 0);
    assert_int_equal(sm_machine_add_text(m, NULL, &err), 0);
    assert_int_equal(sm_machine_add_text(m, "/a file", &err), 0);
    assert_int_equal(sm_machine_send(p->ends[0], m, &err), 0);
    assert_int_equal(sm_machine_take(p->ends[1], got, &err), 0);
    assert_memory_equal(sm_machine_body(got, 0, 8), "12345678", 8);
    assert_null(sm_machine_body(got, 0, got->body_bytes + 1));
    assert_null(sm_machine_body(got, got->body_bytes + 1, 0));
    assert_null(sm_machine_body(got, 1, SIZE_MAX));
    assert_true(sm_machine_texts(got, 8, texts, 3));
    assert_string_equal(texts[0], "quiet");
    assert_string_equal(texts[1], "");
    assert_string_equal(texts[2], "/a file");
    assert_false(sm_machine_texts(got, 8, texts, 2)); /* another number than it says */
    got->body[got->body_bytes - 1] = 'x';             /* no NUL at the end */
    assert_false(sm_machine_texts(got, 8, texts, 3));
    free(m);
    free(got);
}

static void a_message_that_is_too_long_is_not_made_and_one_cut_short_not_taken(void **state)
{
    const struct pair *p = *state;
    struct sm_machine_message *m = calloc(1, sizeof(*m));
    sm_error err;
    assert_int_equal(sm_machine_add(m, m->body, sizeof(m->body), &err), 0);
    assert_int_equal(sm_machine_add_text(m, "", &err), -SM_ELIMIT);
    send_bytes(p, m, sizeof(m->request) - 1, 1);
    assert_int_equal(sm_machine_take(p->ends[1], m, &err), -SM_EPROTOCOL);
    free(m);
}

static int take_reply(
    const struct pair *p, const void *bytes, size_t size, unsigned n_fds, sm_error *err)
{
    struct sm_machine_reply got;
    send_bytes(p, bytes, size, n_fds);
    return sm_machine_reply_take(p->ends[1], &got, err);
}

static void a_reply_is_believed_nothing(void **state)
{
    const struct pair *p = *state;
    const struct sm_machine_reply good = {.rc = 0};
    sm_error err;
    assert_int_equal(take_reply(p, &good, sizeof(good), 0, &err), 0);
    assert_int_equal(take_reply(p, &good, sizeof(good) - 1, 0, &err), -SM_EPROTOCOL);
    assert_true(take_reply(p, &good, sizeof(good), 1, &err) < 0); /* a descriptor upwards */
    struct sm_machine_reply bad = {.rc = 1};
    assert_int_equal(take_reply(p, &bad, sizeof(bad), 0, &err), -SM_EPROTOCOL);
    bad.rc = INT32_MIN;
    assert_int_equal(take_reply(p, &bad, sizeof(bad), 0, &err), -SM_EPROTOCOL);
    bad = good;
    memset(bad.text, 'x', sizeof(bad.text));
    assert_int_equal(take_reply(p, &bad, sizeof(bad), 0, &err), -SM_EPROTOCOL);
}

static void a_failure_is_told_as_text(void **state)
{
    const struct pair *p = *state;
    struct sm_machine_reply failed = {.rc = -SM_ENOSPC, .sys_errno = ENOSPC, .text = "full\x1b[2J"};
    sm_error err;
    assert_int_equal(take_reply(p, &failed, sizeof(failed), 0, &err), -SM_ENOSPC);
    assert_int_equal(err.code, SM_ENOSPC);
    assert_int_equal(err.sys_errno, ENOSPC);
    assert_null(strchr(err.message, '\x1b'));
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_record_comes_whole_with_its_descriptors),
        TEST(what_does_not_fit_is_refused_and_its_descriptors_are_closed),
        TEST(looking_at_a_record_leaves_it_there),
        TEST(a_closed_end_is_told),
        TEST(a_message_has_the_texts_that_were_put_into_it),
        TEST(a_message_that_is_too_long_is_not_made_and_one_cut_short_not_taken),
        TEST(a_reply_is_believed_nothing),
        TEST(a_failure_is_told_as_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
