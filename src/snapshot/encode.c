/* Snapshot -> bytes. See codec.h. */
#include <stdlib.h>

#include "snapshot/codec.h"
#include "util/crc32c.h"
#include "snapshot/format.h"
#include "util/bytes.h"
#include "util/error.h"

/* Bytes that grow; once memory is refused everything else is dropped and the end notices. */
struct out {
    uint8_t *p;
    size_t n, room;
    bool refused;
};

static uint8_t *put(struct out *o, size_t n)
{
    if (o->refused)
        return NULL;
    if (o->room - o->n < n) {
        size_t room = SM_MAX(o->room * 2, sm_align_up(o->n + n, SM_SNAPSHOT_RAM_ALIGN));
        uint8_t *p = realloc(o->p, room);
        if (!p) {
            o->refused = true;
            return NULL;
        }
        o->p = p;
        o->room = room;
    }
    uint8_t *at = o->p + o->n;
    o->n += n;
    return at;
}

static void put_bytes(struct out *o, const void *p, size_t n)
{
    uint8_t *at = put(o, n);
    if (at && n)
        memcpy(at, p, n);
}

static void put_zeros(struct out *o, size_t n)
{
    uint8_t *at = put(o, n);
    if (at)
        memset(at, 0, n);
}

static void put16(struct out *o, uint16_t v)
{
    uint8_t *at = put(o, 2);
    if (at)
        sm_store_le16(at, v);
}

static void put32(struct out *o, uint32_t v)
{
    uint8_t *at = put(o, 4);
    if (at)
        sm_store_le32(at, v);
}

static void put64(struct out *o, uint64_t v)
{
    uint8_t *at = put(o, 8);
    if (at)
        sm_store_le64(at, v);
}

/* What no reader would take, no writer may write. */
static int check(const struct sm_snapshot *s, sm_error *err)
{
    if (s->n_vcpus == 0 || s->n_vcpus > SM_SNAPSHOT_MAX_VCPUS)
        return sm_error_set(err, SM_EINVAL, "a snapshot holds 1 to %u vCPUs, not %u",
            SM_SNAPSHOT_MAX_VCPUS, s->n_vcpus);
    if (s->memory_bytes == 0 || s->memory_bytes % SM_SNAPSHOT_PAGE ||
        s->memory_bytes > SM_SNAPSHOT_MAX_RAM || s->ram_gpa + s->memory_bytes < s->ram_gpa)
        return sm_error_set(err, SM_EINVAL, "a snapshot cannot hold %llu bytes of RAM at %#llx",
            (unsigned long long)s->memory_bytes, (unsigned long long)s->ram_gpa);
    if (s->irqchip_bytes > SM_SNAPSHOT_MAX_IRQCHIP || s->n_devices > SM_SNAPSHOT_MAX_DEVICES ||
        s->n_listeners > SM_SNAPSHOT_MAX_LISTENERS || s->n_regions > SM_SNAPSHOT_MAX_REGIONS ||
        s->n_cpu_words > SM_SNAPSHOT_MAX_CPU_WORDS ||
        (s->note && strlen(s->note) > SM_SNAPSHOT_MAX_NOTE))
        return sm_error_set(err, SM_ELIMIT,
            "the machine's state is too large for a snapshot: "
            "%zu bytes of interrupt controllers, %u devices, %u listeners",
            s->irqchip_bytes, s->n_devices, s->n_listeners);
    for (uint32_t i = 0; i < s->n_vcpus; i++) {
        const struct sm_vcpu_state *v = &s->vcpus[i];
        if (v->gp.n > SM_VCPU_MAX_GP || v->simd.n > SM_VCPU_MAX_SIMD ||
            v->sys.n > SM_VCPU_MAX_SYS || v->icc.n > SM_VCPU_MAX_ICC ||
            v->redist.n > SM_VCPU_MAX_REDIST)
            return sm_error_set(
                err, SM_ELIMIT, "vCPU %u has more registers than a snapshot can hold", i);
    }
    for (uint32_t i = 0; i < s->n_devices; i++) {
        if (s->devices[i].state.n_queues > SM_VIRTIO_MAX_QUEUES)
            return sm_error_set(
                err, SM_ELIMIT, "device %u has more than %d queues", i, SM_VIRTIO_MAX_QUEUES);
        if (!sm_snapshot_role_is_text(s->devices[i].role) || sm_snapshot_role_is_taken(s, i))
            return sm_error_set(
                err, SM_EINVAL, "the role of device %u is no text, or that of another one", i);
    }
    if (s->ram_sums && s->n_ram_sums != sm_snapshot_chunks(s->memory_bytes))
        return sm_error_set(err, SM_EINVAL, "%u RAM checksums do not fit %llu bytes of RAM",
            s->n_ram_sums, (unsigned long long)s->memory_bytes);
    return 0;
}

