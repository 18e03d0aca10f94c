/*
 * How a VM comes up: by booting, or from a snapshot.
 *
 * Boot: the machine boots, its agent connects to us and greets. Restore: connections do not survive
 * a snapshot, the agent's listening port does; so we connect. Both ways the guest is then given
 * what makes it one of its own (agent/greeting.h) before anything else may be asked of it. The
 * connection that carried it serves the first request. All of this is done by the thread that
 * starts the VM.
 */
#include "vm/bring_up.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net/user_net.h"
#include "snapshot/reader.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/guest_wait.h"
#include "util/strv.h"
#include "vm/agent/greeting.h"
#include "vm/client_loop.h"
#include "vm/command.h"
#include "vm/exec.h"
#include "vm/hot.h"
#include "vm/network_process.h"
#include "vm/note.h"
#include "vm/ports.h"

static uint64_t since_start(const sm_vm *vm, uint64_t ns)
{
    return ns > vm->start_ns ? (ns - vm->start_ns) / 1000 : 0;
}

/* On the client's loop. */
static void replug(void *arg, int fd)
{
    const sm_vm *vm = arg;
    sm_engine_replug(vm->engine, fd);
}

/* The network's process begins when the guest first sends, which the client's loop sees later;
 * until then frames wait in the card's socket. *fd is the machine's end. */
static int plug(sm_vm *vm, struct sm_engine_config *config, int *fd, sm_error *err)
{
    const struct sm_vm_network *network = &vm->network;
    const struct sm_network_process_config process = {
        .network = &vm->network, .replug = replug, .arg = vm};
    bool tap = network->mode == SM_NETWORK_TAP;
    memcpy(
        config->card.mac, tap ? network->tap.net.mac : sm_user_net_mac, sizeof(config->card.mac));
    if (network->mode == SM_NETWORK_NONE)
        return 0;
    int rc = sm_network_process_create(
        &process, fd, &config->card.speaks_first, &vm->network_process, err);
    config->card.fd = *fd;
    return rc;
}

static int watch_network(sm_vm *vm, sm_error *err)
{
    struct sm_loop *loop;
    if (!vm->network_process)
        return 0;
    int rc = sm_vm_loop(vm, &loop, err);
    return rc ? rc : sm_network_process_watch(vm->network_process, loop, err);
}

static struct sm_engine_config engine_config(sm_vm *vm, const struct sm_vm_plan *plan)
{
    struct sm_engine_config config = {
        .shape = plan->shape,
        .rootfs = vm->image->info.rootfs_path,
        .count_instructions = plan->count_instructions,
        .card = {.fd = -1},
    };
    config.shape.kernel = vm->files.kernel;
    config.shape.initramfs = vm->files.initramfs;
    return config;
}

/* For the agent to be ready. */
static void begin_wait(sm_vm *vm, const struct sm_vm_plan *plan, struct sm_guest_wait *w)
{
    const struct sm_guest_clock *clock = sm_engine_clock(vm->engine);
    sm_guest_wait_begin_or(w, clock, SM_AGENT_TIMEOUT_MS, plan->boot_timeout_ms);
}

static void note_times(sm_vm *vm, uint64_t agent_ns)
{
    struct sm_engine_timing t;
    sm_engine_get_timing(vm->engine, &t);
    vm->timing.created_us = since_start(vm, t.created_ns);
    vm->timing.loaded_us = since_start(vm, t.loaded_ns);
    vm->timing.kernel_entry_us = since_start(vm, t.entered_ns);
    vm->timing.ready_us = since_start(vm, sm_now_ns());
    vm->timing.agent_start_us = agent_ns ? since_start(vm, agent_ns) : vm->timing.ready_us;
    vm->timing.ram_map_us = t.ram_map_us;
    vm->timing.vcpu_restore_us = t.vcpu_restore_us;
    vm->timing.irqchip_restore_us = t.irqchip_restore_us;
    vm->timing.clock_us = t.clock_us;
    vm->timing.device_restore_us = t.device_restore_us;
}

/* What both ways end with, and with that the VM's own command is asked for: nothing that may fail
 * without the guest comes behind it. Takes the channel over. agent_ns: when it came; 0: with its
 * answer. */
static int finish(sm_vm *vm, const struct sm_vm_plan *plan, struct sm_channel *channel,
    uint64_t agent_ns, struct sm_wait *wait, sm_error *err)
{
    auto_command own = {0};
    struct sm_exec_request command = {0};
    struct sm_vm_network_text text;
    struct sm_wire_set_network network;
    struct sm_agent_identity identity = {
        .hostname = plan->hostname ? plan->hostname : vm->name,
        .attach_pid = vm->service_pid,
        .network = sm_vm_network_describe(&vm->network, &text, &network) ? &network : NULL,
    };
    int rc = plan->command ? sm_vm_describe_own(vm, plan->command, &own, &command, err) : 0;
    if (!rc && plan->command) {
        bool attach = command.attach.pid != 0;
        identity.request_type = attach ? SM_WIRE_ATTACH : SM_WIRE_EXEC;
        identity.request = attach ? (const void *)&command.attach : &command.exec;
    }
    if (!rc)
        rc = sm_vm_open_ports(vm, &plan->network, err);
    if (!rc)
        rc = sm_agent_personalise(channel, &identity, wait, err);
    if (!rc)
        rc = watch_network(vm, err);
    if (rc) {
        sm_channel_close(channel);
        return rc;
    }
    vm->command_config = plan->command;
    vm->command_service = command.attach.pid;
    *(plan->command ? &vm->commanded : &vm->own) = *channel;
    note_times(vm, agent_ns);
    return 0;
}

