/* Bytes -> snapshot. See codec.h. */
#include <inttypes.h>
#include <stdlib.h>

#include "snapshot/codec.h"
#include "util/crc32c.h"
#include "snapshot/format.h"
#include "util/bytes.h"
#include "util/error.h"

/* Where the decoder stands. The bytes end because the file does (`cut`), or where `next` begins. */
struct in {
    const uint8_t *p;
    size_t at, len;
    bool cut;
    const char *next;
    sm_error *err;
};

static struct in in_file(const uint8_t *buf, size_t len, uint64_t file_bytes, sm_error *err)
{
    return (struct in){
        .p = buf, .len = len, .cut = len >= file_bytes, .next = "the RAM", .err = err};
}

static size_t left(const struct in *in)
{
    return in->len - in->at;
}

/* The next `n` bytes are there, or a sentence that names the field. */
static int need(const struct in *in, uint64_t n, const char *field)
{
    if (n <= left(in))
        return 0;
    if (in->cut)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is truncated: it ends inside of %s (offset %zu)", field, in->at);
    return sm_error_set(in->err, SM_ECORRUPT,
        "the snapshot is malformed: %s (offset %zu) would reach into %s", field, in->at, in->next);
}

static const uint8_t *take(struct in *in, size_t n)
{
    const uint8_t *p = in->p + in->at;
    in->at += n;
    return p;
}

static int get32(struct in *in, const char *field, uint32_t *v)
{
    int rc = need(in, 4, field);
    if (!rc)
        *v = sm_load_le32(take(in, 4));
    return rc;
}

static int get64(struct in *in, const char *field, uint64_t *v)
{
    int rc = need(in, 8, field);
    if (!rc)
        *v = sm_load_le64(take(in, 8));
    return rc;
}

/* A count: at most `max`, and `each` bytes per element are there. */
static int get_count(struct in *in, const char *field, uint32_t max, size_t each, uint32_t *v)
{
    int rc = get32(in, field, v);
    if (rc)
        return rc;
    if (*v > max)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: %s is %" PRIu32 ", more than %" PRIu32, field, *v, max);
    return need(in, (uint64_t)*v * each, field);
}

static int no_memory(struct in *in)
{
    return sm_error_set(in->err, SM_ENOMEM, "no memory to read the snapshot");
}

/* ---- header -------------------------------------------------------------------------------- */

struct header {
    uint64_t host_ns, guest_clock, memory_bytes, irqchip_bytes, ram_gpa, ram_offset;
    uint32_t n_vcpus, arch;
};

static int get_header(struct in *in, struct header *h)
{
    uint64_t version = 0;
    int rc = need(in, 8, "the magic");
    if (rc)
        return rc;
    if (memcmp(take(in, 8), SM_SNAPSHOT_MAGIC, 8))
        return sm_error_set(in->err, SM_ECORRUPT, "this is not a snapshot: wrong magic");
    if ((rc = get64(in, "version", &version)))
        return rc;
    if (version != SM_SNAPSHOT_VERSION)
        return sm_error_set(in->err, SM_EUNSUPPORTED,
            "the snapshot has format version %" PRIu64 ", this program reads version %d", version,
            SM_SNAPSHOT_VERSION);
    if ((rc = get64(in, "host time", &h->host_ns)) ||
        (rc = get64(in, "guest clock", &h->guest_clock)) ||
        (rc = get64(in, "memory_bytes", &h->memory_bytes)) ||
        (rc = get64(in, "gic_blob_len", &h->irqchip_bytes)) ||
        (rc = get32(in, "n_vcpus", &h->n_vcpus)) || (rc = get32(in, "reserved", &h->arch)) ||
        (rc = get64(in, "ram_gpa", &h->ram_gpa)) || (rc = get64(in, "ram_offset", &h->ram_offset)))
        return rc;
    if (h->n_vcpus == 0)
        return sm_error_set(
            in->err, SM_ECORRUPT, "the snapshot is malformed: snapshot contains no vCPU state");
    if (h->n_vcpus > SM_SNAPSHOT_MAX_VCPUS)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: n_vcpus is %" PRIu32 ", more than %u", h->n_vcpus,
            SM_SNAPSHOT_MAX_VCPUS);
    if (h->ram_offset % SM_SNAPSHOT_RAM_ALIGN)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: ram_offset %" PRIu64 " is not a multiple of %u",
            h->ram_offset, SM_SNAPSHOT_RAM_ALIGN);
    if (h->ram_offset < SM_SNAPSHOT_HEADER_BYTES || h->ram_offset > SM_SNAPSHOT_MAX_META)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: ram_offset %" PRIu64
            " is not past the metadata or too large",
            h->ram_offset);
    if (h->memory_bytes == 0 || h->memory_bytes % SM_SNAPSHOT_PAGE ||
        h->memory_bytes > SM_SNAPSHOT_MAX_RAM || h->ram_gpa + h->memory_bytes < h->ram_gpa)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: %" PRIu64 " bytes of RAM at %#" PRIx64 " cannot be",
            h->memory_bytes, h->ram_gpa);
    return 0;
}

