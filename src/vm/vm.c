/* A VM. See vm.h. */
#include "vm/vm.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "util/error.h"
#include "vm/agent/exec.h"
#include "vm/client_loop.h"
#include "vm/network_process.h"
#include "vm/ports.h"

#define FREEZE_WAIT_MS 30000
#define SHORTLY_MS     5000 /* of the guest's time: a guest that runs answers in milliseconds */

void sm_vm_begin_wait(const sm_vm *vm, struct sm_guest_wait *wait, int64_t extra_ms)
{
    sm_guest_wait_begin(wait, sm_engine_clock(vm->engine), SM_AGENT_TIMEOUT_MS + extra_ms);
}

int sm_vm_channel(sm_vm *vm, struct sm_channel *channel, sm_error *err)
{
    pthread_mutex_lock(&vm->lock);
    struct sm_channel own = vm->own;
    vm->own = (struct sm_channel){.fd = -1};
    pthread_mutex_unlock(&vm->lock);
    if (own.fd >= 0) {
        *channel = own;
        return 0;
    }
    return sm_channel_connect(channel, vm->engine, err);
}

int sm_vm_ask(sm_vm *vm, enum sm_wire_type type, const void *message, enum sm_wire_type answer,
    void *to, struct sm_wait *wait, sm_error *err)
{
    struct sm_channel channel;
    int rc = sm_vm_channel(vm, &channel, err);
    if (rc)
        return rc;
    rc = sm_channel_ask(&channel, type, message, answer, to, wait, err);
    sm_channel_close(&channel);
    return rc;
}

/* What is sent on the connection of the freeze is read behind it, whenever the guest comes to it:
 * nobody waits. */
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
    sm_vm_begin_wait(vm, &w, FREEZE_WAIT_MS);
    int rc = sm_vm_channel(vm, &channel, err);
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
    struct sm_guest_wait w;
    sm_vm_begin_wait(vm, &w, 0);
    return sm_vm_ask(vm, SM_WIRE_THAW, NULL, SM_WIRE_OK, NULL, &w.wait, err);
}

void sm_vm_thaw_shortly(sm_vm *vm)
{
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, sm_engine_clock(vm->engine), SHORTLY_MS);
    sm_vm_ask(vm, SM_WIRE_THAW, NULL, SM_WIRE_OK, NULL, &w.wait, NULL);
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
    exec->terminal = is_service ? vm->service_terminal : exec->tty;
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

uint32_t sm_vm_command(sm_vm *vm, int *stop_signal, bool *terminal)
{
    pthread_mutex_lock(&vm->lock);
    uint32_t pid = vm->service_pid;
    *stop_signal = vm->service_stop_signal;
    *terminal = vm->service_terminal;
    if (!pid && vm->command) {
        pid = sm_exec_running(vm->command);
        *stop_signal = vm->command->stop_signal;
        *terminal = vm->command->terminal;
    }
    pthread_mutex_unlock(&vm->lock);
    return pid;
}

bool sm_vm_awaits_taking(sm_vm *vm)
{
    pthread_mutex_lock(&vm->lock);
    bool awaits = vm->command_config != NULL;
    pthread_mutex_unlock(&vm->lock);
    return awaits;
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

static int set_name(sm_vm *vm, const struct sm_vm_plan *plan, sm_error *err)
{
    static const char rule[] = "letters, digits, '-', '_' and '.', at most 63";
    if (plan->hostname && !is_name(plan->hostname))
        return sm_error_set(err, SM_EINVAL, "'%.100s' is no host name (%s)", plan->hostname, rule);
    if (plan->name && !is_name(plan->name))
        return sm_error_set(err, SM_EINVAL, "'%.100s' is no name for a VM (%s)", plan->name, rule);
    if (plan->name) {
        memcpy(vm->name, plan->name, strlen(plan->name) + 1);
    } else {
        uint32_t random;
        if (getrandom(&random, sizeof(random), 0) != sizeof(random))
            return sm_error_errno(err, errno, "cannot make up a name for the VM");
        snprintf(vm->name, sizeof(vm->name), "vm-%08x", random);
    }
    return 0;
}

int sm_vm_new(
    sm_image *image, const struct sm_vm_plan *plan, uint64_t start_ns, sm_vm **vm, sm_error *err)
{
    sm_vm *v = calloc(1, sizeof(*v));
    if (!v)
        return sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    v->image = image;
    v->start_ns = start_ns;
    v->own.fd = v->commanded.fd = -1;
    pthread_mutex_init(&v->lock, NULL);
    pthread_rwlock_init(&v->capturing, NULL);
    int rc = set_name(v, plan, err);
    if (!rc)
        rc = sm_vm_network_init(&v->network, &plan->network, &plan->events, err);
    if (!rc && plan->network.egress && !(v->egress = strdup(plan->network.egress)))
        rc = sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    if (!rc)
        rc = sm_guest_files_find(&v->files, image, &plan->shape, err);
    if (!rc)
        rc = sm_engine_open(&v->engine, err);
    if (rc)
        sm_vm_free(v);
    else
        *vm = v;
    return rc;
}

/* ---- while it runs, and its end ------------------------------------------------------------ */

void sm_vm_power_off(sm_vm *vm, struct sm_wait *wait)
{
    struct sm_wait now = sm_wait_ms(0);
    if (sm_engine_wait(vm->engine, &now, NULL, NULL) == 0)
        return;
    /* What goes wrong with asking shows by the VM not going down. */
    if (!sm_wait_over(wait))
        sm_vm_ask(vm, SM_WIRE_POWER_OFF, NULL, SM_WIRE_OK, NULL, wait, NULL);
    if (sm_engine_wait(vm->engine, wait, NULL, NULL))
        sm_engine_kill(vm->engine);
}

void sm_vm_free(sm_vm *vm)
{
    if (!vm)
        return;
    sm_channel_close(&vm->own);
    sm_channel_close(&vm->commanded);
    sm_vm_close_ports(vm);
    sm_network_process_unwatch(vm->network_process);
    sm_engine_close(vm->engine);
    sm_network_process_destroy(vm->network_process);
    sm_vm_end_loop(vm); /* after it nobody tells the network anything */
    sm_vm_network_clear(&vm->network);
    sm_guest_files_clear(&vm->files);
    free(vm->egress);
    pthread_mutex_destroy(&vm->lock);
    pthread_rwlock_destroy(&vm->capturing);
    free(vm);
}

int sm_vm_halt(sm_vm *vm, sm_error *err)
{
    pthread_rwlock_rdlock(&vm->capturing);
    int rc = sm_engine_pause(vm->engine, err);
    pthread_rwlock_unlock(&vm->capturing);
    return rc;
}

int sm_vm_go_on(sm_vm *vm, sm_error *err)
{
    return sm_engine_resume(vm->engine, err);
}
