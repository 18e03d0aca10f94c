/* The small devices: pmem, rng, balloon, blk, serial, and the bus. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include "devices/serial.h"
#include "devices/virtio_balloon.h"
#include "devices/virtio_blk.h"
#include "devices/virtio_pmem.h"
#include "devices/virtio_rng.h"
#include "fake_guest.h"

#define COM1 0x3f8

struct fixture {
    struct fg fg;
    struct sm_loop *loop;
    struct sm_virtio_env env;
    struct sm_virtio_dev *dev;
    struct fg_queue q[5];
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    fg_init(&f->fg);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    f->env = (struct sm_virtio_env){.loop = f->loop, .memory = &f->fg.gm, .irq = fg_bell()};
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    sm_virtio_destroy(f->dev);
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->env.irq);
    fg_fini(&f->fg);
    free(f);
    return 0;
}

/* One request and its answer: returns the length in the used ring. */
static uint32_t request(
    struct fixture *f, unsigned q, uint64_t out, uint32_t out_len, uint64_t in, uint32_t in_len)
{
    uint32_t id = 0, len = 0;
    unsigned head = fg_send(&f->q[q], out, out_len, in, in_len);
    fg_kick(f->dev, q);
    sm_loop_turn(f->loop);
    assert_true(fg_used(&f->q[q], &id, &len));
    assert_int_equal(id, head);
    return len;
}

static uint64_t config64(struct fixture *f, unsigned offset)
{
    uint8_t raw[8];
    sm_virtio_mmio_ops.read(f->dev, 0x100 + offset, raw, 8);
    return sm_load_le64(raw);
}

/* ---- pmem, rng ------------------------------------------------------------------------------- */

static void pmem_tells_where_it_is_and_flushes(void **state)
{
    struct fixture *f = *state;
    struct sm_pmem_config config = {.start = 1ULL << 40, .size = 2u << 20, .flush_fd = -1};
    assert_int_equal(sm_virtio_pmem_create(&f->env, &config, &f->dev, NULL), 0);
    assert_int_equal(fg_reg(f->dev, 8), SM_VIRTIO_ID_PMEM);
    assert_true(config64(f, 0) == 1ULL << 40);
    assert_true(config64(f, 8) == 2u << 20);
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 1, 16);
    uint64_t req = fg_alloc(&f->fg, 16), resp = req + 8;
    sm_store_le32(fg_ptr(&f->fg, req), 0);
    sm_store_le32(fg_ptr(&f->fg, resp), 99);
    assert_int_equal(request(f, 0, req, 4, resp, 4), 4);
    assert_int_equal(sm_load_le32(fg_ptr(&f->fg, resp)), 0);
    sm_store_le32(fg_ptr(&f->fg, req), 7); /* no such request */
    assert_int_equal(request(f, 0, req, 4, resp, 4), 4);
    assert_int_equal(sm_load_le32(fg_ptr(&f->fg, resp)), 1);
    assert_int_equal(request(f, 0, req, 2, resp, 4), 4); /* too short */
    assert_int_equal(sm_load_le32(fg_ptr(&f->fg, resp)), 1);
}

static void rng_fills_buffers(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(sm_virtio_rng_create(&f->env, &f->dev, NULL), 0);
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 1, 16);
    uint64_t buf = fg_alloc(&f->fg, 4096);
    static const uint8_t zeros[64];
    assert_int_equal(request(f, 0, 0, 0, buf, 64), 64);
    assert_memory_not_equal(fg_ptr(&f->fg, buf), zeros, 64);
    assert_int_equal(request(f, 0, 0, 0, buf, 4096), SM_RNG_MAX); /* bounded */
    assert_int_equal(request(f, 0, buf, 64, 0, 0), 0);            /* nothing to fill */
}

/* ---- balloon --------------------------------------------------------------------------------- */

#define REGION (8u << 20)

