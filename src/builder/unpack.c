/*
 * Between two parsers (parser.h): the reader decompresses a layer, the writer applies its tar, and
 * here what goes from one to the other is summed. That sum is the layer's diffID, which the image's
 * config names, and neither of the two is asked about it. All three work at once; sockets hold what
 * one has made and the next has not taken.
 */
#include "builder/unpack.h"

#include <string.h>

#include "builder/digest.h"
#include "util/clock.h"
#include "util/error.h"

enum { PROGRESS_MS = 100 };

struct unpacker {
    struct sm_parsers *parsers;
    const struct sm_plan *plan;
    sm_unpack_progress_fn *progress;
    void *arg;
    int64_t told_ms;
    uint64_t done, total; /* compressed bytes */
    size_t layer;
    struct sm_sha256 *sum; /* of the layer's tar */
    bool named;            /* the error says which layer it is */
};

static void tell(struct unpacker *u, bool now)
{
    int64_t ms = sm_now_ms();
    if (!now && ms - u->told_ms < PROGRESS_MS)
        return;
    u->told_ms = ms;
    u->progress(u->arg, u->layer, u->plan->layer_count, u->done, u->total);
}

static void tick(void *arg)
{
    tell(arg, false);
}

static void was_read(void *arg, size_t size)
{
    struct unpacker *u = arg;
    u->done += size;
    tell(u, false);
}

static int take(void *arg, const void *data, size_t size, sm_error *err)
{
    struct unpacker *u = arg;
    sm_sha256_update(u->sum, data, size);
    return sm_parsers_give(u->parsers, data, size, err);
}

static int check_diff_id(struct unpacker *u, const struct sm_layer *layer, sm_error *err)
{
    char digest[SM_DIGEST_LEN + 1];
    sm_sha256_finish(u->sum, digest);
    if (strcmp(digest, layer->diff_id) == 0)
        return 0;
    /* They sum what they read and write other zeros behind its end. */
    bool chunked = strstr(layer->blob.media_type, "zstd") != NULL;
    u->named = true;
    return sm_error_set(err, SM_ECORRUPT,
        "layer %zu of %zu unpacks to %s, but the image's config says %s%s", u->layer + 1,
        u->plan->layer_count, digest, layer->diff_id,
        chunked ? "; podman and skopeo write such layers as zstd:chunked: push it as gzip or zstd"
                : "");
}

/* One layer from one parser to the other. */
static int copy_layer(struct unpacker *u, struct sm_source *source, sm_error *err)
{
    static const struct sm_inflate_ops ops = {.read = was_read, .take = take};
    const struct sm_layer *layer = &u->plan->layers[u->layer];
    auto_blob blob = {.fd = -1};
    int rc = source->open(source, &layer->blob, layer->name, &blob, err);
    if (rc)
        return rc;
    if (layer->name) /* nobody knew its size */
        u->total += blob.size;
    rc = sm_parsers_layer(u->parsers, err);
    if (rc == 0)
        rc = sm_parsers_inflate(u->parsers, &blob, &layer->blob, &ops, tick, u, err);
    if (rc == 0)
        rc = check_diff_id(u, layer, err);
    return rc ? rc : sm_parsers_layer_end(u->parsers, tick, u, err);
}

static int unpack_layer(struct unpacker *u, struct sm_source *source, sm_error *err)
{
    tell(u, true);
    u->sum = sm_sha256_new();
    if (!u->sum)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    int rc = copy_layer(u, source, err);
    sm_sha256_free(u->sum);
    if (rc && !u->named)
        sm_error_prefix(err, rc, "layer %zu of %zu", u->layer + 1, u->plan->layer_count);
    return rc;
}

int sm_unpack(struct sm_parsers *parsers, struct sm_source *source, const struct sm_plan *plan,
    int fd, const struct sm_rootfs_limits *limits, sm_unpack_progress_fn *progress, void *arg,
    sm_error *err)
{
    struct unpacker u = {.parsers = parsers, .plan = plan, .progress = progress, .arg = arg};
    for (size_t i = 0; i < plan->layer_count; i++)
        u.total += plan->layers[i].blob.size;
    int rc = sm_parsers_begin(parsers, fd, limits, err);
    for (; rc == 0 && u.layer < plan->layer_count; u.layer++)
        rc = unpack_layer(&u, source, err);
    if (rc == 0 && plan->layer_count > 0) {
        u.layer = plan->layer_count - 1;
        tell(&u, true);
    }
    if (rc)
        sm_parser_stop(&parsers->writer);
    return rc;
}