int sm_snapshot_decode_header(
    const uint8_t *buf, size_t len, uint64_t file_bytes, uint64_t *ram_offset, sm_error *err)
{
    struct in in = in_file(buf, len, file_bytes, err);
    struct header h = {0};
    int rc = get_header(&in, &h);
    if (!rc)
        *ram_offset = h.ram_offset;
    return rc;
}

/* ---- v8 sections --------------------------------------------------------------------------- */

static int get_regs(struct in *in, const char *field, uint32_t n, struct sm_reg_list *list)
{
    int rc = need(in, (uint64_t)n * SM_FMT_REG, field);
    if (rc || (rc = sm_reg_list_reserve(list, n, in->err)))
        return rc;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p = take(in, SM_FMT_REG);
        list->v[i] = (struct sm_reg){.id = sm_load_le32(p), .value = sm_load_le64(p + 4)};
    }
    list->n = n;
    return 0;
}

static int get_simd(struct in *in, uint32_t n, struct sm_reg128_list *list)
{
    int rc = need(in, (uint64_t)n * SM_FMT_REG128, "the simd registers");
    if (rc || (rc = sm_reg128_list_reserve(list, n, in->err)))
        return rc;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p = take(in, SM_FMT_REG128);
        list->v[i] = (struct sm_reg128){
            .id = sm_load_le32(p), .lo = sm_load_le64(p + 4), .hi = sm_load_le64(p + 12)};
    }
    list->n = n;
    return 0;
}

static int get_vcpu(struct in *in, struct sm_vcpu_state *v)
{
    uint32_t gp, simd, sys, icc, redist;
    int rc;
    if ((rc = get64(in, "vtimer_offset", &v->vtimer_offset)) ||
        (rc = get_count(in, "the number of gp registers", SM_VCPU_MAX_GP, SM_FMT_REG, &gp)) ||
        (rc = get_count(
             in, "the number of simd registers", SM_VCPU_MAX_SIMD, SM_FMT_REG128, &simd)) ||
        (rc = get_count(in, "the number of sys registers", SM_VCPU_MAX_SYS, SM_FMT_REG, &sys)) ||
        (rc = get_count(in, "the number of icc registers", SM_VCPU_MAX_ICC, SM_FMT_REG, &icc)) ||
        (rc = get_count(
             in, "the number of redist registers", SM_VCPU_MAX_REDIST, SM_FMT_REG, &redist)))
        return rc;
    if ((rc = get_regs(in, "the gp registers", gp, &v->gp)) ||
        (rc = get_simd(in, simd, &v->simd)) ||
        (rc = get_regs(in, "the sys registers", sys, &v->sys)) ||
        (rc = get_regs(in, "the icc registers", icc, &v->icc)) ||
        (rc = get_regs(in, "the redist registers", redist, &v->redist)))
        return rc;
    return 0;
}