static void put_regs(struct out *o, const struct sm_reg_list *list)
{
    for (uint32_t i = 0; i < list->n; i++) {
        put32(o, list->v[i].id);
        put64(o, list->v[i].value);
    }
}

static void put_vcpu(struct out *o, const struct sm_vcpu_state *v)
{
    put64(o, v->vtimer_offset);
    put32(o, v->gp.n);
    put32(o, v->simd.n);
    put32(o, v->sys.n);
    put32(o, v->icc.n);
    put32(o, v->redist.n);
    put_regs(o, &v->gp);
    for (uint32_t i = 0; i < v->simd.n; i++) {
        put32(o, v->simd.v[i].id);
        put64(o, v->simd.v[i].lo);
        put64(o, v->simd.v[i].hi);
    }
    put_regs(o, &v->sys);
    put_regs(o, &v->icc);
    put_regs(o, &v->redist);
}

static void put_device(struct out *o, const struct sm_virtio_state *d)
{
    put32(o, d->driver_features[0]);
    put32(o, d->driver_features[1]);
    put32(o, d->status);
    put32(o, d->interrupt_status);
    put32(o, d->n_queues);
    for (uint32_t i = 0; i < d->n_queues; i++) {
        const struct sm_virtq_state *q = &d->queues[i];
        put16(o, q->size);
        put_bytes(o, &q->ready, 1);
        put_zeros(o, 1);
        put64(o, q->desc);
        put64(o, q->avail);
        put64(o, q->used);
        put16(o, q->last_avail_idx);
        put16(o, q->next_used_idx);
    }
}

/* ---- extension blocks ---------------------------------------------------------------------- */

static void put_block(struct out *o, enum sm_block_type type, size_t bytes)
{
    put32(o, SM_BLOCK_MAGIC);
    put16(o, (uint16_t)type);
    put16(o, SM_BLOCK_VERSION);
    put32(o, (uint32_t)bytes);
    put32(o, 0);
}

static void end_block(struct out *o)
{
    put_zeros(o, sm_align_up(o->n, SM_FMT_BLOCK_ALIGN) - o->n);
}

static void put_cpu(struct out *o, const struct sm_snapshot *s)
{
    put_block(o, SM_BLOCK_CPU, SM_SNAPSHOT_ID_BYTES + 8 + (size_t)s->n_cpu_words * SM_FMT_CPU_WORD);
    put_bytes(o, s->cpu_digest, SM_SNAPSHOT_ID_BYTES);
    put32(o, s->n_cpu_words);
    put32(o, 0);
    for (uint32_t i = 0; i < s->n_cpu_words; i++) {
        put32(o, s->cpu_words[i].id);
        put32(o, s->cpu_words[i].sub);
        put64(o, s->cpu_words[i].value);
    }
}

static void put_machine(struct out *o, const struct sm_snapshot *s)
{
    put_block(o, SM_BLOCK_MACHINE,
        8 + (size_t)s->n_regions * SM_FMT_REGION + (size_t)s->n_devices * SM_FMT_DEVICE_SHAPE);
    put32(o, s->n_regions);
    put32(o, s->n_devices);
    for (uint32_t i = 0; i < s->n_regions; i++) {
        put64(o, s->regions[i].gpa);
        put64(o, s->regions[i].size);
        put64(o, s->regions[i].offset);
    }
    for (uint32_t i = 0; i < s->n_devices; i++) {
        const struct sm_snapshot_device *d = &s->devices[i];
        put32(o, d->virtio_id);
        put32(o, d->irq);
        put64(o, d->window);
        put64(o, d->features);
        put64(o, d->config[0]);
        put64(o, d->config[1]);
        for (unsigned k = 0; k < SM_VIRTIO_EXTRA; k++)
            put64(o, d->state.extra[k]);
    }
}

