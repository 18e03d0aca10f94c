/*
 * Blocks of the image file. See space.h.
 *
 * System calls: pwrite64, fallocate, sync_file_range.
 */
#include "rootfs/space.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/error.h"
#include "util/file.h"

enum {
    GAPS_TRIED = 16,       /* of the newest; more would make many small files quadratic */
    WRITEBACK = 16u << 20, /* the kernel starts to write after so much, not at the final fsync */
};

int sm_space_init(struct sm_space *space, int fd, uint64_t max_bytes, sm_error *err)
{
    *space = (struct sm_space){.fd = fd, .end = SM_HUGE_BLOCKS};
    space->max = (uint32_t)SM_MIN(max_bytes / SM_BLOCK_SIZE, UINT32_MAX - 2 * SM_HUGE_BLOCKS);
    space->buf = malloc(SM_WRITE_BUFFER);
    return space->buf ? 0 : sm_error_set(err, SM_ENOMEM, "out of memory");
}

void sm_space_clear(struct sm_space *space)
{
    free(space->gaps);
    free(space->buf);
    *space = (struct sm_space){.fd = -1};
}

/* A gap that cannot be noted for lack of memory stays unused, which is no harm. */
static void add_gap(struct sm_space *space, uint32_t start, uint32_t count)
{
    if (count == 0)
        return;
    struct sm_gap *last = space->gap_count ? &space->gaps[space->gap_count - 1] : NULL;
    if (last && last->start + last->count == start) {
        last->count += count;
        return;
    }
    if (space->gap_count == space->gap_room) {
        size_t room = space->gap_room ? space->gap_room * 2 : 64;
        struct sm_gap *grown = reallocarray(space->gaps, room, sizeof(*grown));
        if (!grown)
            return;
        space->gaps = grown;
        space->gap_room = room;
    }
    space->gaps[space->gap_count++] = (struct sm_gap){start, count};
}

static bool take_gap(struct sm_space *space, uint32_t count, uint32_t *start)
{
    size_t tries = SM_MIN(space->gap_count, (size_t)GAPS_TRIED);
    for (size_t i = space->gap_count; tries > 0; tries--) {
        struct sm_gap *gap = &space->gaps[--i];
        if (gap->count < count)
            continue;
        *start = gap->start;
        gap->start += count;
        gap->count -= count;
        if (gap->count == 0)
            memmove(gap, gap + 1, (--space->gap_count - i) * sizeof(*gap));
        return true;
    }
    return false;
}

int sm_space_alloc(struct sm_space *space, uint32_t count, uint32_t *start, sm_error *err)
{
    if (count < SM_HUGE_BLOCKS && take_gap(space, count, start))
        return 0;
    uint64_t end = sm_align_up((uint64_t)space->end + count, SM_HUGE_BLOCKS);
    if (end > space->max)
        return sm_error_set(err, SM_ELIMIT, "the image's files need more than %llu MiB",
            (unsigned long long)space->max * SM_BLOCK_SIZE >> 20);
    *start = space->end;
    space->end = (uint32_t)end;
    add_gap(space, *start + count, (uint32_t)(end - *start - count));
    return 0;
}

void sm_space_free(struct sm_space *space, uint32_t start, uint32_t count)
{
    if (sm_space_flush(space, NULL) != 0)
        return;
    /* Old contents must not show through in blocks that are zero and so not written. */
    if (fallocate(space->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
            (off_t)start * SM_BLOCK_SIZE, (off_t)count * SM_BLOCK_SIZE) == 0)
        add_gap(space, start, count);
}

static bool is_zero(const char *p, size_t n)
{
    return n == 0 || (*p == 0 && memcmp(p, p + 1, n - 1) == 0);
}

static int write_out(
    struct sm_space *space, const char *data, size_t size, uint64_t pos, sm_error *err)
{
    return sm_write_at(space->fd, data, size, pos) == 0
               ? 0
               : sm_error_errno(err, errno, "cannot write the root filesystem");
}

/* Writes what is not zero. */
int sm_space_flush(struct sm_space *space, sm_error *err)
{
    size_t from = 0, at = 0;
    while (at < space->buf_len) {
        size_t n = SM_BLOCK_SIZE - (space->buf_pos + at) % SM_BLOCK_SIZE;
        n = SM_MIN(n, space->buf_len - at);
        if (is_zero(space->buf + at, n)) {
            int rc = write_out(space, space->buf + from, at - from, space->buf_pos + from, err);
            if (rc)
                return rc;
            from = at + n;
        }
        at += n;
    }
    int rc = write_out(space, space->buf + from, at - from, space->buf_pos + from, err);
    space->unsynced += at;
    space->buf_len = 0;
    if (rc == 0 && space->unsynced >= WRITEBACK) {
        sync_file_range(space->fd, 0, 0, SYNC_FILE_RANGE_WRITE);
        space->unsynced = 0;
    }
    return rc;
}

int sm_space_write(
    struct sm_space *space, uint64_t pos, const void *data, size_t size, sm_error *err)
{
    const char *p = data;
    uint64_t have_to = space->buf_pos + space->buf_len;
    /* The tail of a file's last block is zero: the next file continues in the same buffer. */
    if (space->buf_len > 0 && pos > have_to && pos - have_to < SM_BLOCK_SIZE &&
        space->buf_len + (pos - have_to) < SM_WRITE_BUFFER) {
        memset(space->buf + space->buf_len, 0, pos - have_to);
        space->buf_len += pos - have_to;
    } else if (space->buf_len > 0 && pos != have_to) {
        int rc = sm_space_flush(space, err);
        if (rc)
            return rc;
    }
    while (size > 0) {
        if (space->buf_len == 0)
            space->buf_pos = pos;
        size_t n = SM_MIN(size, SM_WRITE_BUFFER - space->buf_len);
        memcpy(space->buf + space->buf_len, p, n);
        space->buf_len += n;
        p += n;
        pos += n;
        size -= n;
        if (space->buf_len == SM_WRITE_BUFFER) {
            int rc = sm_space_flush(space, err);
            if (rc)
                return rc;
        }
    }
    return 0;
}