/* Guest RAM of REGION bytes of 0x5a that come from a file or from a memfd. */
static uint8_t *back_ram(struct fixture *f, enum sm_gm_backing backing, int *fd)
{
    *fd = memfd_create("ram", MFD_CLOEXEC);
    uint8_t *fill = malloc(REGION);
    memset(fill, 0x5a, REGION);
    assert_int_equal(write(*fd, fill, REGION), REGION);
    uint8_t *ram = mmap(NULL, REGION, PROT_READ | PROT_WRITE,
        backing == SM_GM_SHARED ? MAP_SHARED : MAP_PRIVATE, *fd, 0);
    assert_true(ram != MAP_FAILED);
    if (backing == SM_GM_ANONYMOUS) {
        ram = mmap(
            ram, REGION, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        memset(ram, 0x5a, REGION);
    }
    free(fill);
    f->fg.gm.n = 2;
    static struct sm_gm_replaced replaced;
    replaced = (struct sm_gm_replaced){0};
    f->fg.gm.regions[1] = (struct sm_gm_region){
        .gpa = 1u << 30, .size = REGION, .host = ram, .backing = backing, .replaced = &replaced};
    return ram;
}

static void reported_pages_read_as_zeros(void **state)
{
    struct fixture *f = *state;
    static const enum sm_gm_backing kinds[] = {SM_GM_ANONYMOUS, SM_GM_PRIVATE_FILE, SM_GM_SHARED};
    /* The reporting queue has number 4, or 2 for drivers that count differently. */
    for (unsigned q = 2; q <= 4; q += 2)
        for (size_t k = 0; k < SM_ARRAY_LEN(kinds); k++) {
            int fd;
            uint8_t *ram = back_ram(f, kinds[k], &fd);
            assert_int_equal(sm_virtio_balloon_create(&f->env, &f->dev, NULL), 0);
            fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 5, 16);
            ram[(2u << 20) + 5] = 1; /* a page that was written since */
            request(f, q, 0, 0, (1u << 30) + (2u << 20), 2u << 20);
            assert_int_equal(ram[(2u << 20) - 1], 0x5a);
            assert_int_equal(ram[2u << 20], 0);
            assert_int_equal(ram[(2u << 20) + 5], 0);
            assert_int_equal(ram[(4u << 20) - 1], 0);
            assert_int_equal(ram[4u << 20], 0x5a);
            ram[3u << 20] = 9; /* and can be used again */
            assert_int_equal(ram[3u << 20], 9);
            struct sm_balloon_stats stats;
            sm_balloon_stats(f->dev, &stats);
            assert_int_equal(stats.reported_bytes, 2u << 20);
            if (kinds[k] == SM_GM_PRIVATE_FILE) {
                uint8_t byte = 0;
                assert_int_equal(pread(fd, &byte, 1, 2u << 20), 1);
                assert_int_equal(byte, 0x5a); /* the file is as it was */
                /* Small pieces of a private file mapping stay. */
                request(f, q, 0, 0, (1u << 30) + (6u << 20), 4096);
                assert_int_equal(ram[6u << 20], 0x5a);
            }
            sm_virtio_destroy(f->dev);
            f->dev = NULL;
            munmap(ram, REGION);
            close(fd);
        }
}

static size_t count_mappings(void)
{
    FILE *f = fopen("/proc/self/maps", "re");
    size_t n = 0;
    for (int c; (c = fgetc(f)) != EOF;)
        n += c == '\n';
    fclose(f);
    return n;
}

