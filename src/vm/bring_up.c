/*
 * How a VM comes up: by booting, or from a snapshot.
 *
 * Boot: the machine boots, its agent connects to our vsock port and greets. The greeting comes in on the
 * device thread, which only keeps the descriptor and rings a bell; all talking is done by the thread
 * that starts the VM.
 * Restore: connections do not survive a snapshot, the agent's listening port does; so we connect.
 * Both ways the guest then gets the host's clock, entropy, a host name and a machine id before anything
 * else may be asked of it; if one of these fails, so does the start. The connection that carried it
 * serves the first request.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "devices/vsock/vsock.h"
#include "snapshot/reader.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/guest_wait.h"
#include "vm/note.h"
#include "vm/vm.h"
#include "vmm/machine.h"

static uint64_t since_start(const sm_vm *vm, uint64_t ns)
{
    return ns > vm->start_ns ? (ns - vm->start_ns) / 1000 : 0;
}

static int create_machine(sm_vm *vm, const sm_vm_config *config, const struct sm_snapshot *snapshot,
    int snapshot_fd, sm_error *err)
{
    struct sm_machine_config machine = {
        .memory_bytes = sm_vm_config_memory(config),
        .vcpus = sm_vm_config_vcpus(config),
        .kernel = vm->files.kernel,
        .initramfs = vm->files.initramfs,
        .rootfs = vm->image->info.rootfs_path,
        .cmdline = config->cmdline,
        .count_instructions = config->count_instructions,
        .hv = vm->hv,
        .snapshot = snapshot,
        .snapshot_fd = snapshot_fd,
    };
    sm_vm_network_plug(&vm->network, &machine);
    return sm_machine_create(&vm->machine, &machine, err);
}

/* On the device thread. */
static void agent_connected(void *arg, int fd, uint32_t guest_port)
{
    sm_vm *vm = arg;
    pthread_mutex_lock(&vm->lock);
    if (vm->agent_ns) {
        sm_close(fd); /* one greeting is enough */
    } else {
        vm->agent_fd = fd;
        vm->agent_ns = sm_now_ns();
        sm_bell_ring(&vm->greeted);
    }
    pthread_mutex_unlock(&vm->lock);
}

/* Fails with the sentence and the last lines of the console, which tell why there is no agent. */
static int not_ready(sm_vm *vm, enum sm_code code, const char *sentence, sm_error *err)
{
    char tail[600];
    sm_machine_last_lines(vm->machine, tail, sizeof(tail));
    if (!*tail)
        return sm_error_set(err, code, "%s; it printed nothing on its console", sentence);
    return sm_error_set(err, code, "%s; the console's last lines:\n%s", sentence, tail);
}

/* The machine ended before its agent was ready. */
static int ended_early(sm_vm *vm, sm_error *err)
{
    struct sm_machine_end end;
    int rc = sm_machine_wait(vm->machine, 0, &end, err);
    if (rc)
        return rc;
    if (end.how != SM_VM_POWERED_OFF)
        return sm_error_set(err, SM_EGUEST, "%s", end.message);
    return not_ready(vm, SM_EGUEST, "the guest powered off before its agent was ready", err);
}

/* The guest did not make it in the time that it had. */
static int too_late(sm_vm *vm, const struct sm_wait *wait, sm_error *err)
{
    sm_error late;
    char sentence[512];
    sm_wait_failed(wait, &late, "the agent in the VM was not ready");
    snprintf(sentence, sizeof(sentence), "%.400s: %s", late.message,
        wait->over ? "it hangs, or give it more time by a boot timeout"
                   : "the boot timeout is over");
    return not_ready(vm, SM_ETIMEOUT, sentence, err);
}

/* Waits for the agent's connection and takes it. */
static int await_agent(sm_vm *vm, struct sm_wait *wait, struct sm_channel *channel, sm_error *err)
{
    for (;;) {
        struct pollfd fds[2] = {
            {.fd = sm_bell_fd(&vm->greeted), .events = POLLIN},
            {.fd = sm_machine_end_fd(vm->machine), .events = POLLIN},
        };
        int n = poll(fds, 2, sm_wait_slice(wait));
        if (n < 0 && errno != EINTR)
            return sm_error_errno(err, errno, "cannot wait for the VM");
        if (n > 0 && fds[0].revents)
            break;
        if (n > 0)
            return ended_early(vm, err);
        if (n == 0 && sm_wait_over(wait))
            return too_late(vm, wait, err);
    }
    pthread_mutex_lock(&vm->lock);
    int fd = sm_steal_fd(&vm->agent_fd);
    pthread_mutex_unlock(&vm->lock);
    return sm_channel_init(channel, fd, vm->machine, err);
}

