/*
 * virtio-blk. See virtio_blk.h.
 *
 * A request is a readable header (type, sector), data in the direction of the type, and one
 * writable status byte at the very end. The guest may cut these into buffers as it likes, so the
 * data part is a slice of the iovecs. A request is at most SEG_MAX * SIZE_MAX_BYTES long, as the
 * configuration tells the driver, which bounds the time that one request keeps the loop.
 *
 * System calls of the device thread: preadv, pwritev, pwrite64, fallocate, fdatasync.
 */
#include "devices/virtio_blk.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/error.h"

#define F_SIZE_MAX     (1ULL << 1)
#define F_SEG_MAX      (1ULL << 2)
#define F_RO           (1ULL << 5)
#define F_BLK_SIZE     (1ULL << 6)
#define F_FLUSH        (1ULL << 9)
#define F_DISCARD      (1ULL << 13)
#define F_WRITE_ZEROES (1ULL << 14)

enum { T_IN = 0, T_OUT = 1, T_FLUSH = 4, T_GET_ID = 8, T_DISCARD = 11, T_WRITE_ZEROES = 13 };
enum { S_OK = 0, S_IOERR = 1, S_UNSUPP = 2 };

#define SECTOR          512u
#define HEADER_BYTES    16u
#define ID_BYTES        20u
#define RANGE_BYTES     16u /* sector le64, sectors le32, flags le32 */
#define RANGE_F_UNMAP   1u
#define SEG_MAX         126u
#define SIZE_MAX_BYTES  (256u << 10)
#define RANGES_MAX      16u
#define RANGE_SECTORS   (1u << 20) /* 512 MiB */
#define ZEROS_AT_A_TIME 65536u

enum {
    CFG_CAPACITY = 0,
    CFG_SIZE_MAX = 8,
    CFG_SEG_MAX = 12,
    CFG_BLK_SIZE = 20,
    CFG_MAX_DISCARD_SECTORS = 36,
    CFG_MAX_DISCARD_SEG = 40,
    CFG_DISCARD_ALIGNMENT = 44,
    CFG_MAX_ZEROES_SECTORS = 48,
    CFG_MAX_ZEROES_SEG = 52,
    CFG_ZEROES_MAY_UNMAP = 56,
    CFG_SIZE = 60,
};

struct blk {
    struct sm_virtio_dev dev;
    int fd;
    bool read_only;
    uint64_t sectors;
    char id[ID_BYTES];
};

static void blk_config_read(struct sm_virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
    struct blk *blk = (struct blk *)dev;
    uint8_t config[CFG_SIZE] = {0};
    sm_store_le64(config + CFG_CAPACITY, blk->sectors);
    sm_store_le32(config + CFG_SIZE_MAX, SIZE_MAX_BYTES);
    sm_store_le32(config + CFG_SEG_MAX, SEG_MAX);
    sm_store_le32(config + CFG_BLK_SIZE, SECTOR);
    sm_store_le32(config + CFG_MAX_DISCARD_SECTORS, RANGE_SECTORS);
    sm_store_le32(config + CFG_MAX_DISCARD_SEG, RANGES_MAX);
    sm_store_le32(config + CFG_DISCARD_ALIGNMENT, 8);
    sm_store_le32(config + CFG_MAX_ZEROES_SECTORS, RANGE_SECTORS);
    sm_store_le32(config + CFG_MAX_ZEROES_SEG, RANGES_MAX);
    config[CFG_ZEROES_MAY_UNMAP] = 1;
    memcpy(buf, config + offset, len);
}

static bool in_range(const struct blk *blk, uint64_t sector, uint64_t sectors)
{
    return sector <= blk->sectors && sectors <= blk->sectors - sector;
}

/* Moves all of iov (whose entries it uses up) from or to the file. */
static int transfer(int fd, struct iovec *iov, unsigned n, uint64_t offset, bool write)
{
    while (n > 0) {
        ssize_t done = write ? pwritev(fd, iov, (int)n, (off_t)offset)
                             : preadv(fd, iov, (int)n, (off_t)offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0) /* 0: the file is shorter than it was */
            return S_IOERR;
        offset += (uint64_t)done;
        size_t left = (size_t)done;
        while (n > 0 && left >= iov->iov_len) {
            left -= iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (uint8_t *)iov->iov_base + left;
            iov->iov_len -= left;
        }
    }
    return S_OK;
}

