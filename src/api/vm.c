/*
 * sm_vm: a machine (vmm/machine.h) with an agent in it.
 *
 * Start: the machine boots, its agent connects to our vsock port and greets. The greeting comes in on the
 * device thread, which only keeps the descriptor and rings an eventfd; all talking is done by the thread
 * that called sm_vm_start. Before that returns the guest has got the host's clock, entropy, host name and
 * machine id, exactly as after a restore. The agent's own connection then serves the first request.
 */
#include "api/vm.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include "api/internal.h"
#include "devices/vsock.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/locate.h"
#include "vmm/machine.h"

#define DEFAULT_MEMORY       (256ull << 20)
#define DEFAULT_BOOT_TIMEOUT 120000
#define REQUEST_TIMEOUT_MS   30000 /* for what the agent does at once */
#define MAX_NAME             63

struct sm_vm {
    sm_image *image;
    struct sm_machine *machine;
    char name[MAX_NAME + 1];
    sm_vm_timing timing;

    int greeted; /* eventfd: the agent has connected */
    pthread_mutex_t lock;
    int agent_fd;          /* its connection, until sm_vm_start takes it; -1 */
    uint64_t agent_ns;     /* when it came */
    struct sm_channel own; /* the same, once it is free for requests; fd -1: used up */
};

const struct sm_image_config *sm_vm_image_config(const sm_vm *vm)
{
    return &vm->image->config;
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
    return sm_channel_connect(channel, vm->machine, sm_deadline(REQUEST_TIMEOUT_MS), err);
}

/* ---- start -------------------------------------------------------------------------------- */

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
        (void)!write(vm->greeted, &(uint64_t){1}, sizeof(uint64_t));
    }
    pthread_mutex_unlock(&vm->lock);
}

static bool is_name(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.");
    return n > 0 && n <= MAX_NAME && !text[n] && *text != '-' && *text != '.';
}

static void random_hex(char *text, size_t bytes)
{
    uint8_t random[16];
    (void)!getrandom(random, bytes, 0); /* up to 256 bytes always succeed */
    for (size_t i = 0; i < bytes; i++)
        sprintf(text + 2 * i, "%02x", random[i]);
}

static int set_name(sm_vm *vm, const sm_vm_config *config, sm_error *err)
{
    static const char rule[] = "letters, digits, '-', '_' and '.', at most 63";
    if (config->hostname && !is_name(config->hostname))
        return sm_error_set(
            err, SM_EINVAL, "'%.100s' is no host name (%s)", config->hostname, rule);
    if (config->name && !is_name(config->name))
        return sm_error_set(err, SM_EINVAL, "'%.100s' is no name for a VM (%s)", config->name, rule);
    if (config->name) {
        memcpy(vm->name, config->name, strlen(config->name) + 1);
    } else {
        memcpy(vm->name, "vm-", 3);
        random_hex(vm->name + 3, 4);
    }
    return 0;
}

/* The file that the caller named, or the installed one. */
static int guest_file(
    const char *named, const char *name, const char *what, char **path, sm_error *err)
{
    if (!named)
        return sm_locate(name, "SUPERMACHINE_GUEST_DIR", "guest", path, err);
    if (access(named, R_OK))
        return sm_error_errno(err, errno, "cannot read the %s '%s'", what, named);
    *path = strdup(named);
    return *path ? 0 : sm_error_set(err, SM_ENOMEM, "no memory for a path");
}

static int create_machine(sm_vm *vm, const sm_vm_config *config, sm_error *err)
{
    auto_free char *kernel = NULL;
    auto_free char *initramfs = NULL;
    int rc = guest_file(config->kernel, "vmlinux", "guest kernel", &kernel, err);
    if (!rc)
        rc = guest_file(config->initramfs, "agent.cpio", "agent's initramfs", &initramfs, err);
    if (rc)
        return rc;
    const struct sm_machine_config machine = {
        .memory_bytes = config->memory_bytes ? config->memory_bytes : DEFAULT_MEMORY,
        .vcpus = config->vcpus ? config->vcpus : 1,
        .kernel = kernel,
        .initramfs = initramfs,
        .rootfs = vm->image->info.rootfs_path,
        .cmdline = config->cmdline,
    };
    return sm_machine_create(&vm->machine, &machine, err);
}

