/* Whole machines with guests of a few instructions in place of a kernel: how they end, pause and
 * resume, capture and restore. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest_code.h"
#include "machine_parts.h"
#include "patience.h"
#include "snapshot/page_map.h"
#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "util/bytes.h"
#include "vmm/machine_internal.h"

#define MEMORY  (64u << 20)
#define COUNTER 0x2000000u /* guest_count: the counter, and counter + nonce out of a register */

static sm_error err;

static void ok(int rc)
{
    if (rc)
        fail_msg("%d: %s", rc, err.message);
}

static struct sm_machine *booted(const uint8_t *code, size_t n, unsigned vcpus)
{
    char path[32];
    int fd = guest_kernel(code, n, path);
    struct sm_machine *m;
    ok(make_machine(&m,
        &(struct sm_machine_config){.memory_bytes = MEMORY, .vcpus = vcpus, .kernel = path}, &err));
    ok(sm_machine_boot(m, &err));
    close(fd);
    return m;
}

/* ---- ends ---------------------------------------------------------------------------------- */

#define RESET "mov $0xfe, %al\nout %al, $0x64\n1: hlt\njmp 1b\n"

#define PRINT(text)                                                                                \
    "lea 3f(%rip), %rsi\n"                                                                         \
    "mov $0x3f8, %edx\n"                                                                           \
    "2: mov (%rsi), %al\n"                                                                         \
    "inc %rsi\n"                                                                                   \
    "test %al, %al\n"                                                                              \
    "jz 4f\n"                                                                                      \
    "out %al, %dx\n"                                                                               \
    "jmp 2b\n"                                                                                     \
    "3: .asciz \"" text "\"\n"                                                                     \
    "4:\n"

GUEST(guest_off, RESET);
GUEST(guest_print_off, PRINT("first\\nsecond\\n") RESET);
GUEST(guest_panic, PRINT("before\\n[    1.234567] Kernel panic - not syncing: test\\n") RESET);
GUEST(guest_triple,
    PRINT("\\033]0;evil\\007so \\302\\233long\\n") "lidt zero(%rip)\nint3\nzero: .quad 0, 0\n");

/* A driver for the first device, up to DRIVER_OK; and what a kernel does with it when it reboots in
 * order. */
#define DRIVE                                                                                      \
    "mov $0xd0000000, %ebx\n"                                                                      \
    "movl $1, 0x70(%rbx)\n"                                                                        \
    "movl $3, 0x70(%rbx)\n"                                                                        \
    "movl $1, 0x24(%rbx)\n"                                                                        \
    "movl $1, 0x20(%rbx)\n" /* VERSION_1 */                                                        \
    "movl $11, 0x70(%rbx)\n"                                                                       \
    "movl $15, 0x70(%rbx)\n"
#define SHUT_DOWN "movl $0, 0x70(%rbx)\n"
#define PANIC     PRINT("[    2.000000] Kernel panic - not syncing: so it says\\n")

GUEST(guest_driver_panics, DRIVE PANIC RESET);
GUEST(guest_says_panic, DRIVE PANIC SHUT_DOWN RESET);
GUEST(guest_says_panic_and_goes_on, DRIVE PANIC "1: jmp 1b\n");
GUEST(guest_wild, "mov $0xe0000000, %eax\njmp *%rax\n");

static struct sm_machine_end end_of(const uint8_t *code, size_t n)
{
    struct sm_pause pause = {0};
    struct sm_machine *m = booted(code, n, 1);
    struct sm_machine_end end;
    ok(sm_machine_wait(m, PATIENCE_MS, &end, &err));
    struct pollfd p = {.fd = sm_machine_end_fd(m), .events = POLLIN};
    assert_int_equal(poll(&p, 1, 0), 1);
    assert_int_equal(sm_machine_pause(m, &pause, &err), -SM_EGUEST);
    assert_int_equal(sm_machine_resume(m, &pause, &err), -SM_EGUEST);
    sm_machine_kill(m); /* too late: changes nothing */
    struct sm_machine_end again;
    ok(sm_machine_wait(m, 0, &again, &err));
    assert_int_equal(again.how, end.how);
    sm_machine_close(m);
    return end;
}

