/* A snapshot file as something to look at. See describe.h. */
#include "snapshot/describe.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/text.h"

/* Out of memory shows as a NULL, which json_pack passes on; these two do, too: what cannot hold all
 * of its values is none. */
static void append(json_t **array, json_t *value)
{
    if (json_array_append_new(*array, value)) {
        json_decref(*array);
        *array = NULL;
    }
}

static void put(json_t **object, const char *key, json_t *value)
{
    if (json_object_set_new(*object, key, value)) {
        json_decref(*object);
        *object = NULL;
    }
}

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
        append(&array, json_pack("[o, o]", hex(list->v[i].id), hex(list->v[i].value)));
    return array;
}

static json_t *wide_registers(const struct sm_reg128_list *list)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < list->n; i++)
        append(&array, json_pack("[o, o]", hex(list->v[i].id),
                           json_sprintf("0x%016llx%016llx", (unsigned long long)list->v[i].hi,
                               (unsigned long long)list->v[i].lo)));
    return array;
}

static json_t *vcpus(const struct sm_snapshot *s)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < s->n_vcpus; i++) {
        const struct sm_vcpu_state *v = &s->vcpus[i];
        append(&array,
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
        append(&array,
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
        append(&array,
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
        append(&array, json_pack("{s:o, s:o, s:o, s:i, s:i}", "cid", hex(l->cid), "peer_port",
                           number(l->peer_port), "vm_port", number(l->vm_port), "family", l->family,
                           "socktype", l->socktype));
    }
    return array;
}

static json_t *regions(const struct sm_snapshot *s)
{
    json_t *array = json_array();
    for (uint32_t i = 0; i < s->n_regions; i++)
        append(&array, json_pack("{s:o, s:o, s:o}", "gpa", hex(s->regions[i].gpa), "bytes",
                           number(s->regions[i].size), "offset", hex(s->regions[i].offset)));
    return array;
}

/* A file may say anything. */
static json_t *note(const struct sm_snapshot *s)
{
    auto_free char *text = s->note ? strdup(s->note) : NULL;
    if (!text)
        return s->note ? NULL : json_null();
    sm_text_clean(text, true);
    return json_string(text);
}

static json_t *describe(const struct sm_snapshot *s, const struct stat *st)
{
    json_t *root = json_pack("{s:i, s:s, s:o, s:o, s:o, s:o, s:o, s:o, s:o, s:o}", "version",
        SM_SNAPSHOT_VERSION, "architecture", sm_snapshot_arch_name(s->arch), "file_bytes",
        number((uint64_t)st->st_size), "disk_bytes", number((uint64_t)st->st_blocks * 512),
        "memory_bytes", number(s->memory_bytes), "ram_gpa", hex(s->ram_gpa), "ram_offset",
        number(s->ram_offset), "captured_host_ns", hex(s->captured_host_ns), "captured_guest_clock",
        hex(s->captured_guest_clock), "interrupt_controller_bytes", number(s->irqchip_bytes));
    put(&root, "vcpus", vcpus(s));
    put(&root, "devices", devices(s));
    put(&root, "listeners", listeners(s));
    if (s->arch == SM_ARCH_UNMARKED)
        return root;
    put(&root, "build",
        json_pack("{s:o, s:o, s:o, s:o}", "kernel", id(s->build.kernel), "agent",
            id(s->build.agent), "vmm", id(s->build.vmm), "rootfs", id(s->build.rootfs)));
    put(&root, "cpu_digest", id(s->cpu_digest));
    put(&root, "regions", regions(s));
    put(&root, "note", note(s));
    put(&root, "metadata_checksum", json_boolean(s->checked));
    put(&root, "ram_checksums", number(s->n_ram_sums));
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