/* More pieces than a process may have mappings. */
static void giving_back_splits_a_mapping_only_so_often(void **state)
{
    (void)state;
    const uint64_t size = 64ULL << 30;
    int fd = memfd_create("ram", MFD_CLOEXEC);
    assert_int_equal(ftruncate(fd, (off_t)size), 0);
    uint8_t *ram = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, fd, 0);
    assert_ptr_not_equal(ram, MAP_FAILED);
    struct sm_gm_replaced replaced = {0};
    const struct sm_guest_memory gm = {.n = 1,
        .regions = {
            {.size = size, .host = ram, .backing = SM_GM_PRIVATE_FILE, .replaced = &replaced}}};
    size_t before = count_mappings();
    for (uint64_t at = 0; at < size - SM_GM_DISCARD_BLOCK; at += SM_GM_DISCARD_BLOCK + 4096)
        assert_int_equal(sm_gm_discard(&gm, ram + at, SM_GM_DISCARD_BLOCK, NULL), 0);
    for (uint64_t at = 0; at < size; at += 2 * SM_GM_DISCARD_BLOCK)
        assert_int_equal(sm_gm_discard(&gm, ram + at, SM_GM_DISCARD_BLOCK, NULL), 0);
    assert_true(count_mappings() <= before + 2 * SM_GM_DISCARD_RUNS + 16);

    ram[5] = 1; /* a block that was given back before is given back again */
    assert_int_equal(sm_gm_discard(&gm, ram, SM_GM_DISCARD_BLOCK, NULL), 0);
    assert_int_equal(ram[5], 0);
    /* what lies between two pieces makes one of them, and room for others */
    unsigned runs = replaced.runs;
    assert_int_equal(runs, SM_GM_DISCARD_RUNS);
    assert_int_equal(sm_gm_discard(&gm, ram, 9 * SM_GM_DISCARD_BLOCK, NULL), 0);
    assert_int_equal(replaced.runs, runs - 4);
    munmap(ram, size);
    close(fd);
}

static void a_guest_that_poisons_keeps_its_pages(void **state)
{
    struct fixture *f = *state;
    int fd;
    uint8_t *ram = back_ram(f, SM_GM_ANONYMOUS, &fd), poison[4];
    assert_int_equal(sm_virtio_balloon_create(&f->env, &f->dev, NULL), 0);
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 5, 16);
    sm_store_le32(poison, 0xaaaaaaaa);
    sm_virtio_mmio_ops.write(f->dev, 0x100 + 12, poison, 4);
    request(f, 2, 0, 0, 1u << 30, 2u << 20);
    assert_int_equal(ram[0], 0x5a);
    munmap(ram, REGION);
    close(fd);
}

static void inflated_pages_are_given_back(void **state)
{
    struct fixture *f = *state;
    int fd;
    uint8_t *ram = back_ram(f, SM_GM_ANONYMOUS, &fd), config[4];
    assert_int_equal(sm_virtio_balloon_create(&f->env, &f->dev, NULL), 0);
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 5, 16);
    sm_balloon_set_target(f->dev, 100);
    assert_int_equal(fg_reg(f->dev, 0x60), SM_VIRTIO_INT_CONFIG);
    assert_int_equal((uint32_t)config64(f, 0), 100);
    uint64_t pfns = fg_alloc(&f->fg, 64);
    static const uint32_t list[] = {(1u << 18) + 1, (1u << 18) + 2, (1u << 18) + 7, 0xffffffff, 3};
    for (size_t i = 0; i < SM_ARRAY_LEN(list); i++)
        sm_store_le32(fg_ptr(&f->fg, pfns + 4 * i), list[i]);
    request(f, 0, pfns, sizeof(list), 0, 0);
    for (size_t page = 0; page < 10; page++)
        assert_int_equal(ram[4096 * page], page == 1 || page == 2 || page == 7 ? 0 : 0x5a);
    request(f, 1, pfns, sizeof(list), 0, 0);
    sm_store_le32(config, 3);
    sm_virtio_mmio_ops.write(f->dev, 0x104, config, 4);
    struct sm_balloon_stats stats;
    sm_balloon_stats(f->dev, &stats);
    assert_int_equal(stats.actual_pages, 3);
    struct sm_virtio_state s;
    sm_virtio_save(f->dev, &s);
    fg_set_reg(f->dev, 0x70, 0);
    sm_balloon_set_target(f->dev, 0);
    assert_int_equal(sm_virtio_load(f->dev, &s, NULL), 0);
    sm_balloon_stats(f->dev, &stats);
    assert_int_equal(stats.actual_pages, 3);
    assert_int_equal((uint32_t)config64(f, 0), 100);
    munmap(ram, REGION);
    close(fd);
}

/* ---- blk ------------------------------------------------------------------------------------- */

#define DISK_SECTORS 64u