#define END_OF(guest) end_of(guest, GUEST_BYTES(guest))

static void each_end_has_its_own_name(void **state)
{
    (void)state;
    struct sm_machine_end e = END_OF(guest_off);
    assert_int_equal(e.how, SM_VM_POWERED_OFF);
    e = END_OF(guest_print_off);
    assert_int_equal(e.how, SM_VM_POWERED_OFF);
    assert_null(strchr(e.message, '\n'));
    e = END_OF(guest_panic);
    assert_int_equal(e.how, SM_VM_PANICKED);
    assert_non_null(strstr(e.message, "before\n"));
    assert_non_null(strstr(e.message, "not syncing: test"));
    e = END_OF(guest_triple);
    assert_int_equal(e.how, SM_VM_TRIPLE_FAULT);
    assert_non_null(strstr(e.message, "?]0;evil?so ?long")); /* nothing that a terminal obeys */
    e = END_OF(guest_wild);
    assert_int_equal(e.how, SM_VM_INTERNAL_ERROR);
    assert_non_null(strstr(e.message, "0xe0000000"));
}

/* The guest's root can write to the console whatever the kernel writes. */
static void a_panic_is_more_than_its_words(void **state)
{
    (void)state;
    struct sm_machine_end e = END_OF(guest_driver_panics);
    assert_int_equal(e.how, SM_VM_PANICKED);
    e = END_OF(guest_says_panic);
    assert_int_equal(e.how, SM_VM_POWERED_OFF);
    assert_null(strstr(e.message, "panic"));
    struct sm_machine *m =
        booted(guest_says_panic_and_goes_on, GUEST_BYTES(guest_says_panic_and_goes_on), 1);
    assert_int_equal(sm_machine_wait(m, 5500, &e, &err), -SM_ETIMEOUT);
    sm_machine_kill(m);
    ok(sm_machine_wait(m, 0, &e, &err));
    assert_int_equal(e.how, SM_VM_KILLED);
    sm_machine_close(m);
}

static void console_is_kept(void **state)
{
    (void)state;
    struct sm_machine *m = booted(guest_print_off, GUEST_BYTES(guest_print_off), 1);
    struct sm_machine_end end;
    char text[100];
    ok(sm_machine_wait(m, PATIENCE_MS, &end, &err));
    assert_int_equal(sm_machine_console(m, text, sizeof(text)), strlen("first\nsecond\n"));
    assert_string_equal(text, "first\nsecond\n");
    struct sm_hv_counters c;
    sm_machine_get_counters(m, &c);
    assert_int_equal(c.by_kind[SM_HV_EXIT_PIO], strlen("first\nsecond\n") + 1);
    struct sm_machine_timing t;
    sm_machine_get_timing(m, &t);
    assert_true(t.start_ns && t.created_ns >= t.start_ns && t.loaded_ns >= t.created_ns &&
                t.entered_ns >= t.loaded_ns);
    sm_machine_close(m);
}

/* ---- running ------------------------------------------------------------------------------- */

/* Counts in memory; a register goes along, and starts with a nonce; each round has an exit. */
GUEST(guest_count, "rdtsc\n"
                   "mov %eax, %r15d\n"
                   "mov $0x2000000, %esi\n"
                   "mov %r15, 16(%rsi)\n"
                   "1: incq (%rsi)\n"
                   "inc %r15\n"
                   "mov %r15, 8(%rsi)\n"
                   "out %al, $0x80\n"
                   "jmp 1b\n");

static struct sm_machine *counting(unsigned vcpus)
{
    return booted(guest_count, GUEST_BYTES(guest_count), vcpus);
}

static uint64_t word(struct sm_machine *m, unsigned i)
{
    struct sm_ram ram;
    sm_machine_ram(m, &ram);
    return __atomic_load_n(
        (const uint64_t *)(const void *)(ram.base + COUNTER) + i, __ATOMIC_RELAXED);
}

