/* Seals. See seal.h. The file is text: a line with length, time in ns and the first block's
 * checksum, then a line for each 2 MiB. */
#include "image/seal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "image/store_files.h"
#include "util/bytes.h"
#include "util/crc32c.h"
#include "util/error.h"
#include "util/file.h"

enum {
    CHUNK = 2 << 20,
    BLOCK = 4096,
    LINE = sizeof("00000000\n") - 1,
    HEAD = sizeof("SMSEAL 1 00000000000000000000 +0000000000000000000 00000000\n") - 1,
};

struct head {
    uint64_t bytes;
    int64_t mtime_ns;
    uint32_t first_block;
};

static void seal_name(const char *rootfs, char name[SM_STORE_NAME_MAX])
{
    const char *slash = strrchr(rootfs, '/'), *base = slash ? slash + 1 : rootfs;
    const char *end = strstr(base, SM_ROOTFS_SUFFIX);
    snprintf(name, SM_STORE_NAME_MAX, "seals/%.*s",
        (int)(end ? (size_t)(end - base) : strlen(base)), base);
}

static int no_memory(sm_error *err)
{
    return sm_error_set(err, SM_ENOMEM, "no memory to check a root filesystem");
}

static int damaged(const char *rootfs, const char *how, sm_error *err)
{
    return sm_error_set(err, SM_ECORRUPT, "%s in the store is damaged: %s", rootfs, how);
}

/* ---- the file ------------------------------------------------------------------------------- */

static int sum_range(int fd, void *buf, uint64_t at, size_t size, uint32_t *sum, sm_error *err)
{
    ssize_t n = sm_read_at(fd, buf, size, at);
    if (n != (ssize_t)size)
        return sm_error_errno(err, n < 0 ? errno : EIO, "cannot read a root filesystem");
    *sum = sm_crc32c(0, buf, size);
    return 0;
}

/* Whether the range holds nothing on disk, and so is all zero. */
static bool is_hole(int fd, uint64_t at, size_t size)
{
    off_t data = lseek(fd, (off_t)at, SEEK_DATA);
    return data < 0 ? errno == ENXIO : (uint64_t)data >= at + size;
}

typedef int take_sum_fn(void *arg, uint64_t at, uint32_t sum, sm_error *err);

/* Calls fn with the sum of each chunk. */
static int sum_all(int fd, uint64_t bytes, take_sum_fn *fn, void *arg, sm_error *err)
{
    auto_free char *buf = calloc(1, CHUNK);
    if (!buf)
        return no_memory(err);
    uint32_t of_zeros = sm_crc32c(0, buf, CHUNK);
    int rc = 0;
    for (uint64_t at = 0; rc == 0 && at < bytes; at += CHUNK) {
        size_t size = (size_t)SM_MIN(bytes - at, (uint64_t)CHUNK);
        uint32_t sum = of_zeros;
        if (size != CHUNK || !is_hole(fd, at, size))
            rc = sum_range(fd, buf, at, size, &sum, err);
        if (rc == 0)
            rc = fn(arg, at, sum, err);
    }
    return rc;
}