enum { B_IN = 0, B_OUT = 1, B_FLUSH = 4, B_GET_ID = 8, B_DISCARD = 11, B_ZEROES = 13 };

struct disk {
    int fd; /* our own descriptor of the file */
    uint64_t header, data, status;
};

static void make_disk(struct fixture *f, struct disk *d, bool read_only)
{
    d->fd = memfd_create("disk", MFD_CLOEXEC);
    uint8_t sector[512];
    for (unsigned i = 0; i < DISK_SECTORS; i++) {
        memset(sector, (int)i + 1, sizeof(sector));
        assert_int_equal(write(d->fd, sector, sizeof(sector)), sizeof(sector));
    }
    struct sm_blk_config config = {.fd = dup(d->fd),
        .size = DISK_SECTORS * 512 + 100,
        .read_only = read_only,
        .id = "a-serial-number-that-is-long"};
    assert_int_equal(sm_virtio_blk_create(&f->env, &config, &f->dev, NULL), 0);
    fg_probe(&f->fg, f->dev, UINT64_MAX, f->q, 1, 16);
    d->header = fg_alloc(&f->fg, 16);
    d->data = fg_alloc(&f->fg, 65536);
    d->status = fg_alloc(&f->fg, 1);
}

/* header | data | status, data cut into two buffers. Returns the status; *used is the ring's
 * length. */
static int blk(
    struct fixture *f, struct disk *d, uint32_t type, uint64_t sector, uint32_t len, uint32_t *used)
{
    struct fg_queue *q = &f->q[0];
    uint8_t *h = fg_ptr(&f->fg, d->header);
    sm_store_le32(h, type);
    sm_store_le32(h + 4, 0);
    sm_store_le64(h + 8, sector);
    *fg_ptr(&f->fg, d->status) = 0xff;
    unsigned w = type == B_IN || type == B_GET_ID ? FG_WRITE : 0, n = 0;
    fg_desc(q, n, d->header, 16, FG_NEXT, n + 1);
    n++;
    uint32_t first = len > 10 ? 10 : len;
    if (first) {
        fg_desc(q, n, d->data, first, FG_NEXT | w, n + 1);
        n++;
    }
    if (len > first) {
        fg_desc(q, n, d->data + first, len - first, FG_NEXT | w, n + 1);
        n++;
    }
    fg_desc(q, n, d->status, 1, FG_WRITE, 0);
    fg_offer(q, 0);
    fg_kick(f->dev, 0);
    sm_loop_turn(f->loop);
    uint32_t id, ring_len = 0;
    assert_true(fg_used(q, &id, &ring_len));
    if (used)
        *used = ring_len;
    return *fg_ptr(&f->fg, d->status);
}

static uint8_t disk_byte(struct disk *d, uint64_t offset)
{
    uint8_t byte = 0xee;
    assert_int_equal(pread(d->fd, &byte, 1, (off_t)offset), 1);
    return byte;
}

static void blk_reads_and_writes(void **state)
{
    struct fixture *f = *state;
    struct disk d;
    uint32_t used;
    make_disk(f, &d, false);
    assert_int_equal(config64(f, 0), DISK_SECTORS);
    uint8_t *data = fg_ptr(&f->fg, d.data);
    assert_int_equal(blk(f, &d, B_IN, 5, 1024, &used), 0);
    assert_int_equal(used, 1025);
    assert_int_equal(data[0], 6);
    assert_int_equal(data[511], 6);
    assert_int_equal(data[1023], 7);
    memset(data, 0xcc, 512);
    assert_int_equal(blk(f, &d, B_OUT, 63, 512, &used), 0);
    assert_int_equal(used, 1);
    assert_int_equal(disk_byte(&d, 63ULL * 512), 0xcc);
    assert_int_equal(disk_byte(&d, 63ULL * 512 - 1), 63);
    assert_int_equal(blk(f, &d, B_FLUSH, 0, 0, NULL), 0);
    assert_int_equal(blk(f, &d, B_GET_ID, 0, 20, &used), 0);
    assert_memory_equal(data, "a-serial-number-that", 20);
    assert_int_equal(blk(f, &d, 99, 0, 512, NULL), 2);
    close(d.fd);
}