static void wait_for(struct sm_machine *m, uint64_t counter)
{
    for (int ms = 0; word(m, 0) < counter; ms++) {
        if (ms == PATIENCE_MS)
            fail_msg("the guest stands still at %llu", (unsigned long long)word(m, 0));
        usleep(1000);
    }
}

static void pause_stops_and_resume_goes_on(void **state)
{
    struct sm_pause pause = {0};
    (void)state;
    static const unsigned counts[] = {1, 4, 16}; /* those beyond the first wait for a SIPI */
    for (size_t k = 0; k < SM_ARRAY_LEN(counts); k++) {
        struct sm_machine *m = counting(counts[k]);
        for (int i = 0; i < 20; i++) {
            wait_for(m, word(m, 0) + 5);
            ok(sm_machine_pause(m, &pause, &err));
            uint64_t c = word(m, 0);
            usleep(2000);
            assert_int_equal(word(m, 0), c);
            assert_int_equal(sm_machine_pause(m, &pause, &err), -SM_EINVAL);
            ok(sm_machine_resume(m, &pause, &err));
            assert_int_equal(sm_machine_resume(m, &pause, &err), -SM_EINVAL);
        }
        struct sm_machine_end end;
        assert_int_equal(sm_machine_wait(m, 10, &end, &err), -SM_ETIMEOUT);
        assert_int_equal(sm_machine_boot(m, &err), -SM_EINVAL);
        sm_machine_kill(m);
        ok(sm_machine_wait(m, 0, &end, &err));
        assert_int_equal(end.how, SM_VM_KILLED);
        sm_machine_close(m);
    }
}

/* Who copies RAM holds the machine still, whatever the caller's other threads ask for meanwhile. */
static void a_pause_is_ended_by_its_owner_alone(void **state)
{
    (void)state;
    struct sm_pause pauses[2] = {0};
    struct sm_machine *m = counting(2);
    for (unsigned i = 0; i < 2; i++) {
        struct sm_pause *mine = &pauses[i], *other = &pauses[!i];
        wait_for(m, word(m, 0) + 5);
        ok(sm_machine_pause(m, mine, &err));
        assert_int_equal(sm_machine_resume(m, other, &err), -SM_EINVAL);
        ok(sm_machine_pause(m, other, &err));
        assert_true(sm_machine_is_paused(m, mine) && sm_machine_is_paused(m, other));
        ok(sm_machine_resume(m, other, &err));
        assert_false(sm_machine_is_paused(m, other));
        uint64_t c = word(m, 0);
        usleep(5000);
        assert_int_equal(word(m, 0), c);
        ok(sm_machine_resume(m, mine, &err));
        wait_for(m, c + 5);
    }
    sm_machine_close(m);
}

/* Resets a device all the time, for which the device thread is waited. */
GUEST(guest_drives, "3:\n" DRIVE SHUT_DOWN "jmp 3b\n");

#define BUSY_MS 2500 /* more than two ticks of a wait */

static void be_busy(void *arg)
{
    atomic_store((atomic_bool *)arg, true);
    usleep(1000 * BUSY_MS);
}

static void a_pause_waits_for_a_vcpu_that_is_kept(void **state)
{
    struct sm_pause pause = {0};
    (void)state;
    static atomic_bool busy;
    struct sm_machine *m = booted(guest_drives, GUEST_BYTES(guest_drives), 1);
    ok(sm_loop_post(m->loop, be_busy, &busy, &err));
    while (!atomic_load(&busy))
        usleep(1000);
    usleep(100000); /* now the vCPU waits, too */
    ok(sm_machine_pause(m, &pause, &err));
    ok(sm_machine_resume(m, &pause, &err));
    sm_machine_close(m);
}

