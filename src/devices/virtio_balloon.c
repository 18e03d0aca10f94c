/* virtio-balloon with free page reporting. See virtio_balloon.h. */
#include "devices/virtio_balloon.h"

#include <errno.h>
#include <stdlib.h>

#include "util/bytes.h"
#include "util/error.h"

#define F_DEFLATE_ON_OOM (1ULL << 2)
#define F_PAGE_POISON    (1ULL << 4)
#define F_REPORTING      (1ULL << 5)

/* Statistics (2) and free page hints (3) are not offered, so whatever queue from 2 on is used must
 * be the reporting queue: number 4 by the standard, 2 for drivers that count only the queues that
 * exist. */
enum { Q_INFLATE = 0, Q_DEFLATE = 1, Q_REPORTING_FIRST = 2, N_QUEUES = 5 };

enum { CFG_NUM_PAGES = 0, CFG_ACTUAL = 4, CFG_POISON = 12, CFG_SIZE = 16 };

#define PAGE_SHIFT     12
#define PFNS_PER_CHAIN 1024u

struct balloon {
    struct sm_virtio_dev dev;
    atomic_uint target, actual, poison; /* both threads and the guest's configuration space */
    atomic_ullong reported;
};

static void balloon_config_read(struct sm_virtio_dev *dev, unsigned offset, void *buf, unsigned len)
{
    struct balloon *b = (struct balloon *)dev;
    uint8_t config[CFG_SIZE] = {0};
    sm_store_le32(config + CFG_NUM_PAGES, atomic_load(&b->target));
    sm_store_le32(config + CFG_ACTUAL, atomic_load(&b->actual));
    sm_store_le32(config + CFG_POISON, atomic_load(&b->poison));
    memcpy(buf, config + offset, len);
}

static void balloon_config_write(
    struct sm_virtio_dev *dev, unsigned offset, const void *buf, unsigned len)
{
    struct balloon *b = (struct balloon *)dev;
    if (len != 4)
        return;
    if (offset == CFG_ACTUAL)
        atomic_store(&b->actual, sm_load_le32(buf));
    else if (offset == CFG_POISON)
        atomic_store(&b->poison, sm_load_le32(buf));
}

/* A guest that fills its free pages with a pattern other than zero would miss it in pages that come
 * back: then they are left alone. Failing to give memory back harms nobody. */
static void give_back(struct balloon *b, void *host, uint64_t len)
{
    if (atomic_load(&b->poison) == 0)
        sm_gm_discard(b->dev.env.memory, host, len, NULL);
}

static uint32_t serve_reporting(struct sm_virtio_dev *dev, struct sm_virtq_chain *chain)
{
    struct balloon *b = (struct balloon *)dev;
    const struct iovec *pages = sm_virtq_writable(chain);
    for (unsigned i = 0; i < chain->n_writable; i++)
        give_back(b, pages[i].iov_base, pages[i].iov_len);
    atomic_fetch_add_explicit(&b->reported, chain->writable_bytes, memory_order_relaxed);
    return 0;
}

/* A list of 32-bit page numbers; neighbours are given back together. */
static uint32_t serve_inflate(struct sm_virtio_dev *dev, struct sm_virtq_chain *chain)
{
    struct balloon *b = (struct balloon *)dev;
    uint8_t *run = NULL;
    uint64_t run_len = 0;
    for (unsigned i = 0; i < PFNS_PER_CHAIN; i++) {
        uint8_t raw[4];
        if (sm_iov_read(chain->iov, chain->n_readable, 4 * (size_t)i, raw, 4) < 4)
            break;
        uint64_t gpa = (uint64_t)sm_load_le32(raw) << PAGE_SHIFT;
        uint8_t *page = sm_gm_ptr(dev->env.memory, gpa, 1u << PAGE_SHIFT);
        if (!page)
            continue;
        if (run && page == run + run_len) {
            run_len += 1u << PAGE_SHIFT;
            continue;
        }
        if (run)
            give_back(b, run, run_len);
        run = page;
        run_len = 1u << PAGE_SHIFT;
    }
    if (run)
        give_back(b, run, run_len);
    return 0;
}

/* Pages that the guest takes back are there again on first touch. */
static uint32_t serve_deflate(struct sm_virtio_dev *dev, struct sm_virtq_chain *chain)
{
    (void)dev;
    (void)chain;
    return 0;
}

static void balloon_notify(struct sm_virtio_dev *dev, unsigned q)
{
    if (q == Q_INFLATE)
        sm_virtio_serve(dev, q, serve_inflate);
    else if (q == Q_DEFLATE)
        sm_virtio_serve(dev, q, serve_deflate);
    else if (sm_virtio_has(dev, F_REPORTING))
        sm_virtio_serve(dev, q, serve_reporting);
}

static void balloon_reset(struct sm_virtio_dev *dev)
{
    struct balloon *b = (struct balloon *)dev;
    atomic_store(&b->actual, 0);
    atomic_store(&b->poison, 0);
}

static void balloon_save(struct sm_virtio_dev *dev, uint64_t extra[SM_VIRTIO_EXTRA])
{
    struct balloon *b = (struct balloon *)dev;
    extra[0] = atomic_load(&b->target) | (uint64_t)atomic_load(&b->actual) << 32;
    extra[1] = atomic_load(&b->poison);
}

static void balloon_load(struct sm_virtio_dev *dev, const uint64_t extra[SM_VIRTIO_EXTRA])
{
    struct balloon *b = (struct balloon *)dev;
    atomic_store(&b->target, (uint32_t)extra[0]);
    atomic_store(&b->actual, (uint32_t)(extra[0] >> 32));
    atomic_store(&b->poison, (uint32_t)extra[1]);
}

static void balloon_destroy(struct sm_virtio_dev *dev)
{
    sm_virtio_fini(dev);
    free(dev);
}

static const struct sm_virtio_ops balloon_ops = {
    .name = "balloon",
    .id = SM_VIRTIO_ID_BALLOON,
    .n_queues = N_QUEUES,
    .queue_max = 128,
    .config_size = CFG_SIZE,
    .config_read = balloon_config_read,
    .config_write = balloon_config_write,
    .notify = balloon_notify,
    .reset = balloon_reset,
    .save = balloon_save,
    .load = balloon_load,
    .destroy = balloon_destroy,
};

int sm_virtio_balloon_create(
    const struct sm_virtio_env *env, struct sm_virtio_dev **dev, sm_error *err)
{
    struct balloon *b = calloc(1, sizeof(*b));
    if (!b)
        return sm_error_errno(err, ENOMEM, "cannot make the balloon device");
    int rc = sm_virtio_init(
        &b->dev, &balloon_ops, env, F_DEFLATE_ON_OOM | F_PAGE_POISON | F_REPORTING, err);
    if (rc) {
        free(b);
        return rc;
    }
    *dev = &b->dev;
    return 0;
}

void sm_balloon_set_target(struct sm_virtio_dev *dev, uint32_t pages)
{
    struct balloon *b = (struct balloon *)dev;
    atomic_store(&b->target, pages);
    sm_virtio_config_changed(dev);
}

void sm_balloon_stats(struct sm_virtio_dev *dev, struct sm_balloon_stats *stats)
{
    struct balloon *b = (struct balloon *)dev;
    stats->reported_bytes = atomic_load(&b->reported);
    stats->actual_pages = atomic_load(&b->actual);
}