static int write_zeros(int fd, uint64_t offset, uint64_t len)
{
    static const uint8_t zeros[ZEROS_AT_A_TIME];
    while (len > 0) {
        ssize_t n = pwrite(fd, zeros, SM_MIN(len, sizeof(zeros)), (off_t)offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return S_IOERR;
        offset += (uint64_t)n;
        len -= (uint64_t)n;
    }
    return S_OK;
}

static int clear_range(const struct blk *blk, const uint8_t range[RANGE_BYTES], uint32_t type)
{
    uint64_t sector = sm_load_le64(range);
    uint32_t sectors = sm_load_le32(range + 8);
    uint32_t flags = sm_load_le32(range + 12);
    if ((flags & ~RANGE_F_UNMAP) || (type == T_DISCARD && flags))
        return S_UNSUPP;
    if (sectors > RANGE_SECTORS || !in_range(blk, sector, sectors))
        return S_IOERR;
    off_t offset = (off_t)(sector * SECTOR), len = (off_t)sectors * SECTOR;
    if (len == 0)
        return S_OK;
    int mode =
        type == T_DISCARD || (flags & RANGE_F_UNMAP) ? FALLOC_FL_PUNCH_HOLE : FALLOC_FL_ZERO_RANGE;
    if (fallocate(blk->fd, mode | FALLOC_FL_KEEP_SIZE, offset, len) == 0)
        return S_OK;
    if (errno != EOPNOTSUPP && errno != ENOSYS)
        return S_IOERR;
    /* A discard is only advice. */
    return type == T_DISCARD ? S_OK : write_zeros(blk->fd, (uint64_t)offset, (uint64_t)len);
}

static int clear_ranges(const struct blk *blk, const struct sm_virtq_chain *c, uint32_t type)
{
    size_t bytes = c->readable_bytes - HEADER_BYTES;
    if (blk->read_only || bytes == 0 || bytes % RANGE_BYTES || bytes / RANGE_BYTES > RANGES_MAX)
        return S_IOERR;
    int status = S_OK;
    for (size_t at = HEADER_BYTES; at < c->readable_bytes && status == S_OK; at += RANGE_BYTES) {
        uint8_t range[RANGE_BYTES];
        sm_iov_read(c->iov, c->n_readable, at, range, sizeof(range));
        status = clear_range(blk, range, type);
    }
    return status;
}

static int read_write(
    const struct blk *blk, struct sm_virtq_chain *c, uint64_t sector, bool write, uint32_t *written)
{
    size_t bytes = write ? c->readable_bytes - HEADER_BYTES : c->writable_bytes - 1;
    if (bytes == 0 || bytes % SECTOR || bytes > (uint64_t)SEG_MAX * SIZE_MAX_BYTES ||
        !in_range(blk, sector, bytes / SECTOR) || (write && blk->read_only))
        return S_IOERR;
    struct iovec data[SM_VIRTQ_MAX_SIZE];
    unsigned n = write ? sm_iov_slice(c->iov, c->n_readable, HEADER_BYTES, bytes, data)
                       : sm_iov_slice(sm_virtq_writable(c), c->n_writable, 0, bytes, data);
    int status = transfer(blk->fd, data, n, sector * SECTOR, write);
    if (!write && status == S_OK)
        *written = (uint32_t)bytes;
    return status;
}

static uint32_t serve(struct sm_virtio_dev *dev, struct sm_virtq_chain *c)
{
    struct blk *blk = (struct blk *)dev;
    uint8_t header[HEADER_BYTES];
    if (c->writable_bytes == 0)
        return 0; /* nowhere to put a status */
    uint32_t written = 0;
    int status = S_IOERR;
    if (sm_iov_read(c->iov, c->n_readable, 0, header, sizeof(header)) == sizeof(header)) {
        uint32_t type = sm_load_le32(header);
        switch (type) {
        case T_IN:
        case T_OUT:
            status = read_write(blk, c, sm_load_le64(header + 8), type == T_OUT, &written);
            break;
        case T_FLUSH:
            status = blk->read_only || fdatasync(blk->fd) == 0 ? S_OK : S_IOERR;
            break;
        case T_GET_ID:
            written = (uint32_t)sm_iov_write(sm_virtq_writable(c), c->n_writable, 0, blk->id,
                SM_MIN(sizeof(blk->id), c->writable_bytes - 1));
            status = S_OK;
            break;
        case T_DISCARD:
        case T_WRITE_ZEROES:
            status = clear_ranges(blk, c, type);
            break;
        default:
            status = S_UNSUPP;
            break;
        }
    }
    uint8_t byte = (uint8_t)status;
    sm_iov_write(sm_virtq_writable(c), c->n_writable, c->writable_bytes - 1, &byte, 1);
    /* The count tells how much from the start on is valid: all of it, or at a failure only what
     * was. */
    return written == c->writable_bytes - 1 ? written + 1 : written;
}

static void blk_notify(struct sm_virtio_dev *dev, unsigned q)
{
    sm_virtio_serve(dev, q, serve);
}

static void blk_destroy(struct sm_virtio_dev *dev)
{
    struct blk *blk = (struct blk *)dev;
    sm_close(blk->fd);
    sm_virtio_fini(dev);
    free(blk);
}

static const struct sm_virtio_ops blk_ops = {
    .name = "blk",
    .id = SM_VIRTIO_ID_BLOCK,
    .n_queues = 1,
    .queue_max = 128,
    .config_size = CFG_SIZE,
    .config_read = blk_config_read,
    .notify = blk_notify,
    .destroy = blk_destroy,
};

int sm_virtio_blk_create(const struct sm_virtio_env *env, const struct sm_blk_config *config,
    struct sm_virtio_dev **dev, sm_error *err)
{
    struct blk *blk = calloc(1, sizeof(*blk));
    if (!blk)
        return sm_error_errno(err, ENOMEM, "cannot make the block device");
    uint64_t features = F_SIZE_MAX | F_SEG_MAX | F_BLK_SIZE | F_FLUSH;
    features |= config->read_only ? F_RO : F_DISCARD | F_WRITE_ZEROES;
    int rc = sm_virtio_init(&blk->dev, &blk_ops, env, features, err);
    if (rc) {
        free(blk);
        return rc;
    }
    blk->fd = config->fd;
    blk->read_only = config->read_only;
    blk->sectors = SM_MIN(config->size, (uint64_t)INT64_MAX) / SECTOR;
    if (config->id)
        memcpy(blk->id, config->id, strnlen(config->id, ID_BYTES));
    *dev = &blk->dev;
    return 0;
}