static void closes_in_every_state(void **state)
{
    struct sm_pause pause = {0};
    (void)state;
    struct sm_machine *m;
    const struct sm_machine_config config = {.memory_bytes = MEMORY, .vcpus = 2};
    sm_machine_close(NULL);
    ok(make_machine(&m, &config, &err));
    sm_machine_close(m);
    ok(make_machine(&m, &config, &err));
    assert_int_equal(sm_machine_pause(m, &pause, &err), -SM_EINVAL);
    assert_int_equal(sm_machine_boot(m, &err), -SM_EINVAL); /* no kernel */
    sm_machine_close(m);
    m = counting(2);
    ok(sm_machine_pause(m, &pause, &err));
    sm_machine_close(m);
    m = counting(1);
    sm_machine_close(m);
}

static void bad_configurations_are_refused(void **state)
{
    (void)state;
    struct sm_machine *m = NULL;
    struct sm_machine_config c = {.memory_bytes = MEMORY, .vcpus = 0};
    assert_int_equal(make_machine(&m, &c, &err), -SM_EINVAL);
    c.vcpus = 17;
    assert_int_equal(make_machine(&m, &c, &err), -SM_EINVAL);
    c.vcpus = 1;
    c.memory_bytes = MEMORY + 4096;
    assert_int_equal(make_machine(&m, &c, &err), -SM_EINVAL);
    c.memory_bytes = 2u << 20;
    assert_int_equal(make_machine(&m, &c, &err), -SM_EINVAL);
    c.memory_bytes = MEMORY;
    struct sm_machine_part parts[] = {sm_part_rootfs("/nowhere"), sm_part_rng(), sm_part_rng()};
    c.parts = parts;
    c.n_parts = 1;
    assert_int_equal(sm_machine_create(&m, &c, &err), -SM_ENOTFOUND);
    assert_non_null(strstr(err.message, "device 'rootfs'"));
    parts[0] = sm_part_rootfs("/dev/null");
    assert_int_equal(sm_machine_create(&m, &c, &err), -SM_EINVAL);
    parts[0] = sm_part_balloon();
    c.n_parts = 3;
    assert_int_equal(sm_machine_create(&m, &c, &err), -SM_EINVAL);
    assert_non_null(strstr(err.message, "two devices with the role 'rng'"));
    parts[2].role = "a role that is longer than a role can be";
    assert_int_equal(sm_machine_create(&m, &c, &err), -SM_EINVAL);
    parts[2].role = "";
    assert_int_equal(sm_machine_create(&m, &c, &err), -SM_EINVAL);
    assert_null(m);
}

/* As many as there are interrupts, and one too many; files lie one behind the other. */
static void a_machine_is_a_list_of_parts(void **state)
{
    (void)state;
    char file[] = "/tmp/sm-test-XXXXXX", roles[19][8];
    int fd = mkstemp(file);
    assert_int_equal(ftruncate(fd, (2 << 20) + 4096), 0);
    struct sm_machine_part parts[19];
    for (unsigned i = 0; i < 19; i++) {
        parts[i] = i < 2 ? sm_part_rootfs(file) : sm_part_rng();
        snprintf(roles[i], sizeof(roles[i]), "part%u", i);
        parts[i].role = roles[i];
    }
    struct sm_machine *m = NULL;
    struct sm_machine_config c = {.memory_bytes = MEMORY, .vcpus = 1, .parts = parts};
    ok(sm_machine_create(&m, &c, &err)); /* none at all */
    assert_null(sm_machine_vsock(m));
    assert_false(sm_machine_end_halted(m));
    sm_machine_close(m);
    c.n_parts = 18;
    ok(sm_machine_create(&m, &c, &err));
    assert_int_equal(m->n_devices, 18);
    assert_int_equal(m->devices[17].place.irq, 23);
    assert_int_equal(m->devices[0].config[1], 4 << 20);
    assert_int_equal(m->devices[1].config[0], m->devices[0].config[0] + (4 << 20));
    sm_machine_close(m);
    c.n_parts = 19;
    m = NULL;
    assert_int_equal(sm_machine_create(&m, &c, &err), -SM_ELIMIT);
    assert_non_null(strstr(err.message, "device 'part18'"));
    assert_null(m);
    close(fd);
    unlink(file);
}

/* Maps the first 2 MiB at 4 GiB, with a page directory of its own below the boot tables' PDPT, and
 * writes there. */
