/* sm_vm: the object, and what may be asked of it while it runs; vm_start.c starts it. */
#include "api/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>

#include "api/exec.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "vmm/guest_wait.h"
#include "vmm/machine.h"

#define STOP_TIMEOUT_MS 30000
#define FREEZE_WAIT_MS  30000
#define SHORTLY_MS      5000 /* of the guest's time: a guest that runs answers in milliseconds */

const struct sm_image_config *sm_vm_image_config(const sm_vm *vm)
{
    return &vm->image->config;
}

int sm_vm_channel(sm_vm *vm, struct sm_channel *channel, struct sm_wait *wait, sm_error *err)
{
    pthread_mutex_lock(&vm->lock);
    struct sm_channel own = vm->own;
    vm->own = (struct sm_channel){.fd = -1};
    pthread_mutex_unlock(&vm->lock);
    if (own.fd >= 0) {
        *channel = own;
        return 0;
    }
    return sm_channel_connect(channel, vm->machine, wait, err);
}

/* Sends the request and waits for its answer. */
static int exchange(struct sm_channel *channel, enum sm_wire_type type, const void *message,
    enum sm_wire_type answer, void *to, struct sm_wait *wait, sm_error *err)
{
    int rc = sm_exec_send(channel, type, message, wait, err);
    return rc ? rc : sm_channel_expect(channel, answer, to, wait, err);
}

static int ask_within(sm_vm *vm, enum sm_wire_type type, const void *message,
    enum sm_wire_type answer, void *to, int64_t limit_ms, sm_error *err)
{
    struct sm_channel channel;
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, vm->machine, limit_ms);
    int rc = sm_vm_channel(vm, &channel, &w.wait, err);
    if (rc)
        return rc;
    rc = exchange(&channel, type, message, answer, to, &w.wait, err);
    sm_channel_close(&channel);
    return rc;
}

int sm_vm_ask(sm_vm *vm, enum sm_wire_type type, const void *message, enum sm_wire_type answer,
    void *to, int64_t wait_ms, sm_error *err)
{
    return ask_within(vm, type, message, answer, to, wait_ms + SM_VM_AGENT_TIMEOUT_MS, err);
}

/* What is sent on the connection of the freeze is read behind it, whenever the guest comes to it: nobody waits. */
static void undo_freeze(struct sm_channel *channel)
{
    struct sm_wait now = sm_wait_ms(0);
    sm_exec_send(channel, SM_WIRE_THAW, NULL, &now, NULL);
}

int sm_vm_freeze(sm_vm *vm, sm_error *err)
{
    const struct sm_wire_freeze request = {.timeout_ms = FREEZE_WAIT_MS};
    struct sm_channel channel;
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, vm->machine, FREEZE_WAIT_MS + SM_VM_AGENT_TIMEOUT_MS);
    int rc = sm_vm_channel(vm, &channel, &w.wait, err);
    if (!rc) {
        rc = exchange(&channel, SM_WIRE_FREEZE, &request, SM_WIRE_OK, NULL, &w.wait, err);
        if (rc)
            undo_freeze(&channel);
        sm_channel_close(&channel);
    }
    return rc ? sm_error_prefix(err, rc, "cannot stop the guest's processes for the snapshot") : 0;
}

int sm_vm_thaw(sm_vm *vm, sm_error *err)
{
    return sm_vm_ask(vm, SM_WIRE_THAW, NULL, SM_WIRE_OK, NULL, 0, err);
}

void sm_vm_thaw_shortly(sm_vm *vm)
{
    ask_within(vm, SM_WIRE_THAW, NULL, SM_WIRE_OK, NULL, SHORTLY_MS, NULL);
}

uint32_t sm_vm_take_service(sm_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    uint32_t pid = vm->service_pid;
    vm->service_pid = 0;
    pthread_mutex_unlock(&vm->lock);
    return pid;
}

void sm_vm_add_command(sm_vm *vm, sm_exec *exec, bool is_service)
{
    pthread_mutex_lock(&vm->lock);
    exec->vm = vm;
    if (is_service || !vm->command || !sm_exec_running(vm->command))
        vm->command = exec;
    pthread_mutex_unlock(&vm->lock);
}

void sm_vm_drop_command(sm_vm *vm, const sm_exec *exec)
{
    pthread_mutex_lock(&vm->lock);
    if (vm->command == exec)
        vm->command = NULL;
    pthread_mutex_unlock(&vm->lock);
}

uint32_t sm_vm_command_pid(sm_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    uint32_t pid = vm->service_pid;
    if (!pid && vm->command)
        pid = sm_exec_running(vm->command);
    pthread_mutex_unlock(&vm->lock);
    return pid;
}

void sm_vm_put_service(sm_vm *vm, uint32_t pid)
{
    pthread_mutex_lock(&vm->lock);
    vm->service_pid = pid;
    pthread_mutex_unlock(&vm->lock);
}

