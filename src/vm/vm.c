/* A VM. See vm.h. */
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/guest_wait.h"
#include "vm/agent/exec.h"
#include "vmm/machine.h"

#define FREEZE_WAIT_MS 30000
#define SHORTLY_MS     5000 /* of the guest's time: a guest that runs answers in milliseconds */

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

static int ask_within(sm_vm *vm, enum sm_wire_type type, const void *message,
    enum sm_wire_type answer, void *to, int64_t limit_ms, sm_error *err)
{
    struct sm_channel channel;
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, sm_machine_clock(vm->machine), limit_ms);
    int rc = sm_vm_channel(vm, &channel, &w.wait, err);
    if (rc)
        return rc;
    rc = sm_channel_ask(&channel, type, message, answer, to, &w.wait, err);
    sm_channel_close(&channel);
    return rc;
}

int sm_vm_ask(sm_vm *vm, enum sm_wire_type type, const void *message, enum sm_wire_type answer,
    void *to, int64_t wait_ms, sm_error *err)
{
    return ask_within(vm, type, message, answer, to, wait_ms + SM_AGENT_TIMEOUT_MS, err);
}

/* What is sent on the connection of the freeze is read behind it, whenever the guest comes to it: nobody waits. */
static void undo_freeze(struct sm_channel *channel)
{
    struct sm_wait now = sm_wait_ms(0);
    sm_channel_send_message(channel, SM_WIRE_THAW, NULL, &now, NULL);
}

int sm_vm_freeze(sm_vm *vm, sm_error *err)
{
    const struct sm_wire_freeze request = {.timeout_ms = FREEZE_WAIT_MS};
    struct sm_channel channel;
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, sm_machine_clock(vm->machine), FREEZE_WAIT_MS + SM_AGENT_TIMEOUT_MS);
    int rc = sm_vm_channel(vm, &channel, &w.wait, err);
    if (!rc) {
        rc = sm_channel_ask(&channel, SM_WIRE_FREEZE, &request, SM_WIRE_OK, NULL, &w.wait, err);
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
    int rc = sm_bell_make(&v->greeted, err);
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
        sm_vm_free(v);
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

void sm_vm_power_off(sm_vm *vm, struct sm_wait *wait)
{
    struct sm_machine_end end;
    if (sm_machine_wait(vm->machine, 0, &end, NULL) == 0)
        return;
    if (!sm_wait_over(wait))
        ask_to_power_off(vm, wait);
    if (sm_machine_wait(vm->machine, sm_wait_slice(wait), &end, NULL))
        sm_machine_kill(vm->machine);
}

void sm_vm_free(sm_vm *vm)
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
    sm_bell_close(&vm->greeted);
    pthread_mutex_destroy(&vm->lock);
    pthread_rwlock_destroy(&vm->capturing);
    free(vm);
}

int sm_vm_halt(sm_vm *vm, sm_error *err)
{
    pthread_rwlock_rdlock(&vm->capturing);
    int rc = sm_machine_pause(vm->machine, &vm->paused, err);
    pthread_rwlock_unlock(&vm->capturing);
    return rc;
}

int sm_vm_go_on(sm_vm *vm, sm_error *err)
{
    return sm_machine_resume(vm->machine, &vm->paused, err);
}