static int look(int fd, struct head *head, sm_error *err)
{
    char block[BLOCK];
    struct stat st;
    if (fstat(fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot look at a root filesystem");
    head->bytes = (uint64_t)st.st_size;
    head->mtime_ns = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec;
    head->first_block = 0;
    return st.st_size < BLOCK ? 0 : sum_range(fd, block, 0, BLOCK, &head->first_block, err);
}

/* ---- making --------------------------------------------------------------------------------- */

static int note_sum(void *arg, uint64_t at, uint32_t sum, sm_error *err)
{
    return fprintf(arg, "%08" PRIx32 "\n", sum) == LINE ? 0 : no_memory(err);
}

int sm_seal_make(struct sm_imgstore *store, const char *rootfs, int fd, sm_error *err)
{
    struct head head;
    char name[SM_STORE_NAME_MAX], *text = NULL;
    size_t size;
    int rc = look(fd, &head, err);
    if (rc)
        return rc;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return no_memory(err);
    fprintf(out, "SMSEAL 1 %020" PRIu64 " %+020" PRId64 " %08" PRIx32 "\n", head.bytes,
        head.mtime_ns, head.first_block);
    rc = sum_all(fd, head.bytes, note_sum, out, err);
    if (fclose(out) != 0 && rc == 0)
        rc = no_memory(err);
    seal_name(rootfs, name);
    if (rc == 0)
        rc = sm_store_write(store, name, text, size, err);
    free(text);
    return rc;
}

/* ---- checking ------------------------------------------------------------------------------- */

/* That it is not there is damage; that it cannot be opened says nothing about what it seals. */
static int open_seal(
    const struct sm_imgstore *store, const char *rootfs, int *fd, struct head *head, sm_error *err)
{
    char name[SM_STORE_NAME_MAX], line[HEAD + 1] = "";
    seal_name(rootfs, name);
    auto_fd seal = openat(store->fd, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    ssize_t n = seal < 0 ? -1 : sm_read_at(seal, line, HEAD, 0);
    if (n < 0 && (seal >= 0 || errno != ENOENT))
        return sm_error_errno(err, errno, "cannot read the seal of %s", rootfs);
    if (n != HEAD || sscanf(line, "SMSEAL 1 %20" SCNu64 " %20" SCNd64 " %8" SCNx32, &head->bytes,
                         &head->mtime_ns, &head->first_block) != 3)
        return damaged(rootfs, "it has no seal", err);
    *fd = sm_steal_fd(&seal);
    return 0;
}

struct comparison {
    const char *rootfs, *sums;
};

static int compare_sum(void *arg, uint64_t at, uint32_t sum, sm_error *err)
{
    const struct comparison *c = arg;
    char line[LINE + 1], how[64];
    snprintf(line, sizeof(line), "%08" PRIx32 "\n", sum);
    if (memcmp(line, c->sums + at / CHUNK * LINE, LINE) == 0)
        return 0;
    snprintf(how, sizeof(how), "bytes %" PRIu64 " to %" PRIu64 " have changed", at, at + CHUNK - 1);
    return damaged(c->rootfs, how, err);
}

static int check_all(int seal, const char *rootfs, int fd, uint64_t bytes, sm_error *err)
{
    size_t size = (bytes + CHUNK - 1) / CHUNK * LINE;
    auto_free char *sums = malloc(size + 1);
    if (!sums)
        return no_memory(err);
    ssize_t n = sm_read_at(seal, sums, size, HEAD);
    if (n < 0)
        return sm_error_errno(err, errno, "cannot read the seal of %s", rootfs);
    if ((size_t)n != size)
        return damaged(rootfs, "its seal is cut off", err);
    return sum_all(fd, bytes, compare_sum, &(struct comparison){rootfs, sums}, err);
}

int sm_seal_check(
    struct sm_imgstore *store, const char *rootfs, int fd, enum sm_seal_depth depth, sm_error *err)
{
    struct head sealed, found;
    auto_fd seal = -1;
    int rc = open_seal(store, rootfs, &seal, &sealed, err);
    if (rc == 0)
        rc = look(fd, &found, err);
    if (rc)
        return rc;
    if (found.bytes != sealed.bytes)
        return damaged(rootfs, "it has not the length that it was built with", err);
    if (found.first_block != sealed.first_block)
        return damaged(rootfs, "its superblock has changed", err);
    bool touched = found.mtime_ns != sealed.mtime_ns;
    if (depth == SM_SEAL_WHOLE || touched)
        rc = check_all(seal, rootfs, fd, found.bytes, err);
    if (rc == 0 && touched) {
        /* copied, or touched: the next look-up need not read it all */
        const struct timespec times[2] = {{.tv_nsec = UTIME_OMIT},
            {.tv_sec = sealed.mtime_ns / 1000000000, .tv_nsec = sealed.mtime_ns % 1000000000}};
        (void)futimens(fd, times);
    }
    return rc;
}

void sm_seal_break(struct sm_imgstore *store, const char *rootfs)
{
    char name[SM_STORE_NAME_MAX];
    seal_name(rootfs, name);
    unlinkat(store->fd, name, 0);
}
