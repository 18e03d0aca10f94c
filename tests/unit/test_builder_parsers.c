/*
 * What parsers say is a stranger's word: supermachine-image bounds it, ends who lies, and goes on.
 * And what honest ones make of a tar. (Sanitizers' builds have no sandbox around them:
 * sandbox/test_sandbox_parser.c.)
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <fcntl.h>
#include <linux/futex.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "builder/parser_mains.h"
#include "builder/parsers.h"
#include "util/cleanup.h"
#include "util/clock.h"

static struct sm_parsers *with_reader(sm_parser_main *main)
{
    struct sm_parsers *p = calloc(1, sizeof(*p));
    assert_non_null(p);
    p->reader = (struct sm_parser){.who = "the reader", .main = main};
    p->writer = (struct sm_parser){.who = "the writer", .main = main};
    p->file_limit = SM_ROOTFS_MAX_BYTES;
    return p;
}

static void send_text(int socket, uint32_t type, const char *text)
{
    sm_parser_send(socket, type, text, strlen(text), NULL, 0);
}

static void wait_for_request(int socket)
{
    struct sm_parser_message *message = malloc(sizeof(*message));
    if (message)
        sm_parser_receive(socket, SM_NO_DEADLINE, message);
    free(message);
}

/* ---- lies of a reader ------------------------------------------------------------------------ */

static void sends_no_type(int socket)
{
    wait_for_request(socket);
    send_text(socket, 999, "?");
}

static void reads_more_than_there_is(int socket)
{
    wait_for_request(socket);
    uint64_t size = UINT64_MAX;
    sm_parser_send(socket, SM_PARSER_READ, &size, sizeof(size), NULL, 0);
}

static void sends_a_short_number(int socket)
{
    wait_for_request(socket);
    send_text(socket, SM_PARSER_WAIT, "abc");
}

static void ends_in_half(int socket)
{
    wait_for_request(socket);
    send_text(socket, SM_PARSER_END, "abc");
}

static void breaks_off(int socket)
{
    wait_for_request(socket);
    const uint32_t head[] = {SM_PARSER_DATA, 100};
    if (write(socket, head, sizeof(head)) < 0)
        return;
}

static void promises_too_much(int socket)
{
    wait_for_request(socket);
    const uint32_t head[] = {SM_PARSER_DATA, SM_PARSER_MOST + 1};
    if (write(socket, head, sizeof(head)) < 0)
        return;
}

static int take_nothing(void *arg, const void *data, size_t size, sm_error *err)
{
    return 0;
}

static int inflate_by(sm_parser_main *main, int patience_ms, sm_error *err)
{
    static const struct sm_inflate_ops ops = {.take = take_nothing};
    const struct sm_descriptor d = {.size = 10};
    struct sm_parsers *p = with_reader(main);
    p->reader.patience_ms = patience_ms;
    auto_blob blob = {.fd = memfd_create("blob", MFD_CLOEXEC), .size = 10};
    int rc = sm_parsers_inflate(p, &blob, &d, &ops, NULL, NULL, err);
    if (rc)
        assert_int_equal(p->reader.pid, 0); /* whoever lied is gone */
    sm_parsers_close(p);
    return rc;
}

static void a_reader_that_lies_is_ended(void **state)
{
    static const struct {
        sm_parser_main *main;
        int rc;
    } lies[] = {
        {sends_no_type, -SM_ECORRUPT},
        {reads_more_than_there_is, -SM_ECORRUPT},
        {sends_a_short_number, -SM_ECORRUPT},
        {ends_in_half, -SM_ECORRUPT},
        {breaks_off, -SM_EIO},
        {promises_too_much, -SM_EIO},
    };
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        sm_error err = {0};
        assert_int_equal(inflate_by(lies[i].main, 0, &err), lies[i].rc);
        assert_non_null(strstr(err.message, "the reader"));
    }
}

/* ---- who holds the program up ---------------------------------------------------------------- */

/* What the program has instead of minutes. */
#define PATIENCE_OF_TEST_MS 200

/* By a call that a parser has. */
static void sleep_ms(long ms)
{
    static int word;
    const struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, ms < 0 ? NULL : &time, NULL, 0);
}