/* ---- its beginning --------------------------------------------------------------------------- */

static bool is_name(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    return n > 0 && n <= SM_VM_MAX_NAME && !text[n] && *text != '-' && *text != '.';
}

static int set_name(sm_vm *vm, const sm_vm_config *config, sm_error *err)
{
    static const char rule[] = "letters, digits, '-', '_' and '.', at most 63";
    if (config->hostname && !is_name(config->hostname))
        return sm_error_set(
            err, SM_EINVAL, "'%.100s' is no host name (%s)", config->hostname, rule);
    if (config->name && !is_name(config->name))
        return sm_error_set(
            err, SM_EINVAL, "'%.100s' is no name for a VM (%s)", config->name, rule);
    if (config->name) {
        memcpy(vm->name, config->name, strlen(config->name) + 1);
    } else {
        uint32_t random;
        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
            return sm_error_errno(err, errno, "cannot make up a name for the VM");
        snprintf(vm->name, sizeof(vm->name), "vm-%08x", random);
    }
    return 0;
}

int sm_vm_new(
    sm_image *image, const sm_vm_config *config, uint64_t start_ns, sm_vm **vm, sm_error *err)
{
    sm_vm *v = calloc(1, sizeof(*v));
    if (!v)
        return sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    v->image = image;
    v->start_ns = start_ns;
    v->agent_fd = v->own.fd = -1;
    pthread_mutex_init(&v->lock, NULL);
    pthread_rwlock_init(&v->capturing, NULL);
    v->greeted = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = v->greeted < 0 ? sm_error_errno(err, errno, "cannot make an eventfd") : 0;
    if (!rc)
        rc = set_name(v, config, err);
    if (!rc)
        rc = sm_vm_network_init(&v->network, config, err);
    if (!rc && config->egress && !(v->egress = strdup(config->egress)))
        rc = sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    if (!rc)
        rc = sm_guest_files_find(&v->files, image, config, err);
    if (!rc)
        rc = sm_hv_open(&v->hv, err);
    if (rc) {
        sm_vm_close(v);
        return rc;
    }
    *vm = v;
    return 0;
}

/* ---- while it runs, and its end ------------------------------------------------------------ */

/* Asks the agent; what goes wrong shows by the VM not going down. */
static void ask_to_power_off(sm_vm *vm, struct sm_wait *wait)
{
    struct sm_channel channel;
    if (sm_vm_channel(vm, &channel, wait, NULL))
        return;
    uint8_t frame[SM_WIRE_HEADER];
    struct sm_wire_writer w = {.buf = frame, .cap = sizeof(frame)};
    sm_wire_put_empty(&w, SM_WIRE_POWER_OFF);
    if (sm_channel_send(&channel, frame, w.len, wait, NULL) == 0)
        sm_channel_expect(&channel, SM_WIRE_OK, NULL, wait, NULL);
    sm_channel_close(&channel);
}

int sm_vm_stop(sm_vm *vm, int timeout_ms, sm_error *err)
{
    struct sm_wait wait = sm_wait_ms(timeout_ms < 0 ? STOP_TIMEOUT_MS : timeout_ms);
    struct sm_machine_end end;
    if (sm_machine_wait(vm->machine, 0, &end, NULL) == 0)
        return 0;
    if (timeout_ms != 0)
        ask_to_power_off(vm, &wait);
    if (sm_machine_wait(vm->machine, sm_wait_slice(&wait), &end, NULL))
        sm_machine_kill(vm->machine);
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
    if (!vm)
        return;
    sm_channel_close(&vm->own);
    sm_vm_network_close(&vm->network);
    sm_machine_close(
        vm->machine); /* joins the device thread: agent_connected is not called any more */
    sm_vm_network_clear(&vm->network);
    sm_hv_close(vm->hv);
    sm_guest_files_clear(&vm->files);
    free(vm->egress);
    sm_close(vm->agent_fd);
    sm_close(vm->greeted);
    pthread_mutex_destroy(&vm->lock);
    pthread_rwlock_destroy(&vm->capturing);
    free(vm);
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

int sm_vm_pause(sm_vm *vm, sm_error *err)
{
    pthread_rwlock_rdlock(&vm->capturing);
    int rc = sm_machine_pause(vm->machine, SM_PAUSE_CALLER, err);
    pthread_rwlock_unlock(&vm->capturing);
    return rc;
}

int sm_vm_resume(sm_vm *vm, sm_error *err)
{
    return sm_machine_resume(vm->machine, SM_PAUSE_CALLER, err);
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
        .mmio = c.by_kind[SM_HV_EXIT_MMIO],
        .pio = c.by_kind[SM_HV_EXIT_PIO],
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(c.assists); i++)
        counters->assists += c.assists[i];
}

size_t sm_vm_console(const sm_vm *vm, char *buf, size_t size)
{
    return sm_machine_console(vm->machine, buf, size);
}