static int get_vcpus(struct in *in, struct sm_snapshot *s, uint32_t n)
{
    int rc = need(in, (uint64_t)n * SM_FMT_VCPU, "the vCPUs");
    if (rc)
        return rc;
    s->vcpus = calloc(n, sizeof(*s->vcpus));
    if (!s->vcpus)
        return no_memory(in);
    s->n_vcpus = n;
    for (uint32_t i = 0; i < n; i++)
        if ((rc = get_vcpu(in, &s->vcpus[i])))
            return sm_error_prefix(in->err, rc, "vCPU %" PRIu32, i);
    return 0;
}

static int get_queue(struct in *in, struct sm_virtq_state *q)
{
    int rc = need(in, SM_FMT_QUEUE, "a queue");
    if (rc)
        return rc;
    const uint8_t *p = take(in, SM_FMT_QUEUE);
    *q = (struct sm_virtq_state){
        .size = sm_load_le16(p),
        .ready = p[2],
        .desc = sm_load_le64(p + 4),
        .avail = sm_load_le64(p + 12),
        .used = sm_load_le64(p + 20),
        .last_avail_idx = sm_load_le16(p + 28),
        .next_used_idx = sm_load_le16(p + 30),
    };
    if (q->ready > 1)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: a queue's ready byte is %u", q->ready);
    return 0;
}

static int get_device(struct in *in, struct sm_virtio_state *d)
{
    int rc;
    if ((rc = get32(in, "driver_features", &d->driver_features[0])) ||
        (rc = get32(in, "driver_features", &d->driver_features[1])) ||
        (rc = get32(in, "status", &d->status)) ||
        (rc = get32(in, "interrupt_status", &d->interrupt_status)) ||
        (rc = get_count(in, "n_queues", SM_VIRTIO_MAX_QUEUES, SM_FMT_QUEUE, &d->n_queues)))
        return rc;
    for (uint32_t i = 0; i < d->n_queues; i++)
        if ((rc = get_queue(in, &d->queues[i])))
            return rc;
    return 0;
}

static int get_devices(struct in *in, struct sm_snapshot *s)
{
    uint32_t n;
    int rc = get_count(in, "n_mmio", SM_SNAPSHOT_MAX_DEVICES, SM_FMT_DEVICE, &n);
    if (rc || n == 0)
        return rc;
    s->devices = calloc(n, sizeof(*s->devices));
    if (!s->devices)
        return no_memory(in);
    s->n_devices = n;
    for (uint32_t i = 0; i < n; i++)
        if ((rc = get_device(in, &s->devices[i].state)))
            return sm_error_prefix(in->err, rc, "device %" PRIu32, i);
    return 0;
}

static int get_listeners(struct in *in, struct sm_snapshot *s)
{
    uint32_t n;
    int rc = get_count(in, "n_listeners", SM_SNAPSHOT_MAX_LISTENERS, SM_FMT_LISTENER, &n);
    if (rc || n == 0)
        return rc;
    s->listeners = calloc(n, sizeof(*s->listeners));
    if (!s->listeners)
        return no_memory(in);
    s->n_listeners = n;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p = take(in, SM_FMT_LISTENER);
        s->listeners[i] = (struct sm_snapshot_listener){
            .cid = sm_load_le64(p),
            .peer_port = sm_load_le32(p + 8),
            .vm_port = sm_load_le32(p + 12),
            .family = sm_load_le16(p + 16),
            .socktype = sm_load_le16(p + 18),
        };
    }
    return 0;
}

/* ---- extension blocks ---------------------------------------------------------------------- */

static int get_build(struct in *in, struct sm_snapshot *s)
{
    int rc = need(in, sizeof(s->build), "the build ids");
    if (rc)
        return rc;
    memcpy(s->build.kernel, take(in, SM_SNAPSHOT_ID_BYTES), SM_SNAPSHOT_ID_BYTES);
    memcpy(s->build.agent, take(in, SM_SNAPSHOT_ID_BYTES), SM_SNAPSHOT_ID_BYTES);
    memcpy(s->build.vmm, take(in, SM_SNAPSHOT_ID_BYTES), SM_SNAPSHOT_ID_BYTES);
    memcpy(s->build.rootfs, take(in, SM_SNAPSHOT_ID_BYTES), SM_SNAPSHOT_ID_BYTES);
    return 0;
}