GUEST(guest_high, "mov $0xa000, %edi\n"
                  "mov $0x10000, %esi\n"
                  "lea 3(%rsi), %rax\n"
                  "mov %rax, 32(%rdi)\n"
                  "mov $0x100000083, %rax\n"
                  "mov %rax, (%rsi)\n"
                  "mov %cr3, %rax\n"
                  "mov %rax, %cr3\n"
                  "mov $0x100000000, %rdi\n"
                  "movq $0x77, (%rdi)\n" RESET);

static void memory_beyond_3_gib_goes_on_at_4(void **state)
{
    (void)state;
    char path[32];
    int fd = guest_kernel(guest_high, GUEST_BYTES(guest_high), path);
    struct sm_machine *m;
    struct sm_machine_end end;
    struct sm_ram ram;
    ok(make_machine(&m,
        &(struct sm_machine_config){.memory_bytes = 4ULL << 30, .vcpus = 1, .kernel = path}, &err));
    ok(sm_machine_boot(m, &err));
    ok(sm_machine_wait(m, PATIENCE_MS, &end, &err));
    assert_int_equal(end.how, SM_VM_POWERED_OFF);
    sm_machine_ram(m, &ram);
    assert_int_equal(ram.bytes, 4ULL << 30);
    assert_int_equal(ram.base[3ULL << 30], 0x77);
    sm_machine_close(m);
    close(fd);
}

static void *one_machine(void *arg)
{
    struct sm_pause pause = {0};
    (void)arg;
    struct sm_machine *m = counting(1);
    for (int i = 0; i < 5; i++) {
        wait_for(m, word(m, 0) + 3);
        ok(sm_machine_pause(m, &pause, NULL));
        ok(sm_machine_resume(m, &pause, NULL));
    }
    sm_machine_close(m);
    return NULL;
}

static void several_machines_at_once(void **state)
{
    (void)state;
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, one_machine, NULL), 0);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
}

/* ---- capture and restore ------------------------------------------------------------------- */

static void capture(struct sm_machine *m, struct sm_pause *pause, const char *path)
{
    auto_snapshot s = NULL;
    struct sm_ram ram;
    assert_int_equal(sm_machine_save(m, &s, &err), -SM_EINVAL); /* it runs */
    ok(sm_machine_pause(m, pause, &err));
    ok(sm_machine_save(m, &s, &err));
    sm_machine_ram(m, &ram);
    ok(sm_snapshot_save_streaming(path, s, &ram, NULL, NULL, NULL, &err));
}

static int restored(const char *path, bool early, struct sm_machine **out, sm_error *why)
{
    auto_snapshot s = NULL;
    struct sm_machine *m;
    int fd;
    ok(sm_snapshot_open(path, &fd, &err));
    ok(sm_snapshot_load_meta(fd, path, &s, &err));
    struct sm_machine_config config = {
        .memory_bytes = MEMORY, .vcpus = s->n_vcpus, .snapshot_name = path};
    if (early) { /* RAM mapped at creation; else this is a restore into a shell */
        config.snapshot = s;
        config.snapshot_fd = fd;
    }
    ok(make_machine(&m, &config, &err));
    struct sm_machine_load_times t;
    int rc = sm_machine_load(m, fd, s, &t, why);
    close(fd);
    if (rc)
        sm_machine_close(m);
    else
        *out = m;
    return rc;
}