/* Fails with the sentence and the last lines of the console, which tell why there is no agent. */
static int not_ready(sm_vm *vm, enum sm_code code, const char *sentence, sm_error *err)
{
    char tail[600];
    sm_machine_console(vm->machine, tail, sizeof(tail));
    const char *from = strchr(tail, '\n'); /* the first line may be cut */
    from = strlen(tail) == sizeof(tail) - 1 && from ? from + 1 : tail;
    return sm_error_set(err, code, "%s; the console's last lines:\n%s", sentence, from);
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

/* Waits for the agent's connection and takes it. */
static int await_agent(sm_vm *vm, int timeout_ms, struct sm_channel *channel, sm_error *err)
{
    int64_t deadline = sm_deadline(timeout_ms);
    for (;;) {
        struct pollfd fds[2] = {
            {.fd = vm->greeted, .events = POLLIN},
            {.fd = sm_machine_end_fd(vm->machine), .events = POLLIN},
        };
        int n = poll(fds, 2, sm_deadline_left(deadline));
        if (n < 0 && errno != EINTR)
            return sm_error_errno(err, errno, "cannot wait for the VM");
        if (n > 0 && fds[0].revents)
            break;
        if (n > 0)
            return ended_early(vm, err);
        if (n == 0 && sm_deadline_left(deadline) == 0)
            return not_ready(vm, SM_ETIMEOUT, "the agent in the VM was not ready in time", err);
    }
    pthread_mutex_lock(&vm->lock);
    int fd = sm_steal_fd(&vm->agent_fd);
    pthread_mutex_unlock(&vm->lock);
    return sm_channel_init(channel, fd, vm->machine, err);
}

static int greet(struct sm_channel *channel, sm_error *err)
{
    struct sm_wire_hello hello;
    int rc =
        sm_channel_expect(channel, SM_WIRE_HELLO, &hello, sm_deadline(REQUEST_TIMEOUT_MS), err);
    if (rc)
        return rc;
    if (hello.version != SM_WIRE_VERSION)
        return sm_error_set(err, SM_EPROTOCOL,
            "the agent speaks version %u of the protocol and we version %u; install kernel, agent and "
            "library from one build", hello.version, SM_WIRE_VERSION);
    return 0;
}

/* Clock, entropy and identity; before anything of the user's runs. */
static int personalise(struct sm_channel *channel, const char *hostname, sm_error *err)
{
    uint8_t seed[64];
    char machine_id[33];
    if (getrandom(seed, sizeof(seed), 0) != sizeof(seed))
        return sm_error_errno(err, errno, "cannot get random bytes for the VM");
    random_hex(machine_id, 16);
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    const struct sm_wire_restore restore = {
        .realtime_ns = (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec,
        .seed = {.data = seed, .len = sizeof(seed)},
        .hostname = hostname,
        .machine_id = machine_id,
    };
    uint8_t frame[512];
    struct sm_wire_writer w = {.buf = frame, .cap = sizeof(frame)};
    sm_wire_put_restore(&w, &restore);
    int64_t deadline = sm_deadline(REQUEST_TIMEOUT_MS);
    int rc = sm_channel_send(channel, frame, w.len, deadline, err);
    if (!rc)
        rc = sm_channel_expect(channel, SM_WIRE_OK, NULL, deadline, err);
    explicit_bzero(seed, sizeof(seed));
    explicit_bzero(frame, sizeof(frame));
    return rc ? sm_error_prefix(err, rc, "cannot set the VM's clock, entropy and name") : 0;
}

static int boot(sm_vm *vm, const sm_vm_config *config, uint64_t start_ns, sm_error *err)
{
    int timeout = config->boot_timeout_ms > 0 ? config->boot_timeout_ms : DEFAULT_BOOT_TIMEOUT;
    int rc = create_machine(vm, config, err);
    if (!rc)
        rc = sm_vsock_listen(
            sm_machine_vsock(vm->machine), SM_WIRE_PORT, agent_connected, vm, err);
    if (!rc)
        rc = sm_machine_boot(vm->machine, err);
    struct sm_channel channel = {.fd = -1};
    if (!rc)
        rc = await_agent(vm, timeout, &channel, err);
    if (!rc)
        rc = greet(&channel, err);
    if (!rc)
        rc = personalise(&channel, config->hostname ? config->hostname : vm->name, err);
    if (rc) {
        sm_channel_close(&channel);
        return rc;
    }
    vm->own = channel;
    struct sm_machine_timing t;
    sm_machine_get_timing(vm->machine, &t);
    vm->timing = (sm_vm_timing){
        .created_us = (t.created_ns - start_ns) / 1000,
        .loaded_us = (t.loaded_ns - start_ns) / 1000,
        .kernel_entry_us = (t.entered_ns - start_ns) / 1000,
        .agent_start_us = (vm->agent_ns - start_ns) / 1000,
        .ready_us = (sm_now_ns() - start_ns) / 1000,
    };
    return 0;
}

int sm_vm_start(sm_image *image, const sm_vm_config *config, sm_vm **vm, sm_error *err)
{
    uint64_t start_ns = sm_now_ns();
    static const sm_vm_config defaults;
    if (!config)
        config = &defaults;
    sm_vm *v = calloc(1, sizeof(*v));
    if (!v)
        return sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    v->image = image;
    v->agent_fd = v->own.fd = -1;
    pthread_mutex_init(&v->lock, NULL);
    v->greeted = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    int rc = v->greeted < 0 ? sm_error_errno(err, errno, "cannot make an eventfd") : 0;
    if (!rc)
        rc = set_name(v, config, err);
    if (!rc)
        rc = boot(v, config, start_ns, err);
    if (rc) {
        sm_vm_close(v);
        return rc;
    }
    *vm = v;
    return 0;
}

/* ---- while it runs, and its end ------------------------------------------------------------ */

/* Asks the agent; what goes wrong shows by the VM not going down. */
static void ask_to_power_off(sm_vm *vm, int64_t deadline)
{
    struct sm_channel channel;
    if (sm_vm_channel(vm, &channel, NULL))
        return;
    uint8_t frame[SM_WIRE_HEADER];
    struct sm_wire_writer w = {.buf = frame, .cap = sizeof(frame)};
    sm_wire_put_empty(&w, SM_WIRE_POWER_OFF);
    if (sm_channel_send(&channel, frame, w.len, deadline, NULL) == 0)
        sm_channel_expect(&channel, SM_WIRE_OK, NULL, deadline, NULL);
    sm_channel_close(&channel);
}

int sm_vm_stop(sm_vm *vm, int timeout_ms, sm_error *err)
{
    int64_t deadline = sm_deadline(timeout_ms < 0 ? REQUEST_TIMEOUT_MS : timeout_ms);
    struct sm_machine_end end;
    if (sm_machine_wait(vm->machine, 0, &end, NULL) == 0)
        return 0;
    ask_to_power_off(vm, deadline);
    if (sm_machine_wait(vm->machine, sm_deadline_left(deadline), &end, NULL))
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
    sm_machine_close(vm->machine); /* joins the device thread: agent_connected is not called any more */
    sm_close(vm->agent_fd);
    sm_close(vm->greeted);
    pthread_mutex_destroy(&vm->lock);
    free(vm);
}

int sm_vm_pause(sm_vm *vm, sm_error *err)
{
    return sm_machine_pause(vm->machine, err);
}

int sm_vm_resume(sm_vm *vm, sm_error *err)
{
    return sm_machine_resume(vm->machine, err);
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