/* ---- boot ------------------------------------------------------------------------------------ */

/* Fails with the sentence and the last lines of the console, which tell why there is no agent. */
static int not_ready(sm_vm *vm, enum sm_code code, const char *sentence, sm_error *err)
{
    char tail[600];
    sm_engine_last_lines(vm->engine, tail, sizeof(tail));
    if (!*tail)
        return sm_error_set(err, code, "%s; it printed nothing on its console", sentence);
    return sm_error_set(err, code, "%s; the console's last lines:\n%s", sentence, tail);
}

/* The machine ended before its agent was ready. */
static int ended_early(sm_vm *vm, sm_error *err)
{
    struct sm_wait now = sm_wait_ms(0);
    enum sm_vm_end how;
    int rc = sm_engine_wait(vm->engine, &now, &how, err);
    if (rc || how != SM_VM_POWERED_OFF)
        return rc ? rc : -SM_EGUEST;
    return not_ready(vm, SM_EGUEST, "the guest powered off before its agent was ready", err);
}

/* The guest did not make it in the time that it had. */
static int too_late(sm_vm *vm, const struct sm_wait *wait, const sm_error *late, sm_error *err)
{
    char sentence[512];
    snprintf(sentence, sizeof(sentence), "%.400s: %s", late->message,
        wait->over ? "it hangs, or give it more time by a boot timeout"
                   : "the boot timeout is over");
    return not_ready(vm, SM_ETIMEOUT, sentence, err);
}

/* Waits for the agent's connection and takes it. */
static int await_agent(
    sm_vm *vm, struct sm_wait *wait, struct sm_channel *channel, uint64_t *agent_ns, sm_error *err)
{
    int fd;
    sm_error why;
    int rc = sm_engine_accept(vm->engine, wait, &fd, agent_ns, &why);
    if (!rc)
        return sm_channel_init(channel, fd, vm->engine, err);
    if (rc == -SM_EGUEST)
        return ended_early(vm, err);
    if (rc == -SM_ETIMEOUT)
        return too_late(vm, wait, &why, err);
    if (err)
        *err = why;
    return rc;
}

int sm_vm_boot(sm_vm *vm, const struct sm_vm_plan *plan, sm_error *err)
{
    struct sm_engine_config engine = engine_config(vm, plan);
    auto_fd card = -1;
    struct sm_channel channel;
    struct sm_guest_wait w;
    uint64_t agent_ns;
    vm->timing.found_us = since_start(vm, sm_now_ns());
    vm->memory_bytes = engine.shape.memory_bytes;
    int rc = plug(vm, &engine, &card, err);
    if (!rc)
        rc = sm_engine_boot(vm->engine, &engine, err);
    if (rc)
        return rc;
    begin_wait(vm, plan, &w);
    rc = await_agent(vm, &w.wait, &channel, &agent_ns, err);
    if (rc)
        return rc;
    rc = sm_agent_greet(&channel, &w.wait, err);
    if (rc) {
        sm_channel_close(&channel);
        return rc;
    }
    return finish(vm, plan, &channel, agent_ns, &w.wait, err);
}

/* ---- restore --------------------------------------------------------------------------------- */

/* The kernel and the agent in the snapshot must be those that this VM would boot. */
static int check_builds(
    const sm_vm *vm, const struct sm_snapshot *s, const char *path, sm_error *err)
{
    static const uint8_t unsaid[SM_SNAPSHOT_ID_BYTES];
    const char *what = NULL;
    if (memcmp(s->build.kernel, unsaid, sizeof(unsaid)) &&
        memcmp(s->build.kernel, vm->files.kernel_id, sizeof(unsaid)))
        what = "guest kernel";
    else if (memcmp(s->build.agent, unsaid, sizeof(unsaid)) &&
             memcmp(s->build.agent, vm->files.agent_id, sizeof(unsaid)))
        what = "agent";
    else if (memcmp(s->build.rootfs, unsaid, sizeof(unsaid)) &&
             memcmp(s->build.rootfs, vm->files.rootfs_id, sizeof(unsaid)))
        what = "image, or the image was built anew since";
    if (!what)
        return 0;
    return sm_error_set(err, SM_EUNSUPPORTED,
        "the snapshot '%s' was made with another %s; make it again", path, what);
}

/* Who asks for the service's terminal, and it has none, is a command beside it: nobody will take
 * the service, and its output is not to wait for that. */
static bool goes_on(const struct sm_vm_plan *plan, const struct sm_note *note)
{
    return plan->service &&
           (note->terminal || !plan->command || !sm_command_is_terminal(plan->command));
}