static void a_restored_machine_goes_on(void **state)
{
    struct sm_pause pause = {0};
    (void)state;
    char path[] = "/tmp/sm-test-XXXXXX";
    close(mkstemp(path));
    for (unsigned vcpus = 1; vcpus <= 2; vcpus++) {
        struct sm_machine *m = counting(vcpus);
        wait_for(m, 10);
        capture(m, &pause, path);
        uint64_t at = word(m, 0), nonce = word(m, 2);
        ok(sm_machine_resume(m, &pause, &err));
        wait_for(m, at + 5); /* the original runs on */
        sm_machine_close(m);
        for (int round = 0; round < 6; round++) {
            struct sm_machine *r;
            ok(restored(path, round & 1, &r, &err));
            assert_int_equal(word(r, 0), at); /* what the others wrote is not in the file */
            ok(sm_machine_start(r, &err));
            wait_for(r, at + 10);
            ok(sm_machine_pause(r, &pause, &err));
            assert_int_equal(word(r, 2), nonce);
            uint64_t register_is = word(r, 1) - nonce, memory_is = word(r, 0);
            if (register_is != memory_is && register_is + 1 != memory_is)
                fail_msg("register at %llu, memory at %llu", (unsigned long long)register_is,
                    (unsigned long long)memory_is);
            sm_machine_close(r);
        }
    }
    unlink(path);
}

static void a_restored_machine_can_be_captured(void **state)
{
    (void)state;
    char first[] = "/tmp/sm-test-XXXXXX", second[] = "/tmp/sm-test-XXXXXX";
    close(mkstemp(first));
    close(mkstemp(second));
    struct sm_machine *m = counting(1), *r;
    wait_for(m, 10);
    capture(m, &(struct sm_pause){0}, first);
    uint64_t nonce = word(m, 2);
    sm_machine_close(m);
    ok(restored(first, true, &r, &err));
    struct sm_ram ram;
    sm_machine_ram(r, &ram);
    assert_int_equal(ram.backing, SM_RAM_PRIVATE_FILE);
    ok(sm_machine_start(r, &err));
    wait_for(r, word(r, 0) + 10);
    capture(r, &(struct sm_pause){0}, second);
    uint64_t at = word(r, 0);
    sm_machine_close(r);
    ok(restored(second, false, &r, &err));
    assert_int_equal(word(r, 0), at);
    assert_int_equal(word(r, 2), nonce);
    ok(sm_machine_start(r, &err));
    wait_for(r, at + 10);
    sm_machine_close(r);
    unlink(first);
    unlink(second);
}

static void a_file_that_is_cut_short_is_named(void **state)
{
    (void)state;
    char path[] = "/tmp/sm-test-XXXXXX";
    close(mkstemp(path));
    struct sm_machine *m = counting(1), *r;
    wait_for(m, 1);
    capture(m, &(struct sm_pause){0}, path);
    sm_machine_close(m);
    ok(restored(path, false, &r, &err));
    assert_int_equal(truncate(path, 4096), 0);
    ok(sm_machine_start(r, &err));
    struct sm_machine_end end;
    ok(sm_machine_wait(r, PATIENCE_MS, &end, &err));
    assert_int_equal(end.how, SM_VM_INTERNAL_ERROR);
    if (!strstr(end.message, path) || !strstr(end.message, "cut short"))
        fail_msg("%s", end.message);
    sm_machine_close(r);
    unlink(path);
}

/* Changes one thing of a good snapshot, which must then be refused with these words. */
static void refused(
    struct sm_snapshot *s, int fd, const struct sm_machine_config *config, const char *words)
{
    struct sm_machine *m;
    ok(make_machine(&m, config, &err));
    int rc = sm_machine_load(m, fd, s, NULL, &err);
    if (rc != -SM_EUNSUPPORTED || !strstr(err.message, words))
        fail_msg("%d: \"%s\" lacks \"%s\"", rc, err.message, words);
    assert_true(sm_machine_start(m, &err) < 0);
    sm_machine_close(m);
}

static void devices_are_matched_by_role(
    struct sm_snapshot *s, int fd, const struct sm_machine_config *config)
{
    s->devices[0].irq++;
    refused(s, fd, config, "another device 'vsock'");
    s->devices[0].irq--;
    s->n_devices--;
    refused(s, fd, config, "without the device 'balloon'");
    s->n_devices++;
    s->devices[1].role[0] ^= 1;
    refused(s, fd, config, "without the device 'rng'");
    s->devices[1].role[0] ^= 1;
    s->devices[1].virtio_id = SM_VIRTIO_ID_BLOCK;
    refused(s, fd, config, "without the device 'rng'");
    s->devices[1].virtio_id = SM_VIRTIO_ID_RNG;
    struct sm_snapshot_device more[4] = {s->devices[2], s->devices[0], s->devices[1]},
                              *were = s->devices;
    strcpy(more[3].role, "more");
    s->devices = more;
    s->n_devices = 4;
    refused(s, fd, config, "with a device 'more' that is not here");
    s->n_devices = 3; /* in another order, and with it they are all there */
    struct sm_machine *m;
    ok(make_machine(&m, config, &err));
    ok(sm_machine_load(m, fd, s, NULL, &err));
    sm_machine_close(m);
    s->devices = were;
}