static void blk_refuses_what_is_out_of_bounds(void **state)
{
    struct fixture *f = *state;
    struct disk d;
    make_disk(f, &d, false);
    assert_int_equal(blk(f, &d, B_IN, 64, 512, NULL), 1);
    assert_int_equal(blk(f, &d, B_IN, 63, 1024, NULL), 1);
    assert_int_equal(blk(f, &d, B_IN, UINT64_MAX, 512, NULL), 1);
    assert_int_equal(blk(f, &d, B_OUT, UINT64_MAX / 512, 512, NULL), 1);
    assert_int_equal(blk(f, &d, B_OUT, 63, 1024, NULL), 1);
    assert_int_equal(blk(f, &d, B_IN, 0, 100, NULL), 1); /* not whole sectors */
    assert_int_equal(blk(f, &d, B_OUT, 0, 0, NULL), 1);
    assert_int_equal(disk_byte(&d, 63ULL * 512), 64);
    /* A file that got shorter under us is an I/O error, not a wait. */
    assert_int_equal(ftruncate(d.fd, 512), 0);
    assert_int_equal(blk(f, &d, B_IN, 0, 1024, NULL), 1);
    /* No header, and no room for a status */
    struct fg_queue *q = &f->q[0];
    uint32_t len = 0;
    fg_desc(q, 0, d.header, 8, FG_NEXT, 1);
    fg_desc(q, 1, d.status, 1, FG_WRITE, 0);
    fg_offer(q, 0);
    fg_desc(q, 2, d.header, 16, 0, 0);
    fg_offer(q, 2);
    fg_kick(f->dev, 0);
    sm_loop_turn(f->loop);
    assert_true(fg_used(q, NULL, &len));
    assert_int_equal(*fg_ptr(&f->fg, d.status), 1);
    assert_true(fg_used(q, NULL, &len));
    assert_int_equal(len, 0);
    close(d.fd);
}

static void put_range(
    struct fixture *f, struct disk *d, uint64_t sector, uint32_t n, uint32_t flags)
{
    uint8_t *data = fg_ptr(&f->fg, d->data);
    sm_store_le64(data, sector);
    sm_store_le32(data + 8, n);
    sm_store_le32(data + 12, flags);
}

static void blk_discards_and_zeroes(void **state)
{
    struct fixture *f = *state;
    struct disk d;
    make_disk(f, &d, false);
    put_range(f, &d, 8, 8, 0);
    assert_int_equal(blk(f, &d, B_DISCARD, 0, 16, NULL), 0);
    assert_int_equal(disk_byte(&d, 8ULL * 512 - 1), 8);
    assert_int_equal(disk_byte(&d, 8ULL * 512), 0);
    assert_int_equal(disk_byte(&d, 16ULL * 512 - 1), 0);
    assert_int_equal(disk_byte(&d, 16ULL * 512), 17);
    for (uint64_t unmap = 0; unmap <= 1; unmap++) {
        put_range(f, &d, 20 + 3 * unmap, 2, (uint32_t)unmap);
        assert_int_equal(blk(f, &d, B_ZEROES, 0, 16, NULL), 0);
        assert_int_equal(disk_byte(&d, (20 + 3 * unmap) * 512), 0);
        assert_int_equal(disk_byte(&d, (22 + 3 * unmap) * 512 - 1), 0);
        assert_int_equal(disk_byte(&d, (22 + 3 * unmap) * 512), 23 + 3 * unmap);
    }
    put_range(f, &d, 63, 2, 0);
    assert_int_equal(blk(f, &d, B_DISCARD, 0, 16, NULL), 1);
    put_range(f, &d, UINT64_MAX - 1, 2, 0);
    assert_int_equal(blk(f, &d, B_ZEROES, 0, 16, NULL), 1);
    put_range(f, &d, 0, 1, 2);
    assert_int_equal(blk(f, &d, B_ZEROES, 0, 16, NULL), 2);
    assert_int_equal(blk(f, &d, B_DISCARD, 0, 15, NULL), 1);
    assert_int_equal(disk_byte(&d, 0), 1);
    close(d.fd);
}