static int get_cpu(struct in *in, struct sm_snapshot *s)
{
    uint32_t n, pad;
    int rc = need(in, SM_SNAPSHOT_ID_BYTES, "the CPU digest");
    if (rc)
        return rc;
    memcpy(s->cpu_digest, take(in, SM_SNAPSHOT_ID_BYTES), SM_SNAPSHOT_ID_BYTES);
    if ((rc = get_count(
             in, "the number of CPU words", SM_SNAPSHOT_MAX_CPU_WORDS, SM_FMT_CPU_WORD, &n)) ||
        (rc = get32(in, "the CPU words", &pad)) ||
        (rc = need(in, (uint64_t)n * SM_FMT_CPU_WORD, "the CPU words")) || n == 0)
        return rc;
    s->cpu_words = calloc(n, sizeof(*s->cpu_words));
    if (!s->cpu_words)
        return no_memory(in);
    s->n_cpu_words = n;
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *p = take(in, SM_FMT_CPU_WORD);
        s->cpu_words[i] = (struct sm_snapshot_cpu_word){
            .id = sm_load_le32(p), .sub = sm_load_le32(p + 4), .value = sm_load_le64(p + 8)};
    }
    return 0;
}

static int get_region(struct in *in, const struct sm_snapshot *s, struct sm_snapshot_region *r)
{
    int rc = need(in, SM_FMT_REGION, "a memory region");
    if (rc)
        return rc;
    const uint8_t *p = take(in, SM_FMT_REGION);
    *r = (struct sm_snapshot_region){
        .gpa = sm_load_le64(p), .size = sm_load_le64(p + 8), .offset = sm_load_le64(p + 16)};
    if (r->size == 0 || r->offset > s->memory_bytes || r->size > s->memory_bytes - r->offset ||
        r->gpa + r->size < r->gpa)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: the memory region at %#" PRIx64 " is not inside of the RAM",
            r->gpa);
    return 0;
}

static int get_machine(struct in *in, struct sm_snapshot *s)
{
    uint32_t n_devices;
    int rc;
    if ((rc = get32(in, "the number of memory regions", &s->n_regions)) ||
        (rc = get32(in, "the number of devices", &n_devices)))
        return rc;
    if (s->n_regions > SM_SNAPSHOT_MAX_REGIONS || n_devices != s->n_devices) {
        s->n_regions = 0;
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: its machine block does not fit its %" PRIu32 " devices",
            s->n_devices);
    }
    for (uint32_t i = 0; i < s->n_regions; i++)
        if ((rc = get_region(in, s, &s->regions[i])))
            return rc;
    if ((rc = need(in, (uint64_t)n_devices * SM_FMT_DEVICE_SHAPE, "the device shapes")))
        return rc;
    for (uint32_t i = 0; i < n_devices; i++) {
        struct sm_snapshot_device *d = &s->devices[i];
        const uint8_t *p = take(in, SM_FMT_DEVICE_SHAPE);
        d->virtio_id = sm_load_le32(p);
        d->irq = sm_load_le32(p + 4);
        d->window = sm_load_le64(p + 8);
        d->features = sm_load_le64(p + 16);
        d->config[0] = sm_load_le64(p + 24);
        d->config[1] = sm_load_le64(p + 32);
        for (unsigned k = 0; k < SM_VIRTIO_EXTRA; k++)
            d->state.extra[k] = sm_load_le64(p + 40 + 8 * (size_t)k);
    }
    return 0;
}

static int bad_role(struct in *in, uint32_t device, const char *what)
{
    return sm_error_set(in->err, SM_ECORRUPT,
        "the snapshot is malformed: the role of device %" PRIu32 " %s", device, what);
}