static void sleeps_in_a_head(int socket)
{
    wait_for_request(socket);
    const uint32_t type = SM_PARSER_DATA;
    if (write(socket, &type, sizeof(type)) > 0)
        sleep_ms(-1);
}

static void sleeps_in_a_message(int socket)
{
    wait_for_request(socket);
    const uint32_t head[] = {SM_PARSER_DATA, 100, 0};
    if (write(socket, head, sizeof(head)) > 0)
        sleep_ms(-1);
}

/* Each byte comes in time, but there are hours of them. */
static void drips(int socket)
{
    wait_for_request(socket);
    const uint32_t head[] = {SM_PARSER_DATA, SM_PARSER_MOST};
    ssize_t n = write(socket, head, sizeof(head));
    for (; n > 0; n = write(socket, "", 1))
        sleep_ms(PATIENCE_OF_TEST_MS / 10);
}

/* It asks, and hears no answer. */
static void asks_and_does_not_listen(int socket)
{
    wait_for_request(socket);
    const uint64_t have = 0;
    while (sm_parser_send(socket, SM_PARSER_WAIT, &have, sizeof(have), NULL, 0) == 0)
        ;
}

static void assert_held_up(int rc, const sm_error *err)
{
    assert_int_equal(rc, -SM_ETIMEOUT);
    assert_non_null(strstr(err->message, "neither finished nor took a message for 1 s"));
}

static void a_reader_that_does_not_finish_a_message_is_ended(void **state)
{
    static sm_parser_main *const mains[] = {
        sleeps_in_a_head, sleeps_in_a_message, drips, asks_and_does_not_listen};
    for (size_t i = 0; i < sizeof(mains) / sizeof(mains[0]); i++) {
        sm_error err = {0};
        assert_held_up(inflate_by(mains[i], PATIENCE_OF_TEST_MS, &err), &err);
        assert_non_null(strstr(err.message, "the reader"));
    }
}

/* Says that the file system has begun, and sleeps. */
static void begins_and_sleeps(int socket)
{
    const sm_error none = {0};
    wait_for_request(socket);
    sm_parser_send_end(socket, 0, &none);
    sleep_ms(-1);
}

static void a_writer_that_takes_nothing_is_ended(void **state)
{
    static char bytes[SM_PARSER_MOST];
    const struct sm_rootfs_limits limits = {.bytes = 64 << 20};
    struct sm_parsers *p = with_reader(begins_and_sleeps);
    p->writer.patience_ms = PATIENCE_OF_TEST_MS;
    sm_error err = {0};
    auto_fd fd = memfd_create("image", MFD_CLOEXEC);
    assert_int_equal(sm_parsers_begin(p, fd, &limits, &err), 0);
    int rc = sm_parsers_layer(p, &err);
    for (int n = 0; rc == 0 && n < 100; n++)
        rc = sm_parsers_give(p, bytes, sizeof(bytes), &err);
    assert_held_up(rc, &err);
    assert_non_null(strstr(err.message, "the writer"));
    assert_int_equal(p->writer.pid, 0);
    sm_parsers_close(p);
}

/* An honest one may take its time between two messages. */
static void thinks_long(int socket)
{
    const sm_error none = {0};
    wait_for_request(socket);
    sleep_ms(2 * PATIENCE_OF_TEST_MS);
    sm_parser_send_end(socket, 0, &none);
}

static void who_thinks_is_waited_for(void **state)
{
    sm_error err = {0};
    assert_int_equal(inflate_by(thinks_long, PATIENCE_OF_TEST_MS, &err), 0);
}

/* ---- an archive's members -------------------------------------------------------------------- */

static void send_member(int socket, struct sm_parser_member head, const char *texts)
{
    char bytes[256];
    memcpy(bytes, &head, sizeof(head));
    memcpy(bytes + sizeof(head), texts, strlen(texts));
    sm_parser_send(socket, SM_PARSER_MEMBER, bytes, sizeof(head) + strlen(texts), NULL, 0);
}

static void ends_well(int socket)
{
    const sm_error none = {0};
    sm_parser_send_end(socket, 0, &none);
}

static void names_climb(int socket)
{
    wait_for_request(socket);
    send_member(
        socket, (struct sm_parser_member){.name = 12, .link = 11}, "/../..//./ab../../../cd");
    ends_well(socket);
}