static void blk_read_only_stays_as_it_is(void **state)
{
    struct fixture *f = *state;
    struct disk d;
    make_disk(f, &d, true);
    assert_true(fg_offered(f->dev) & 1u << 5);
    assert_false(fg_offered(f->dev) & 1u << 13);
    assert_int_equal(blk(f, &d, B_IN, 0, 512, NULL), 0);
    assert_int_equal(blk(f, &d, B_OUT, 0, 512, NULL), 1);
    put_range(f, &d, 0, 8, 0);
    assert_int_equal(blk(f, &d, B_DISCARD, 0, 16, NULL), 1);
    assert_int_equal(blk(f, &d, B_FLUSH, 0, 0, NULL), 0);
    assert_int_equal(disk_byte(&d, 0), 1);
    close(d.fd);
}

/* ---- serial and bus -------------------------------------------------------------------------- */

struct lines {
    unsigned n, panics;
    char last[1100];
};

static void on_line(void *arg, const char *line)
{
    struct lines *l = arg;
    l->n++;
    l->panics += sm_serial_line_is_panic(line);
    snprintf(l->last, sizeof(l->last), "%s", line);
}

static void out(struct sm_bus *ports, uint16_t port, uint8_t value)
{
    assert_true(sm_bus_write(ports, port, &value, 1));
}

static uint8_t in(struct sm_bus *ports, uint16_t port)
{
    uint8_t value = 0;
    assert_true(sm_bus_read(ports, port, &value, 1));
    return value;
}

static void print(struct sm_bus *ports, const char *text)
{
    for (; *text; text++)
        out(ports, COM1, (uint8_t)*text);
}

static void serial_keeps_the_tail(void **state)
{
    (void)state;
    struct sm_serial *serial;
    struct lines lines = {0};
    struct sm_bus ports = {0};
    char tail[64];
    assert_int_equal(sm_serial_create(&serial, 16, on_line, &lines, NULL), 0);
    assert_int_equal(sm_bus_add(&ports, COM1, SM_SERIAL_PORTS, &sm_serial_ops, serial, NULL), 0);
    assert_int_equal(in(&ports, COM1 + 5) & 0x60, 0x60); /* always ready to send */
    assert_int_equal(sm_serial_tail(serial, tail, sizeof(tail)), 0);
    assert_string_equal(tail, "");
    print(&ports, "hello\r\n");
    assert_int_equal(lines.n, 1);
    assert_string_equal(lines.last, "hello");
    assert_int_equal(sm_serial_tail(serial, tail, sizeof(tail)), 7);
    assert_string_equal(tail, "hello\r\n");
    print(&ports, "0123456789abcdef\n");
    assert_int_equal(sm_serial_tail(serial, tail, sizeof(tail)), 16);
    assert_string_equal(tail, "123456789abcdef\n");
    assert_int_equal(sm_serial_tail(serial, tail, 5), 16);
    assert_string_equal(tail, "def\n");
    assert_int_equal(sm_serial_tail(serial, NULL, 0), 16);
    out(&ports, COM1, 0); /* would end the text there */
    sm_serial_tail(serial, tail, 5);
    assert_string_equal(tail, "def\n");
    /* The divisor latch must not end up in the log. */
    out(&ports, COM1 + 3, 0x83);
    out(&ports, COM1, 1);
    out(&ports, COM1 + 1, 0);
    assert_int_equal(in(&ports, COM1), 1);
    out(&ports, COM1 + 3, 0x03);
    out(&ports, COM1 + 7, 0x5c);
    assert_int_equal(in(&ports, COM1 + 7), 0x5c);
    sm_serial_tail(serial, tail, 5);
    assert_string_equal(tail, "def\n");
    for (int i = 0; i < 3000; i++)
        print(&ports, "x");
    print(&ports, "\n");
    assert_int_equal(strlen(lines.last), 1023);
    assert_int_equal(lines.panics, 0);
    print(&ports, "[    1.234567] Kernel panic - not syncing: No working init found.\n");
    assert_int_equal(lines.panics, 1);
    sm_serial_destroy(serial);
}