/* Each a text, and no two the same but those that say nothing. */
static int get_roles(struct in *in, struct sm_snapshot *s)
{
    int rc = need(in, (uint64_t)s->n_devices * SM_SNAPSHOT_ROLE_BYTES, "the devices' roles");
    if (rc)
        return rc;
    for (uint32_t i = 0; i < s->n_devices; i++) {
        char *role = s->devices[i].role;
        memcpy(role, take(in, SM_SNAPSHOT_ROLE_BYTES), SM_SNAPSHOT_ROLE_BYTES);
        if (!sm_snapshot_role_is_text(role))
            return bad_role(in, i, "is not a text");
        if (sm_snapshot_role_is_taken(s, i))
            return bad_role(in, i, "is that of another one, too");
    }
    return 0;
}

static int get_note(struct in *in, struct sm_snapshot *s)
{
    size_t n = left(in);
    if (n > SM_SNAPSHOT_MAX_NOTE || memchr(in->p + in->at, 0, n))
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: its note is not a text of at most %u bytes",
            SM_SNAPSHOT_MAX_NOTE);
    s->note = strndup((const char *)take(in, n), n);
    return s->note ? 0 : no_memory(in);
}

static int get_ram_sums(struct in *in, struct sm_snapshot *s)
{
    uint32_t chunk, n;
    int rc;
    if ((rc = get32(in, "the RAM checksums", &chunk)) || (rc = get32(in, "the RAM checksums", &n)))
        return rc;
    if (chunk != SM_SNAPSHOT_CHUNK || n != sm_snapshot_chunks(s->memory_bytes))
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: %" PRIu32 " RAM checksums of %" PRIu32
            "-byte chunks do not fit its RAM",
            n, chunk);
    if ((rc = need(in, (uint64_t)n * 4, "the RAM checksums")))
        return rc;
    s->ram_sums = malloc((size_t)n * sizeof(*s->ram_sums));
    if (!s->ram_sums)
        return no_memory(in);
    s->n_ram_sums = n;
    for (uint32_t i = 0; i < n; i++)
        s->ram_sums[i] = sm_load_le32(take(in, 4));
    return 0;
}

static int get_checksum(struct in *in, const struct in *file, struct sm_snapshot *s)
{
    static const uint8_t zeros[4];
    uint32_t want;
    int rc = get32(in, "the checksum", &want);
    if (rc)
        return rc;
    if (file->cut)
        return need(file, left(file) + 1, "the padding");
    size_t at = in->at - 4;
    uint32_t sum = sm_crc32c(0, file->p, at);
    sum = sm_crc32c(sum, zeros, sizeof(zeros));
    sum = sm_crc32c(sum, file->p + in->at, file->len - in->at);
    if (sum != want)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is damaged: its metadata has checksum %08" PRIx32 " and not %08" PRIx32,
            sum, want);
    in->at += 4;
    s->checked = true;
    return 0;
}

static int get_block(struct in *block, const struct in *file, unsigned type, struct sm_snapshot *s)
{
    switch (type) {
    case SM_BLOCK_BUILD:
        return get_build(block, s);
    case SM_BLOCK_CPU:
        return get_cpu(block, s);
    case SM_BLOCK_MACHINE:
        return get_machine(block, s);
    case SM_BLOCK_NOTE:
        return get_note(block, s);
    case SM_BLOCK_RAM_SUMS:
        return get_ram_sums(block, s);
    case SM_BLOCK_CHECKSUM:
        return get_checksum(block, file, s);
    case SM_BLOCK_ROLES:
        return get_roles(block, s);
    default: /* not ours to know */
        block->at = block->len;
        return 0;
    }
}

static bool all_zero(const uint8_t *p, size_t n)
{
    return n == 0 || (p[0] == 0 && memcmp(p, p + 1, n - 1) == 0);
}