static void a_name_is_longer_than_its_message(int socket)
{
    wait_for_request(socket);
    send_member(socket, (struct sm_parser_member){.name = 4000}, "x");
    ends_well(socket);
}

static void a_name_wraps_around(int socket)
{
    wait_for_request(socket);
    send_member(socket, (struct sm_parser_member){.name = UINT32_MAX, .link = 2}, "x");
    ends_well(socket);
}

static void a_name_is_empty(int socket)
{
    wait_for_request(socket);
    send_member(socket, (struct sm_parser_member){.name = 0}, "");
    ends_well(socket);
}

static int index_by(sm_parser_main *main, struct sm_tar_members *members, sm_error *err)
{
    struct sm_parsers *p = with_reader(main);
    auto_fd fd = memfd_create("archive", MFD_CLOEXEC);
    int rc = sm_parsers_index(p, fd, -1, members, err);
    sm_parsers_close(p);
    return rc;
}

static void a_member_is_what_its_message_has(void **state)
{
    struct sm_tar_members members = {0};
    sm_error err = {0};
    assert_int_equal(index_by(names_climb, &members, &err), 0);
    assert_int_equal(members.count, 1);
    assert_string_equal(members.items[0].name, "ab");
    assert_string_equal(members.items[0].link, "cd");
    sm_tar_members_clear(&members);
    static sm_parser_main *const lies[] = {
        a_name_is_longer_than_its_message, a_name_wraps_around, a_name_is_empty};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        assert_int_equal(index_by(lies[i], &members, &err), -SM_ECORRUPT);
        assert_int_equal(members.count, 0);
        sm_tar_members_clear(&members);
    }
}

/* ---- errors ---------------------------------------------------------------------------------- */

static void an_error_is_text_with_a_code(void **state)
{
    sm_error err;
    struct sm_parser_end end = {.rc = -12345};
    memset(end.err.message, 'x', sizeof(end.err.message));
    memcpy(end.err.message, "a\x1b[2J\n", 6);
    end.err.code = (enum sm_code)77;
    assert_int_equal(sm_parser_take_end(&end, &err), -SM_ECORRUPT);
    assert_int_equal(err.code, SM_ECORRUPT);
    assert_memory_equal(err.message, "a?[2J?", 6);
    assert_int_equal(strlen(err.message), sizeof(err.message) - 1);
    end.rc = 5;
    assert_int_equal(sm_parser_take_end(&end, &err), -SM_ECORRUPT);
    end.rc = -SM_ENOSPC;
    assert_int_equal(sm_parser_take_end(&end, &err), -SM_ENOSPC);
    end.rc = 0;
    assert_int_equal(sm_parser_take_end(&end, &err), 0);
}

/* ---- a writer -------------------------------------------------------------------------------- */

static void a_writer_is_told_what_is_wrong_and_says_it(void **state)
{
    struct sm_parsers *p = with_reader(sm_parser_writer);
    const struct sm_rootfs_limits limits = {.bytes = 64 << 20};
    char path[] = "/tmp/writer-XXXXXX";
    sm_error err = {0};
    auto_fd fd = mkstemp(path);
    unlink(path);
    assert_int_equal(sm_parsers_begin(p, fd, &limits, &err), 0);
    assert_int_equal(sm_parsers_layer(p, &err), 0);
    int rc = 0;
    static char nonsense[SM_PARSER_MOST];
    memset(nonsense, 'n', sizeof(nonsense));
    /* It says so at once, or when its socket is full; nobody waits for ever. */
    for (int i = 0; rc == 0 && i < 100; i++)
        rc = sm_parsers_give(p, nonsense, sizeof(nonsense), &err);
    if (rc == 0)
        rc = sm_parsers_layer_end(p, NULL, NULL, &err);
    assert_int_equal(rc, -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "tar"));
    assert_int_equal(p->writer.pid, 0);
    sm_parsers_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_reader_that_lies_is_ended),
        cmocka_unit_test(a_reader_that_does_not_finish_a_message_is_ended),
        cmocka_unit_test(a_writer_that_takes_nothing_is_ended),
        cmocka_unit_test(who_thinks_is_waited_for),
        cmocka_unit_test(a_member_is_what_its_message_has),
        cmocka_unit_test(an_error_is_text_with_a_code),
        cmocka_unit_test(a_writer_is_told_what_is_wrong_and_says_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