static int greet(struct sm_channel *channel, struct sm_wait *wait, sm_error *err)
{
    struct sm_wire_hello hello;
    int rc = sm_channel_expect(channel, SM_WIRE_HELLO, &hello, wait, err);
    if (rc)
        return rc;
    if (hello.version != SM_WIRE_VERSION)
        return sm_error_set(err, SM_EPROTOCOL,
            "the agent speaks version %u of the protocol and we version %u; install kernel, "
            "agent and library from one build",
            hello.version, SM_WIRE_VERSION);
    return 0;
}

/* The network card, clock, entropy and identity, all in one write; before anything of the user's runs. */
static int personalise(sm_vm *vm, struct sm_channel *channel, const char *hostname,
    struct sm_wait *wait, sm_error *err)
{
    uint8_t seed[64];
    char machine_id[33];
    if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
        return sm_error_errno(err, errno, "cannot get random bytes for the VM");
    uint64_t id[2];
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return sm_error_errno(err, errno, "cannot get random bytes for the VM");
    snprintf(machine_id, sizeof(machine_id), "%016llx%016llx", (unsigned long long)id[0],
        (unsigned long long)id[1]);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const struct sm_wire_restore restore = {
        .realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .seed = {.data = seed, .len = sizeof(seed)},
        .hostname = hostname,
        .machine_id = machine_id,
        .attach_pid = vm->service_pid,
    };
    struct sm_network_text text;
    struct sm_wire_set_network network;
    bool with_network = sm_vm_network_describe(&vm->network, &text, &network);
    uint8_t frames[1024];
    struct sm_wire_writer w = {.buf = frames, .cap = sizeof(frames)};
    if (with_network)
        sm_wire_put_set_network(&w, &network);
    sm_wire_put_restore(&w, &restore);
    int rc = sm_channel_send(channel, frames, w.len, wait, err);
    if (!rc && with_network)
        rc = sm_channel_expect(channel, SM_WIRE_OK, NULL, wait, err);
    if (!rc)
        rc = sm_channel_expect(channel, SM_WIRE_OK, NULL, wait, err);
    explicit_bzero(seed, sizeof(seed));
    explicit_bzero(frames, sizeof(frames));
    return rc ? sm_error_prefix(err, rc, "cannot set the VM's network, clock, entropy and name")
              : 0;
}

/* What both ways end with; takes the channel over. */
static int finish(sm_vm *vm, const sm_vm_config *config, struct sm_channel *channel,
    struct sm_wait *wait, sm_error *err)
{
    const char *hostname = config->hostname ? config->hostname : vm->name;
    int rc = personalise(vm, channel, hostname, wait, err);
    if (rc) {
        sm_channel_close(channel);
        return rc;
    }
    vm->own = *channel;
    struct sm_machine_timing t;
    sm_machine_get_timing(vm->machine, &t);
    vm->timing.created_us = since_start(vm, t.created_ns);
    vm->timing.loaded_us = since_start(vm, t.loaded_ns);
    vm->timing.kernel_entry_us = since_start(vm, t.entered_ns);
    vm->timing.agent_start_us = since_start(vm, vm->agent_ns);
    vm->timing.ready_us = since_start(vm, sm_now_ns());
    return 0;
}

