/*
 * Decompressing a layer with libarchive's filters, on the caller's thread. See inflate.h.
 *
 * System calls: read, pread64.
 */
#include "builder/inflate.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdlib.h>

#include "builder/digest.h"
#include "builder/tar_index.h"
#include "util/error.h"

enum { READ_SIZE = 128 << 10 };

struct inflater {
    const struct sm_inflate_ops *ops;
    void *arg;
    sm_error *err;
    struct sm_blob *blob;
    struct sm_sha256 *sum; /* NULL: has no digest to be checked */
    uint64_t pos;
    int rc; /* of reading, or of the taker */
    char buf[READ_SIZE];
};

static ssize_t next_bytes(struct inflater *r)
{
    ssize_t n = sm_blob_read(r->blob, r->pos, r->buf, sizeof(r->buf), r->err);
    if (n < 0) {
        r->rc = (int)n;
        return n;
    }
    if (r->sum)
        sm_sha256_update(r->sum, r->buf, (size_t)n);
    r->pos += (uint64_t)n;
    if (r->ops->read)
        r->ops->read(r->arg, (size_t)n);
    return n;
}

static la_ssize_t read_compressed(struct archive *a, void *arg, const void **data)
{
    struct inflater *r = arg;
    *data = r->buf;
    ssize_t n = r->rc ? r->rc : next_bytes(r);
    if (n < 0)
        archive_set_error(a, EIO, "read failed");
    return n < 0 ? -1 : n;
}

/* Reads what the decompressor left, and compares. */
static int check_digest(struct inflater *r, const struct sm_descriptor *d)
{
    while (r->rc == 0 && next_bytes(r) > 0)
        ;
    return r->rc || !r->sum ? r->rc : sm_sha256_check(r->sum, d->digest, r->err);
}

static int filter_of(struct inflater *r, int *filter)
{
    unsigned char magic[SM_MAGIC_BYTES] = {0};
    ssize_t n = sm_blob_read(r->blob, 0, magic, sizeof(magic), r->err);
    if (n < 0)
        return (int)n;
    *filter = sm_compression_of(magic);
    return 0;
}

static int not_decompressed(struct inflater *r, struct archive *a)
{
    const char *why = archive_error_string(a);
    return r->rc ? r->rc
                 : sm_error_set(r->err, SM_ECORRUPT, "the layer cannot be decompressed: %s",
                       why ? why : "unknown error");
}

static int take_all(struct inflater *r, struct archive *a)
{
    const void *data;
    size_t size;
    la_int64_t offset;
    int got;
    while ((got = archive_read_data_block(a, &data, &size, &offset)) == ARCHIVE_OK) {
        r->rc = r->ops->take(r->arg, data, size, r->err);
        if (r->rc)
            return r->rc;
    }
    return got == ARCHIVE_EOF ? 0 : not_decompressed(r, a);
}

static int decompress(struct inflater *r)
{
    int filter = ARCHIVE_FILTER_NONE;
    int rc = filter_of(r, &filter);
    if (rc)
        return rc;
    struct archive *a = archive_read_new();
    struct archive_entry *e;
    if (!a)
        return sm_error_set(r->err, SM_ENOMEM, "out of memory");
    archive_read_support_format_raw(a);
    archive_read_support_format_empty(a);
    if (filter != ARCHIVE_FILTER_NONE)
        archive_read_append_filter(a, filter);
    bool opened = archive_read_open2(a, r, NULL, read_compressed, NULL, NULL) == ARCHIVE_OK;
    int got = opened ? archive_read_next_header(a, &e) : ARCHIVE_FATAL;
    if (got == ARCHIVE_OK)
        rc = take_all(r, a);
    else if (got != ARCHIVE_EOF || r->rc || archive_errno(a))
        rc = not_decompressed(r, a); /* libarchive takes what it cannot read for empty */
    archive_read_free(a);
    return rc;
}

/* Where the digest is wrong that is the better word for a failed decompression, too. */
static int inflate_open(struct inflater *r, const struct sm_descriptor *d)
{
    int rc = decompress(r);
    if (r->rc)
        return r->rc;
    sm_error first = {0};
    if (rc && r->err)
        first = *r->err;
    int checked = check_digest(r, d);
    if (checked == 0 && rc && r->err)
        *r->err = first;
    return checked ? checked : rc;
}

int sm_inflate(struct sm_blob *blob, const struct sm_descriptor *d,
    const struct sm_inflate_ops *ops, void *arg, sm_error *err)
{
    auto_free struct inflater *r = calloc(1, sizeof(*r));
    if (!r)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    r->ops = ops;
    r->arg = arg;
    r->err = err;
    r->blob = blob;
    bool sums = *d->digest && !blob->checked;
    if (sums && !(r->sum = sm_sha256_new()))
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    int rc = inflate_open(r, d);
    sm_sha256_free(r->sum);
    return rc;
}
