/*
 * sm_vm: the public face of a VM (src/vm). What a caller asks for in one structure is translated
 * here, once, into what is asked of whom; timeouts become waits.
 */
#include "vm/vm.h"

#include <stdio.h>

#include "net/addr.h"
#include "net/ports/ports.h"
#include "util/bytes.h"
#include "util/error.h"
#include "vm/bake.h"
#include "vm/capture.h"
#include "vm/files.h"
#include "vm/ports.h"
#include "vm/start.h"

#define STOP_TIMEOUT_MS 30000

/* ---- the configuration ----------------------------------------------------------------------- */

static const sm_vm_config default_config;

static struct sm_vm_shape shape_of(const sm_vm_config *c)
{
    return (struct sm_vm_shape){
        .memory_bytes = c->memory_bytes,
        .vcpus = c->vcpus,
        .kernel = c->kernel,
        .initramfs = c->initramfs,
        .cmdline = c->cmdline,
    };
}

static struct sm_vm_network_config network_of(const sm_vm_config *c)
{
    return (struct sm_vm_network_config){
        .plug = c->network,
        .egress = c->egress,
        .publish = c->publish,
        .publish_exposed = c->publish_exposed,
        .no_found_ports = c->no_found_ports,
        .door = c->socket,
        .dns = c->dns,
        .dns_search = c->dns_search,
        .dns_options = c->dns_options,
    };
}

static struct sm_vm_events events_of(const sm_vm_config *c)
{
    return (struct sm_vm_events){
        .progress = c->progress,
        .progress_arg = c->progress_arg,
        .notice = c->notice,
        .notice_arg = c->notice_arg,
        .ports = c->log_ports,
        .connections = c->log_connections,
    };
}

static int make_plan(struct sm_vm_plan *plan, const sm_vm_config *c, sm_error *err)
{
    if (c->cold && c->snapshot)
        return sm_error_set(
            err, SM_EINVAL, "a VM is either restored from '%s' or booted, not both", c->snapshot);
    *plan = (struct sm_vm_plan){
        .name = c->name,
        .hostname = c->hostname,
        .shape = shape_of(c),
        .network = network_of(c),
        .from = c->snapshot ? SM_FROM_FILE
                : c->cold   ? SM_FROM_BOOT
                            : SM_FROM_BAKED,
        .file = c->snapshot,
        .service = c->service,
        .command = c->command,
        .boot_timeout_ms = c->boot_timeout_ms,
        .count_instructions = c->count_instructions,
        .events = events_of(c),
    };
    if (plan->from != SM_FROM_FILE) /* which says it itself */
        sm_vm_shape_settle(&plan->shape);
    return 0;
}

int sm_vm_start(sm_image *image, const sm_vm_config *config, sm_vm **vm, sm_error *err)
{
    struct sm_vm_plan plan;
    int rc = make_plan(&plan, config ? config : &default_config, err);
    return rc ? rc : sm_vm_bring_up(image, &plan, vm, err);
}

int sm_image_bake(sm_image *image, const sm_vm_config *config, const sm_bake_options *options,
    bool *baked, sm_snapshot_stats *stats, sm_error *err)
{
    static const sm_bake_options default_options;
    const sm_vm_config *c = config ? config : &default_config;
    struct sm_bake_request request = {
        .shape = shape_of(c),
        .plug = c->network,
        .egress = c->egress,
        .boot_timeout_ms = c->boot_timeout_ms,
        .progress = c->progress,
        .progress_arg = c->progress_arg,
    };
    sm_vm_shape_settle(&request.shape);
    return sm_bake(image, &request, options ? options : &default_options, baked, stats, err);
}

/* ---- its life -------------------------------------------------------------------------------- */

int sm_vm_stop(sm_vm *vm, int timeout_ms, sm_error *err)
{
    (void)err;
    struct sm_wait wait = sm_wait_ms(timeout_ms < 0 ? STOP_TIMEOUT_MS : timeout_ms);
    sm_vm_power_off(vm, &wait);
    return 0;
}

int sm_vm_wait(sm_vm *vm, int timeout_ms, enum sm_vm_end *end, sm_error *err)
{
    struct sm_wait wait = sm_wait_ms(timeout_ms);
    sm_error why; /* told after an end, too, which here is no failure */
    int rc = sm_engine_wait(vm->engine, &wait, end, &why);
    if (rc && err)
        *err = why;
    return rc;
}

void sm_vm_close(sm_vm *vm)
{
    sm_vm_free(vm);
}

int sm_vm_pause(sm_vm *vm, sm_error *err)
{
    return sm_vm_halt(vm, err);
}

int sm_vm_resume(sm_vm *vm, sm_error *err)
{
    return sm_vm_go_on(vm, err);
}

int sm_vm_snapshot(sm_vm *vm, const char *path, sm_snapshot_stats *stats, sm_error *err)
{
    return sm_vm_capture(vm, path, stats, err);
}

/* ---- its ports and files --------------------------------------------------------------------- */

int sm_vm_publish(sm_vm *vm, const char *port, sm_error *err)
{
    return sm_vm_add_port(vm, port, err);
}

size_t sm_vm_ports(sm_vm *vm, sm_vm_port *ports, size_t max)
{
    struct sm_port_spec specs[SM_VM_MAX_PORTS];
    _Static_assert(SM_VM_MAX_PORTS == 2 * SM_PORTS_MAX, "published and found ones");
    size_t n = sm_vm_list_ports(vm, specs, SM_VM_MAX_PORTS);
    for (size_t i = 0; i < n && i < max; i++) {
        char text[SM_IP_TEXT];
        ports[i] = (sm_vm_port){.host_port = specs[i].host_port,
            .guest_port = specs[i].guest_port,
            .udp = specs[i].protocol == 17,
            .found = specs[i].found};
        snprintf(
            ports[i].host_ip, sizeof(ports[i].host_ip), "%.45s", sm_ip_format(&specs[i].ip, text));
    }
    return n;
}

int sm_vm_write_file(sm_vm *vm, const char *path, const void *data, size_t size, mode_t mode,
    uid_t uid, gid_t gid, sm_error *err)
{
    const struct sm_wire_write_file file = {
        .path = path, .mode = mode & 07777, .uid = uid, .gid = gid, .size = size};
    return sm_vm_put_file(vm, &file, data, err);
}

int sm_vm_read_file(
    sm_vm *vm, const char *path, size_t max, void **data, size_t *size, sm_error *err)
{
    const struct sm_wire_read_file file = {.path = path, .max = max};
    return sm_vm_get_file(vm, &file, data, size, err);
}

/* ---- looking at it --------------------------------------------------------------------------- */

const char *sm_vm_name(const sm_vm *vm)
{
    return vm->name;
}

void sm_vm_get_timing(const sm_vm *vm, sm_vm_timing *timing)
{
    *timing = vm->timing;
}

uint64_t sm_vm_get_memory(const sm_vm *vm)
{
    return vm->memory_bytes;
}

void sm_vm_get_counters(const sm_vm *vm, sm_vm_counters *counters)
{
    sm_engine_get_counters(vm->engine, counters);
}

size_t sm_vm_console(const sm_vm *vm, char *buf, size_t size)
{
    return sm_engine_console(vm->engine, buf, size);
}