int sm_vm_boot(sm_vm *vm, const sm_vm_config *config, sm_error *err)
{
    vm->timing.found_us = since_start(vm, sm_now_ns());
    int rc = create_machine(vm, config, NULL, -1, err);
    if (!rc)
        rc = sm_vsock_listen(sm_machine_vsock(vm->machine), SM_WIRE_PORT, agent_connected, vm, err);
    if (!rc)
        rc = sm_machine_boot(vm->machine, err);
    struct sm_channel channel = {.fd = -1};
    struct sm_guest_wait w;
    sm_guest_wait_begin_or(
        &w, sm_machine_clock(vm->machine), SM_AGENT_TIMEOUT_MS, config->boot_timeout_ms);
    if (!rc)
        rc = await_agent(vm, &w.wait, &channel, err);
    if (rc)
        return rc;
    rc = greet(&channel, &w.wait, err);
    if (rc) {
        sm_channel_close(&channel);
        return rc;
    }
    return finish(vm, config, &channel, &w.wait, err);
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

/* What capture.c wrote: the pid of a command that runs, the policy that the network may not go beyond, whether
 * the card was set up for another network than the user-mode one, and what listened. */
static int take_note(
    sm_vm *vm, const struct sm_snapshot *s, const sm_vm_config *config, sm_error *err)
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
    vm->service_pid = config->service ? note.pid : 0;
    sm_note_clear(&note);
    return rc;
}

/* Memory and vCPUs are those of the file: nothing else may have been asked for. */
static int take_shape(
    sm_vm_config *shape, const struct sm_snapshot *s, const char *path, sm_error *err)
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

/* What the file says, if the VM can be of it. */
static int read_file(sm_vm *vm, const sm_vm_config *config, int fd, const char *path,
    sm_vm_config *shape, struct sm_snapshot **snapshot, sm_error *err)
{
    auto_snapshot s = NULL;
    *shape = *config;
    int rc = sm_snapshot_load_meta(fd, path, &s, err);
    if (!rc)
        rc = check_builds(vm, s, path, err);
    if (!rc && config->snapshot)
        rc = take_shape(shape, s, path, err);
    if (!rc)
        rc = sm_machine_check_shape(s->memory_bytes, s->n_vcpus, err);
    if (!rc)
        *snapshot = sm_steal_ptr(&s);
    return rc;
}

/* Opens the file and makes it ours. What others may write is looked at before it is copied, so that nothing but a
 * snapshot is, and again when they can no longer change it. */
static int open_file(sm_vm *vm, const sm_vm_config *config, const char *path, int *fd,
    sm_vm_config *shape, struct sm_snapshot **snapshot, sm_error *err)
{
    bool copied = false;
    int rc = sm_snapshot_open(path, fd, err);
    if (!rc)
        rc = read_file(vm, config, *fd, path, shape, snapshot, err);
    if (!rc)
        rc = sm_snapshot_own(fd, sm_imgstore_path(vm->image->store),
            (*snapshot)->ram_offset + (*snapshot)->memory_bytes, &copied, err);
    if (rc || !copied)
        return rc;
    sm_snapshot_free(sm_steal_ptr(snapshot));
    return read_file(vm, config, *fd, path, shape, snapshot, err);
}

int sm_vm_restore(sm_vm *vm, const sm_vm_config *config, const char *path, sm_error *err)
{
    auto_fd fd = -1;
    auto_snapshot s = NULL;
    sm_vm_config shape;
    vm->timing.restored = true;
    vm->timing.found_us = since_start(vm, sm_now_ns());
    int rc = open_file(vm, config, path, &fd, &shape, &s, err);
    if (!rc)
        rc = take_note(vm, s, config, err);
    if (!rc)
        rc = create_machine(vm, &shape, s, fd, err);
    struct sm_machine_load_times times;
    if (!rc) {
        rc = sm_machine_load(vm->machine, fd, s, &times, err);
        if (rc)
            rc = sm_error_prefix(err, rc, "cannot restore the snapshot '%s'", path);
    }
    if (!rc)
        rc = sm_machine_start(vm->machine, err);
    struct sm_channel channel;
    struct sm_guest_wait w;
    sm_guest_wait_begin_or(
        &w, sm_machine_clock(vm->machine), SM_AGENT_TIMEOUT_MS, config->boot_timeout_ms);
    if (!rc)
        rc = sm_channel_connect(&channel, vm->machine, &w.wait, err);
    if (rc)
        return rc;
    vm->agent_ns = sm_now_ns();
    vm->timing.ram_map_us = times.ram_map;
    vm->timing.vcpu_restore_us = times.vcpu_restore;
    vm->timing.irqchip_restore_us = times.irqchip_restore;
    vm->timing.clock_us = times.clock;
    vm->timing.device_restore_us = times.device_restore;
    return finish(vm, config, &channel, &w.wait, err);
}
