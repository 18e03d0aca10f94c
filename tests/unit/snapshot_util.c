/* See snapshot_util.h. What is random here comes from a seed: a failure can be had again. */
#include "snapshot_util.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "util/bytes.h"

uint8_t *golden(const char *name, size_t *len)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/snapshot/%s.hex", SM_TEST_FIXTURES, name);
    FILE *f = fopen(path, "re");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "bytes %zu", len), 1);
    uint8_t *data = calloc(1, *len);
    assert_non_null(data);
    size_t at;
    char hex[65];
    while (fscanf(f, "%zx %64s", &at, hex) == 2) {
        for (size_t i = 0; hex[2 * i]; i++) {
            unsigned byte;
            assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
            assert_true(at + i < *len);
            data[at + i] = (uint8_t)byte;
        }
    }
    fclose(f);
    return data;
}

char *make_dir(void)
{
    const char *tmp = getenv("TMPDIR");
    char *dir = NULL;
    if (!tmp)
        tmp = access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";
    assert_true(asprintf(&dir, "%s/sm-test-XXXXXX", tmp) > 0);
    assert_non_null(mkdtemp(dir));
    return dir;
}

static int remove_one(const char *path, const struct stat *st, int flag, struct FTW *ftw)
{
    (void)st, (void)flag, (void)ftw;
    return remove(path);
}

void remove_dir(char *dir)
{
    nftw(dir, remove_one, 16, FTW_DEPTH | FTW_PHYS);
    free(dir);
}

char *make_file(const char *dir, const char *name, const void *data, size_t len)
{
    char *path = NULL;
    assert_true(asprintf(&path, "%s/%s", dir, name) > 0);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, data, len), len);
    close(fd);
    return path;
}

uint8_t *slurp(const char *path, size_t *len)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    off_t size = lseek(fd, 0, SEEK_END);
    assert_true(size >= 0);
    uint8_t *data = malloc((size_t)size + 1);
    assert_non_null(data);
    assert_int_equal(pread(fd, data, (size_t)size, 0), size);
    close(fd);
    *len = (size_t)size;
    return data;
}

struct sm_snapshot *make_snapshot(uint64_t memory_bytes, bool marked)
{
    struct sm_snapshot *s = calloc(1, sizeof(*s));
    assert_non_null(s);
    s->captured_host_ns = 1;
    s->captured_guest_clock = 2;
    s->memory_bytes = memory_bytes;
    s->arch = marked ? SM_ARCH_X86_64 : SM_ARCH_UNMARKED;
    s->irqchip_bytes = 5;
    s->irqchip = (uint8_t *)strdup("chip");
    s->n_vcpus = 2;
    s->vcpus = calloc(2, sizeof(*s->vcpus));
    for (uint32_t v = 0; v < 2; v++) {
        for (uint32_t i = 0; i < 40; i++) {
            assert_int_equal(sm_reg_list_add(&s->vcpus[v].gp, i, i * 3 + v, NULL), 0);
            assert_int_equal(sm_reg128_list_add(&s->vcpus[v].simd, i, i, v, NULL), 0);
        }
        assert_int_equal(sm_reg_list_add(&s->vcpus[v].sys, 0x10, 99, NULL), 0);
    }
    s->n_devices = 2;
    s->devices = calloc(2, sizeof(*s->devices));
    s->devices[1].state.n_queues = 2;
    s->devices[1].state.queues[1] = (struct sm_virtq_state){.size = 64, .ready = 1, .desc = 4096};
    s->n_listeners = 1;
    s->listeners = calloc(1, sizeof(*s->listeners));
    s->listeners[0] = (struct sm_snapshot_listener){3, 4, 80, 2, 1};
    if (marked) {
        memset(s->build.kernel, 7, sizeof(s->build.kernel));
        s->n_regions = 1;
        s->regions[0] = (struct sm_snapshot_region){.size = memory_bytes};
        s->devices[1].virtio_id = 19;
        s->devices[1].state.extra[0] = 1234;
        s->note = strdup("made by a test");
    }
    return s;
}

uint8_t *make_ram(uint64_t bytes, unsigned seed)
{
    uint8_t *ram = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(ram != MAP_FAILED);
    uint64_t x = seed * 0x9E3779B97F4A7C15u + 1;
    for (uint64_t at = 0; at < bytes; at += SM_SNAPSHOT_PAGE) {
        x ^= x << 13, x ^= x >> 7, x ^= x << 17;
        uint64_t chunk = at / SM_SNAPSHOT_CHUNK * 0xD1B54A32D192ED03u + seed;
        if ((chunk >> 60) < 8) /* half of the chunks are never touched */
            continue;
        switch (x >> 61) {
        case 0: /* touched, yet zero */
            ram[at] = 1;
            ram[at] = 0;
            break;
        case 1: /* one byte, at the very end */
            ram[at + SM_SNAPSHOT_PAGE - 1] = (uint8_t)(x | 1);
            break;
        case 2: /* not touched */
            break;
        default:
            for (unsigned i = 0; i < SM_SNAPSHOT_PAGE; i += 8) {
                x ^= x << 13, x ^= x >> 7, x ^= x << 17;
                sm_store_le64(ram + at + i, x);
            }
        }
    }
    return ram;
}