/* A file with an architecture tag has blocks, and after them zeros, up to its RAM. */
static int get_blocks(struct in *in, struct sm_snapshot *s)
{
    uint32_t seen = 0;
    in->at = SM_MIN(sm_align_up(in->at, SM_FMT_BLOCK_ALIGN), in->len);
    while (left(in) >= SM_FMT_BLOCK && sm_load_le32(in->p + in->at) == SM_BLOCK_MAGIC) {
        const uint8_t *p = take(in, SM_FMT_BLOCK);
        unsigned type = sm_load_le16(p + 4);
        uint32_t bytes = sm_load_le32(p + 8);
        int rc = need(in, sm_align_up(bytes, SM_FMT_BLOCK_ALIGN), "an extension block");
        if (rc)
            return rc;
        struct in block = {.p = in->p,
            .at = in->at,
            .len = in->at + bytes,
            .next = "the next extension block",
            .err = in->err};
        take(in, sm_align_up(bytes, SM_FMT_BLOCK_ALIGN));
        if (sm_load_le16(p + 6) != SM_BLOCK_VERSION || type > SM_BLOCK_LAST)
            continue;
        if (seen & 1u << type)
            return sm_error_set(in->err, SM_ECORRUPT,
                "the snapshot is malformed: extension block %u is there twice", type);
        seen |= 1u << type;
        if ((rc = get_block(&block, in, type, s)))
            return rc;
        if (block.at != block.len)
            return sm_error_set(in->err, SM_ECORRUPT,
                "the snapshot is malformed: extension block %u is longer than what it holds", type);
    }
    if (in->cut)
        return need(in, left(in) + 1, "the padding");
    if (!all_zero(in->p + in->at, left(in)))
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: neither an extension block nor zeros at offset %zu",
            in->at);
    if (!s->checked)
        return sm_error_set(in->err, SM_ECORRUPT,
            "the snapshot is malformed: it has an architecture tag but no metadata checksum");
    return 0;
}

int sm_snapshot_decode(
    const uint8_t *buf, size_t len, uint64_t file_bytes, struct sm_snapshot **out, sm_error *err)
{
    struct in in = in_file(buf, len, file_bytes, err);
    struct header h = {0};
    int rc = get_header(&in, &h);
    if (rc)
        return rc;
    if (len > h.ram_offset) {
        in.len = h.ram_offset;
        in.cut = false;
    }

    auto_snapshot s = calloc(1, sizeof(*s));
    if (!s)
        return no_memory(&in);
    s->captured_host_ns = h.host_ns;
    s->captured_guest_clock = h.guest_clock;
    s->memory_bytes = h.memory_bytes;
    s->ram_gpa = h.ram_gpa;
    s->ram_offset = h.ram_offset;
    s->arch = h.arch;

    if (h.irqchip_bytes > SM_SNAPSHOT_MAX_IRQCHIP)
        return sm_error_set(err, SM_ECORRUPT,
            "the snapshot is malformed: gic_blob_len is %" PRIu64 ", more than %u", h.irqchip_bytes,
            SM_SNAPSHOT_MAX_IRQCHIP);
    if ((rc = need(&in, h.irqchip_bytes, "the interrupt-controller blob")))
        return rc;
    if (h.irqchip_bytes) {
        s->irqchip = malloc(h.irqchip_bytes);
        if (!s->irqchip)
            return no_memory(&in);
        s->irqchip_bytes = h.irqchip_bytes;
        memcpy(s->irqchip, take(&in, h.irqchip_bytes), h.irqchip_bytes);
    }
    if ((rc = get_vcpus(&in, s, h.n_vcpus)) || (rc = get_devices(&in, s)) ||
        (rc = get_listeners(&in, s)))
        return rc;
    if (s->arch != SM_ARCH_UNMARKED && (rc = get_blocks(&in, s)))
        return rc;
    if (h.ram_offset > file_bytes || h.memory_bytes > file_bytes - h.ram_offset)
        return sm_error_set(err, SM_ECORRUPT,
            "the snapshot is truncated: it ends inside of its RAM, at %" PRIu64 " of %" PRIu64
            " bytes",
            file_bytes, h.ram_offset + h.memory_bytes);
    *out = sm_steal_ptr(&s);
    return 0;
}