/* What capture.c wrote: the command that runs, the policy that the network may not go
 * beyond, whether card and resolv.conf are other than after a boot, and what listened. */
static int take_note(
    sm_vm *vm, const struct sm_snapshot *s, const struct sm_vm_plan *plan, sm_error *err)
{
    struct sm_note note;
    sm_note_read(&note, s->note);
    int rc = note.egress ? sm_vm_network_narrow(&vm->network, note.egress, err) : 0;
    if (!rc && note.egress) {
        free(vm->egress);
        rc = sm_vm_network_policy(&vm->network, &vm->egress, err);
    }
    if (!rc)
        rc = sm_vm_network_remember(&vm->network, s, err);
    vm->network.moved = note.network_moved;
    vm->network.told = note.resolver_told;
    vm->service_pid = goes_on(plan, &note) ? note.pid : 0;
    vm->service_stop_signal = note.stop_signal;
    vm->service_terminal = note.terminal;
    vm->is_taken = note.pid != 0;
    sm_note_clear(&note);
    return rc;
}

/* Memory and vCPUs are those of the file: nothing else may have been asked for. */
static int take_shape(
    struct sm_vm_shape *shape, const struct sm_snapshot *s, const char *path, sm_error *err)
{
    if (shape->memory_bytes && shape->memory_bytes != s->memory_bytes)
        return sm_error_set(err, SM_EINVAL,
            "the VM in '%s' has %llu MiB of memory and cannot have %llu", path,
            (unsigned long long)s->memory_bytes >> 20,
            (unsigned long long)shape->memory_bytes >> 20);
    if (shape->vcpus && shape->vcpus != s->n_vcpus)
        return sm_error_set(err, SM_EINVAL, "the VM in '%s' has %u vCPU%s and cannot have %u", path,
            s->n_vcpus, s->n_vcpus == 1 ? "" : "s", shape->vcpus);
    shape->memory_bytes = s->memory_bytes;
    shape->vcpus = s->n_vcpus;
    return 0;
}

/* What the file says, if the VM can be of it; *shape becomes the machine's. */
static int read_file(sm_vm *vm, const struct sm_vm_plan *plan, int fd, const char *path,
    struct sm_vm_shape *shape, struct sm_snapshot **snapshot, sm_error *err)
{
    auto_snapshot s = NULL;
    *shape = plan->shape;
    int rc = sm_snapshot_load_meta(fd, path, &s, err);
    if (!rc)
        rc = check_builds(vm, s, path, err);
    if (!rc && plan->from == SM_FROM_FILE)
        rc = take_shape(shape, s, path, err);
    if (!rc)
        rc = sm_engine_check_shape(s->memory_bytes, s->n_vcpus, err);
    if (!rc)
        *snapshot = sm_steal_ptr(&s);
    return rc;
}

/* Opens the file and makes it ours. What others may write is looked at before it is copied, so that
 * nothing but a snapshot is, and again when they can no longer change it. */
static int open_file(sm_vm *vm, const struct sm_vm_plan *plan, const char *path, int *fd,
    struct sm_vm_shape *shape, struct sm_snapshot **snapshot, sm_error *err)
{
    bool copied = false;
    int rc = sm_snapshot_open(path, fd, err);
    if (!rc)
        rc = read_file(vm, plan, *fd, path, shape, snapshot, err);
    if (!rc)
        rc = sm_snapshot_own(fd, sm_imgstore_path(vm->image->store),
            (*snapshot)->ram_offset + (*snapshot)->memory_bytes, &copied, err);
    if (rc || !copied)
        return rc;
    sm_snapshot_free(sm_steal_ptr(snapshot));
    return read_file(vm, plan, *fd, path, shape, snapshot, err);
}

int sm_vm_restore(sm_vm *vm, const struct sm_vm_plan *plan, const char *path, sm_error *err)
{
    auto_fd fd = -1;
    auto_fd card = -1;
    auto_snapshot s = NULL;
    struct sm_engine_config engine = engine_config(vm, plan);
    struct sm_channel channel;
    struct sm_guest_wait w;
    struct sm_hot hot = {.n = 0};
    vm->timing.restored = true;
    vm->timing.found_us = since_start(vm, sm_now_ns());
    int rc = open_file(vm, plan, path, &fd, &engine.shape, &s, err);
    if (!rc)
        rc = take_note(vm, s, plan, err);
    if (!rc && plan->command && plan->from == SM_FROM_BAKED)
        sm_hot_read(path, &hot);
    engine.written = hot.runs;
    engine.n_written = hot.n;
    if (!rc)
        rc = plug(vm, &engine, &card, err);
    if (!rc)
        rc = sm_engine_restore(vm->engine, &engine, fd, path, err);
    vm->memory_bytes = engine.shape.memory_bytes;
    if (rc)
        return rc;
    begin_wait(vm, plan, &w);
    rc = sm_channel_connect(&channel, vm->engine, err);
    return rc ? rc : finish(vm, plan, &channel, 0, &w.wait, err);
}
