/* A snapshot file as something to look at. See describe.h. */
#include "snapshot/describe.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/error.h"

/* Out of memory shows as a NULL that every jansson call passes on to the root. */

static json_t *hex(uint64_t value)
{
    return json_sprintf("0x%llx", (unsigned long long)value);
}

static json_t *number(uint64_t value)
{
    return json_integer((json_int_t)value);
}

/* A build id or digest; null where the file does not say. */
static json_t *id(const uint8_t bytes[SM_SNAPSHOT_ID_BYTES])
{
    char text[2 * SM_SNAPSHOT_ID_BYTES + 1];
    size_t used = 0;
    for (size_t i = 0; i < SM_SNAPSHOT_ID_BYTES; i++) {
        snprintf(text + 2 * i, 3, "%02x", bytes[i]);
        if (bytes[i])
            used = i + 1;
    }
    return used ? json_stringn(text, 2 * used) : json_null();
}

static json_t *registers(const struct sm_reg_list *list)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < list->n; i++)
        json_array_append_new(
            array, json_pack("[o, o]", hex(list->v[i].id), hex(list->v[i].value)));
    return array;
}

static json_t *wide_registers(const struct sm_reg128_list *list)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < list->n; i++)
        json_array_append_new(
            array, json_pack("[o, o]", hex(list->v[i].id),
                       json_sprintf("0x%016llx%016llx", (unsigned long long)list->v[i].hi,
                           (unsigned long long)list->v[i].lo)));
    return array;
}

static json_t *vcpus(const struct sm_snapshot *s)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < s->n_vcpus; i++) {
        const struct sm_vcpu_state *v = &s->vcpus[i];
        json_array_append_new(array,
            json_pack("{s:o, s:o, s:o, s:o, s:o, s:o}", "vtimer_offset", hex(v->vtimer_offset),
                "gp", registers(&v->gp), "simd", wide_registers(&v->simd), "sys",
                registers(&v->sys), "icc", registers(&v->icc), "redist", registers(&v->redist)));
    }
    return array;
}

static json_t *queues(const struct sm_virtio_state *state)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < state->n_queues && i < SM_VIRTIO_MAX_QUEUES; i++) {
        const struct sm_virtq_state *q = &state->queues[i];
        json_array_append_new(array,
            json_pack("{s:i, s:b, s:o, s:o, s:o, s:i, s:i}", "size", q->size, "ready",
                q->ready != 0, "desc", hex(q->desc), "avail", hex(q->avail), "used", hex(q->used),
                "last_avail_idx", q->last_avail_idx, "next_used_idx", q->next_used_idx));
    }
    return array;
}

static json_t *devices(const struct sm_snapshot *s)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < s->n_devices; i++) {
        const struct sm_snapshot_device *d = &s->devices[i];
        json_array_append_new(array,
            json_pack("{s:o, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "virtio_id",
                number(d->virtio_id), "role", d->role, "window", hex(d->window), "irq",
                number(d->irq), "features", hex(d->features), "driver_features",
                hex((uint64_t)d->state.driver_features[1] << 32 | d->state.driver_features[0]),
                "status", number(d->state.status), "interrupt_status",
                number(d->state.interrupt_status), "queues", queues(&d->state)));
    }
    return array;
}

static json_t *listeners(const struct sm_snapshot *s)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < s->n_listeners; i++) {
        const struct sm_snapshot_listener *l = &s->listeners[i];
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:o, s:i, s:i}", "cid", hex(l->cid), "peer_port",
                       number(l->peer_port), "vm_port", number(l->vm_port), "family", l->family,
                       "socktype", l->socktype));
    }
    return array;
}

static json_t *regions(const struct sm_snapshot *s)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < s->n_regions; i++)
        json_array_append_new(
            array, json_pack("{s:o, s:o, s:o}", "gpa", hex(s->regions[i].gpa), "bytes",
                       number(s->regions[i].size), "offset", hex(s->regions[i].offset)));
    return array;
}

static json_t *describe(const struct sm_snapshot *s, const struct stat *st)
{
    json_t *root = json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "version",
        SM_SNAPSHOT_VERSION, "architecture", sm_snapshot_arch_name(s->arch), "file_bytes",
        number((uint64_t)st->st_size), "disk_bytes", number((uint64_t)st->st_blocks * 512),
        "memory_bytes", number(s->memory_bytes), "ram_gpa", hex(s->ram_gpa), "ram_offset",
        number(s->ram_offset), "captured_host_ns", hex(s->captured_host_ns), "captured_guest_clock",
        hex(s->captured_guest_clock), "interrupt_controller_bytes", number(s->irqchip_bytes));
    json_object_set_new(root, "vcpus", vcpus(s));
    json_object_set_new(root, "devices", devices(s));
    json_object_set_new(root, "listeners", listeners(s));
    if (s->arch == SM_ARCH_UNMARKED)
        return root;
    json_object_set_new(root, "build",
        json_pack("{s:o, s:o, s:o, s:o}", "kernel", id(s->build.kernel), "agent",
            id(s->build.agent), "vmm", id(s->build.vmm), "rootfs", id(s->build.rootfs)));
    json_object_set_new(root, "cpu_digest", id(s->cpu_digest));
    json_object_set_new(root, "regions", regions(s));
    json_object_set_new(root, "note", s->note ? json_string(s->note) : json_null());
    json_object_set_new(root, "metadata_checksum", json_boolean(s->checked));
    json_object_set_new(root, "ram_checksums", number(s->n_ram_sums));
    return root;
}

int sm_snapshot_describe(
    int fd, const char *name, const struct sm_snapshot *snapshot, char **json, sm_error *err)
{
    struct stat st;
    if (fstat(fd, &st))
        return sm_error_errno(err, errno, "cannot look at '%s'", name);
    json_t *root = describe(snapshot, &st);
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_ENSURE_ASCII) : NULL;
    json_decref(root);
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "no memory to describe '%s'", name);
    *json = text;
    return 0;
}
