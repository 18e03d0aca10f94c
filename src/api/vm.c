/* sm_vm: the public face of a VM (src/vm). */
#include <stdio.h>
#include <stdlib.h>

#include "util/bytes.h"
#include "util/wait.h"
#include "vm/bake.h"
#include "vm/capture.h"
#include "vm/files.h"
#include "vm/start.h"
#include "vm/vm.h"
#include "vmm/machine.h"

#define STOP_TIMEOUT_MS 30000

static const sm_vm_config default_config;

int sm_vm_start(sm_image *image, const sm_vm_config *config, sm_vm **vm, sm_error *err)
{
    return sm_vm_bring_up(image, config ? config : &default_config, vm, err);
}

int sm_vm_stop(sm_vm *vm, int timeout_ms, sm_error *err)
{
    (void)err;
    struct sm_wait wait = sm_wait_ms(timeout_ms < 0 ? STOP_TIMEOUT_MS : timeout_ms);
    sm_vm_power_off(vm, &wait);
    return 0;
}

int sm_vm_wait(sm_vm *vm, int timeout_ms, enum sm_vm_end *end, sm_error *err)
{
    struct sm_machine_end e;
    int rc = sm_machine_wait(vm->machine, timeout_ms, &e, err);
    if (!rc && end)
        *end = e.how;
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

int sm_vm_publish(sm_vm *vm, const char *port, sm_error *err)
{
    return sm_vm_network_publish(&vm->network, port, err);
}

size_t sm_vm_ports(sm_vm *vm, sm_vm_port *ports, size_t max)
{
    struct sm_port_spec specs[SM_VM_MAX_PORTS];
    _Static_assert(SM_VM_MAX_PORTS == 2 * SM_PORTS_MAX, "published and found ones");
    size_t n = sm_ports_list(vm->network.ports, specs, SM_VM_MAX_PORTS);
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

const char *sm_vm_name(const sm_vm *vm)
{
    return vm->name;
}

void sm_vm_get_timing(const sm_vm *vm, sm_vm_timing *timing)
{
    *timing = vm->timing;
}

void sm_vm_get_counters(const sm_vm *vm, sm_vm_counters *counters)
{
    struct sm_hv_counters c;
    sm_machine_get_counters(vm->machine, &c);
    *counters = (sm_vm_counters){
        .exits = c.exits,
        .instructions = c.instructions,
        .assists = c.assists,
        .mmio = c.by_kind[SM_HV_EXIT_MMIO],
        .pio = c.by_kind[SM_HV_EXIT_PIO],
    };
}

size_t sm_vm_console(const sm_vm *vm, char *buf, size_t size)
{
    return sm_machine_console(vm->machine, buf, size);
}

int sm_vm_write_file(sm_vm *vm, const char *path, const void *data, size_t size, mode_t mode,
    uid_t uid, gid_t gid, sm_error *err)
{
    return sm_vm_put_file(vm, path, data, size, mode, uid, gid, err);
}

int sm_vm_read_file(
    sm_vm *vm, const char *path, size_t max, void **data, size_t *size, sm_error *err)
{
    return sm_vm_get_file(vm, path, max, data, size, err);
}

int sm_vm_snapshot(sm_vm *vm, const char *path, sm_snapshot_stats *stats, sm_error *err)
{
    return sm_vm_capture(vm, path, stats, err);
}

int sm_image_bake(sm_image *image, const sm_vm_config *config, const sm_bake_options *options,
    bool *baked, sm_snapshot_stats *stats, sm_error *err)
{
    static const sm_bake_options default_options;
    return sm_bake(image, config ? config : &default_config, options ? options : &default_options,
        baked, stats, err);
}