static void put_roles(struct out *o, const struct sm_snapshot *s)
{
    bool said = false;
    for (uint32_t i = 0; i < s->n_devices; i++)
        said |= s->devices[i].role[0] != '\0';
    if (!said)
        return;
    put_block(o, SM_BLOCK_ROLES, (size_t)s->n_devices * SM_SNAPSHOT_ROLE_BYTES);
    for (uint32_t i = 0; i < s->n_devices; i++) {
        size_t n = strnlen(s->devices[i].role, SM_SNAPSHOT_ROLE_BYTES - 1);
        put_bytes(o, s->devices[i].role, n);
        put_zeros(o, SM_SNAPSHOT_ROLE_BYTES - n);
    }
}

/* Returns where the checksum's value belongs. */
static size_t put_blocks(struct out *o, const struct sm_snapshot *s)
{
    end_block(o);
    put_block(o, SM_BLOCK_BUILD, sizeof(s->build));
    put_bytes(o, s->build.kernel, SM_SNAPSHOT_ID_BYTES);
    put_bytes(o, s->build.agent, SM_SNAPSHOT_ID_BYTES);
    put_bytes(o, s->build.vmm, SM_SNAPSHOT_ID_BYTES);
    put_bytes(o, s->build.rootfs, SM_SNAPSHOT_ID_BYTES);
    put_cpu(o, s);
    put_machine(o, s);
    put_roles(o, s);
    if (s->note) {
        put_block(o, SM_BLOCK_NOTE, strlen(s->note));
        put_bytes(o, s->note, strlen(s->note));
        end_block(o);
    }
    if (s->ram_sums) {
        put_block(o, SM_BLOCK_RAM_SUMS, 8 + (size_t)s->n_ram_sums * 4);
        put32(o, SM_SNAPSHOT_CHUNK);
        put32(o, s->n_ram_sums);
        for (uint32_t i = 0; i < s->n_ram_sums; i++)
            put32(o, s->ram_sums[i]);
        end_block(o);
    }
    put_block(o, SM_BLOCK_CHECKSUM, 8);
    size_t at = o->n;
    put64(o, 0);
    return at;
}

int sm_snapshot_encode(
    const struct sm_snapshot *s, uint64_t ram_offset, uint8_t **buf, uint64_t *bytes, sm_error *err)
{
    int rc = check(s, err);
    if (rc)
        return rc;

    struct out o = {0};
    put_bytes(&o, SM_SNAPSHOT_MAGIC, 8);
    put64(&o, SM_SNAPSHOT_VERSION);
    put64(&o, s->captured_host_ns);
    put64(&o, s->captured_guest_clock);
    put64(&o, s->memory_bytes);
    put64(&o, s->irqchip_bytes);
    put32(&o, s->n_vcpus);
    put32(&o, s->arch);
    put64(&o, s->ram_gpa);
    put64(&o, 0); /* ram_offset, when it is known */

    put_bytes(&o, s->irqchip, s->irqchip_bytes);
    for (uint32_t i = 0; i < s->n_vcpus; i++)
        put_vcpu(&o, &s->vcpus[i]);
    put32(&o, s->n_devices);
    for (uint32_t i = 0; i < s->n_devices; i++)
        put_device(&o, &s->devices[i].state);
    put32(&o, s->n_listeners);
    for (uint32_t i = 0; i < s->n_listeners; i++) {
        const struct sm_snapshot_listener *l = &s->listeners[i];
        put64(&o, l->cid);
        put32(&o, l->peer_port);
        put32(&o, l->vm_port);
        put16(&o, l->family);
        put16(&o, l->socktype);
    }
    size_t checksum_at = s->arch != SM_ARCH_UNMARKED ? put_blocks(&o, s) : 0;

    size_t used = o.n;
    uint64_t want = ram_offset ? ram_offset : sm_align_up(used, SM_SNAPSHOT_RAM_ALIGN);
    if (!o.refused &&
        (used > want || want > SM_SNAPSHOT_MAX_META || want % SM_SNAPSHOT_RAM_ALIGN)) {
        free(o.p);
        return sm_error_set(err, SM_EUNSUPPORTED,
            "the metadata of this snapshot (%zu bytes) does not fit before RAM at offset %llu",
            used, (unsigned long long)want);
    }
    if (!o.refused)
        put_zeros(&o, want - used);
    if (o.refused) {
        free(o.p);
        return sm_error_set(err, SM_ENOMEM, "no memory for the metadata of a snapshot");
    }
    sm_store_le64(o.p + 64, want);
    if (checksum_at)
        sm_store_le32(o.p + checksum_at, sm_crc32c(0, o.p, want));
    *buf = o.p;
    *bytes = want;
    return 0;
}