static void panics_are_told_from_talk(void **state)
{
    (void)state;
    assert_true(sm_serial_line_is_panic("Kernel panic - not syncing: x"));
    assert_true(sm_serial_line_is_panic("[  0.1] Kernel panic - not syncing: x"));
    assert_false(sm_serial_line_is_panic("echo Kernel panic - not syncing: x"));
    assert_false(sm_serial_line_is_panic("[x Kernel panic - not syncing"));
    assert_false(sm_serial_line_is_panic("[ 1.0] ---[ end Kernel panic - not syncing: x ]---"));
    assert_false(sm_serial_line_is_panic(""));
}

struct probe {
    uint64_t offset;
    unsigned writes;
};

static void probe_read(void *dev, uint64_t offset, void *data, unsigned len)
{
    ((struct probe *)dev)->offset = offset;
    memset(data, 0x11, len);
}

static void probe_write(void *dev, uint64_t offset, const void *data, unsigned len)
{
    (void)data;
    (void)len;
    ((struct probe *)dev)->offset = offset;
    ((struct probe *)dev)->writes++;
}

static void bus_finds_windows(void **state)
{
    (void)state;
    static const struct sm_bus_ops ops = {.read = probe_read, .write = probe_write};
    struct sm_bus bus = {0};
    struct probe p[3] = {0};
    uint32_t v = 0;
    assert_int_equal(sm_bus_add(&bus, 0x3000, 0x1000, &ops, &p[2], NULL), 0);
    assert_int_equal(sm_bus_add(&bus, 0x1000, 0x1000, &ops, &p[0], NULL), 0);
    assert_int_equal(sm_bus_add(&bus, 0x2000, 0x800, &ops, &p[1], NULL), 0);
    assert_int_equal(sm_bus_add(&bus, 0x27ff, 2, &ops, &p[1], NULL), -SM_EEXIST);
    assert_int_equal(sm_bus_add(&bus, 0xfff, 2, &ops, &p[1], NULL), -SM_EEXIST);
    assert_int_equal(sm_bus_add(&bus, 0, UINT64_MAX, &ops, &p[1], NULL), -SM_EEXIST);
    assert_int_equal(sm_bus_add(&bus, UINT64_MAX, 2, &ops, &p[1], NULL), -SM_EINVAL);
    assert_true(sm_bus_read(&bus, 0x27fc, &v, 4));
    assert_int_equal(p[1].offset, 0x7fc);
    assert_int_equal(v, 0x11111111);
    assert_false(sm_bus_read(&bus, 0x27fe, &v, 4)); /* sticks out */
    assert_int_equal(v, UINT32_MAX);
    assert_false(sm_bus_read(&bus, 0xfff, &v, 1));
    assert_true(sm_bus_write(&bus, 0x3abc, &v, 4));
    assert_int_equal(p[2].offset, 0xabc);
    assert_false(sm_bus_write(&bus, 0x4000, &v, 1));
    assert_int_equal(p[2].writes, 1);
    unsigned n = bus.n;
    for (; n < SM_BUS_MAX_WINDOWS; n++)
        assert_int_equal(sm_bus_add(&bus, 0x10000ULL * n, 1, &ops, &p[0], NULL), 0);
    assert_int_equal(sm_bus_add(&bus, 0x10000ULL * n, 1, &ops, &p[0], NULL), -SM_ELIMIT);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(pmem_tells_where_it_is_and_flushes),
        T(rng_fills_buffers),
        T(reported_pages_read_as_zeros),
        T(a_guest_that_poisons_keeps_its_pages),
        T(inflated_pages_are_given_back),
        T(blk_reads_and_writes),
        T(blk_refuses_what_is_out_of_bounds),
        T(giving_back_splits_a_mapping_only_so_often),
        T(blk_discards_and_zeroes),
        T(blk_read_only_stays_as_it_is),
        cmocka_unit_test(serial_keeps_the_tail),
        cmocka_unit_test(panics_are_told_from_talk),
        cmocka_unit_test(bus_finds_windows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
