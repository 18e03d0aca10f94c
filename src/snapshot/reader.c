/*
 * Snapshot files, read side. See reader.h.
 *
 * System calls: munmap.
 * System calls before a list: open.
 * System calls at set-up: fstat, lseek, mmap.
 * System calls at a capture: fstat, lseek, mmap.
 */
#include "snapshot/reader.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "snapshot/codec.h"
#include "util/crc32c.h"
#include "snapshot/format.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/file.h"

/* The metadata of an ordinary machine is smaller: one read gets it all. */
#define FIRST_READ (32u * 1024)

int sm_snapshot_open(const char *path, int *fd, sm_error *err)
{
    auto_fd f = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (f < 0)
        return sm_error_errno(err, errno, "cannot open the snapshot %s", path);
    struct stat st;
    if (fstat(f, &st) < 0)
        return sm_error_errno(err, errno, "cannot look at the snapshot %s", path);
    if (!S_ISREG(st.st_mode))
        return sm_error_set(err, SM_EINVAL, "%s is not a regular file, so it is no snapshot", path);
    *fd = sm_steal_fd(&f);
    return 0;
}

int sm_snapshot_read_at(int fd, void *buf, size_t len, uint64_t offset, sm_error *err)
{
    ssize_t n = sm_read_at(fd, buf, len, offset);
    if (n < 0)
        return sm_error_errno(err, errno, "cannot read the snapshot at %" PRIu64, offset);
    if ((size_t)n < len)
        return sm_error_set(err, SM_ECORRUPT,
            "the snapshot is truncated: it ended at %" PRIu64 " while it was read",
            offset + (uint64_t)n);
    return 0;
}

static int load_meta(int fd, struct sm_snapshot **snapshot, sm_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return sm_error_errno(err, errno, "cannot look at the file");
    uint64_t file_bytes = (uint64_t)st.st_size;
    size_t len = SM_MIN(file_bytes, FIRST_READ);
    auto_free uint8_t *buf = malloc(FIRST_READ);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "no memory to read the snapshot");
    uint64_t ram_offset = 0;
    int rc;
    if ((rc = sm_snapshot_read_at(fd, buf, len, 0, err)) ||
        (rc = sm_snapshot_decode_header(buf, len, file_bytes, &ram_offset, err)))
        return rc;
    size_t want = SM_MIN(file_bytes, ram_offset);
    if (want > len) {
        uint8_t *grown = realloc(buf, want);
        if (!grown)
            return sm_error_set(err, SM_ENOMEM, "no memory to read the snapshot");
        buf = grown;
        if ((rc = sm_snapshot_read_at(fd, buf + len, want - len, len, err)))
            return rc;
    }
    return sm_snapshot_decode(buf, want, file_bytes, snapshot, err);
}

int sm_snapshot_load_meta(int fd, const char *name, struct sm_snapshot **snapshot, sm_error *err)
{
    int rc = load_meta(fd, snapshot, err);
    return rc ? sm_error_prefix(err, rc, "%s", name) : 0;
}

int sm_snapshot_map_ram(int fd, const struct sm_snapshot *s, void *at, void **ram, sm_error *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return sm_error_errno(err, errno, "cannot look at the snapshot");
    uint64_t file_bytes = (uint64_t)st.st_size;
    if (s->ram_offset > file_bytes || s->memory_bytes > file_bytes - s->ram_offset)
        return sm_error_set(err, SM_ECORRUPT,
            "the snapshot is truncated: it has %" PRIu64 " bytes and its RAM ends at %" PRIu64,
            file_bytes, s->ram_offset + s->memory_bytes);
    void *p = mmap(at, s->memory_bytes, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_NORESERVE | (at ? MAP_FIXED : 0), fd, (off_t)s->ram_offset);
    if (p == MAP_FAILED)
        return sm_error_errno(
            err, errno, "cannot map %" PRIu64 " bytes of RAM out of the snapshot", s->memory_bytes);
    *ram = p;
    return 0;
}

bool sm_snapshot_next_data(int fd, uint64_t origin, uint64_t end, uint64_t *at, uint64_t *data_end)
{
    if (*at >= end)
        return false;
    off_t data = lseek(fd, (off_t)*at, SEEK_DATA);
    if (data < 0 && errno == ENXIO)
        return false;
    off_t hole = data < 0 ? -1 : lseek(fd, data, SEEK_HOLE);
    if (data < 0 || hole < 0) { /* no such question on this filesystem: all may be data */
        *data_end = end;
        return true;
    }
    if ((uint64_t)data >= end)
        return false;
    uint64_t from = ((uint64_t)data - origin) / SM_SNAPSHOT_PAGE * SM_SNAPSHOT_PAGE + origin;
    *at = SM_MAX(*at, from);
    *data_end = SM_MIN(sm_align_up((uint64_t)hole - origin, SM_SNAPSHOT_PAGE) + origin, end);
    return true;
}

int sm_snapshot_load(
    int fd, const char *name, struct sm_snapshot **snapshot, void **ram, sm_error *err)
{
    auto_snapshot s = NULL;
    int rc = sm_snapshot_load_meta(fd, name, &s, err);
    if (rc)
        return rc;
    uint8_t *p = mmap(NULL, s->memory_bytes, PROT_READ | PROT_WRITE,
        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return sm_error_errno(
            err, errno, "%s: no memory for %" PRIu64 " bytes of RAM", name, s->memory_bytes);
    uint64_t end = s->ram_offset + s->memory_bytes, to;
    for (uint64_t at = s->ram_offset; sm_snapshot_next_data(fd, s->ram_offset, end, &at, &to);
         at = to) {
        rc = sm_snapshot_read_at(fd, p + (at - s->ram_offset), to - at, at, err);
        if (rc) {
            munmap(p, s->memory_bytes);
            return sm_error_prefix(err, rc, "%s", name);
        }
    }
    *snapshot = sm_steal_ptr(&s);
    *ram = p;
    return 0;
}

int sm_snapshot_chunk_sum(int fd, uint64_t ram_offset, uint64_t memory_bytes, uint64_t i, void *buf,
    uint32_t *sum, sm_error *err)
{
    uint64_t at = i * SM_SNAPSHOT_CHUNK;
    size_t len = SM_MIN(memory_bytes - at, SM_SNAPSHOT_CHUNK);
    int rc = sm_snapshot_read_at(fd, buf, len, ram_offset + at, err);
    if (!rc)
        *sum = sm_crc32c(0, buf, len);
    return rc;
}

int sm_snapshot_verify_ram(int fd, const char *name, const struct sm_snapshot *s, sm_error *err)
{
    if (!s->ram_sums)
        return sm_error_set(err, SM_EUNSUPPORTED,
            "%s has no RAM checksums: make the snapshot with checksums to be able to verify it",
            name);
    auto_free void *buf = malloc(SM_SNAPSHOT_CHUNK);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "no memory to verify the snapshot");
    for (uint32_t i = 0; i < s->n_ram_sums; i++) {
        uint32_t sum = 0;
        int rc = sm_snapshot_chunk_sum(fd, s->ram_offset, s->memory_bytes, i, buf, &sum, err);
        if (rc)
            return sm_error_prefix(err, rc, "%s", name);
        if (sum != s->ram_sums[i])
            return sm_error_set(err, SM_ECORRUPT,
                "%s is damaged: RAM at %#" PRIx64 " has checksum %08" PRIx32 " and not %08" PRIx32,
                name, (uint64_t)i * SM_SNAPSHOT_CHUNK, sum, s->ram_sums[i]);
    }
    return 0;
}