static void what_does_not_fit_is_refused(void **state)
{
    (void)state;
    char path[] = "/tmp/sm-test-XXXXXX";
    close(mkstemp(path));
    struct sm_machine *m = counting(1);
    wait_for(m, 1);
    capture(m, &(struct sm_pause){0}, path);
    assert_int_equal(sm_machine_load(m, 0, NULL, NULL, &err), -SM_EINVAL);
    sm_machine_close(m);
    int fd;
    auto_snapshot s = NULL;
    ok(sm_snapshot_open(path, &fd, &err));
    ok(sm_snapshot_load_meta(fd, path, &s, &err));
    struct sm_machine_config c = {.memory_bytes = MEMORY, .vcpus = 1};

    c.vcpus = 2;
    refused(s, fd, &c, "number of vCPUs");
    c.vcpus = 1;
    c.memory_bytes = 2 * MEMORY;
    refused(s, fd, &c, "memory size");
    c.memory_bytes = MEMORY;
    s->arch = SM_ARCH_AARCH64;
    refused(s, fd, &c, "architecture");
    s->arch = SM_ARCH_X86_64;
    s->cpu_digest[0] ^= 1;
    refused(s, fd, &c, "CPU");
    s->cpu_digest[0] ^= 1;
    s->build.vmm[0] ^= 1;
    refused(s, fd, &c, "another build");
    s->build.vmm[0] ^= 1;
    s->regions[0].gpa += 4096;
    refused(s, fd, &c, "memory map");
    s->regions[0].gpa -= 4096;
    devices_are_matched_by_role(s, fd, &c);
    s->vcpus[0].gp.n = s->vcpus[0].redist.n = s->vcpus[0].sys.n = 0;
    s->vcpus[0].icc.n = s->vcpus[0].simd.n = 0;
    ok(make_machine(&m, &c, &err));
    assert_int_equal(sm_machine_load(m, fd, s, NULL, &err), -SM_ECORRUPT); /* nothing of the vCPU */
    sm_machine_close(m);
    assert_int_equal(truncate(path, (off_t)s->ram_offset + 4096), 0);
    ok(make_machine(&m, &c, &err));
    assert_int_equal(sm_machine_load(m, fd, s, NULL, &err), -SM_ECORRUPT);
    sm_machine_close(m);
    close(fd);
    unlink(path);
}

int main(void)
{
    if (access("/dev/kvm", R_OK | W_OK))
        return 77; /* skipped */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_end_has_its_own_name),
        cmocka_unit_test(a_panic_is_more_than_its_words),
        cmocka_unit_test(console_is_kept),
        cmocka_unit_test(pause_stops_and_resume_goes_on),
        cmocka_unit_test(a_pause_is_ended_by_its_owner_alone),
        cmocka_unit_test(a_pause_waits_for_a_vcpu_that_is_kept),
        cmocka_unit_test(closes_in_every_state),
        cmocka_unit_test(bad_configurations_are_refused),
        cmocka_unit_test(a_machine_is_a_list_of_parts),
        cmocka_unit_test(memory_beyond_3_gib_goes_on_at_4),
        cmocka_unit_test(several_machines_at_once),
        cmocka_unit_test(a_restored_machine_goes_on),
        cmocka_unit_test(a_restored_machine_can_be_captured),
        cmocka_unit_test(a_file_that_is_cut_short_is_named),
        cmocka_unit_test(what_does_not_fit_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
