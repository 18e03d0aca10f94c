/* The engine of a machine in this process: its life, its streams, and looking at it. See
 * engine.h. */
#include "vm/engine.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>

#include <linux/mman.h>

#include "devices/vsock/vsock.h"
#include "hypervisor/hypervisor.h"
#include "snapshot/page_map.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/fingerprint.h"
#include "util/wait.h"
#include "vm/engine_impl.h"
#include "vm/engine_parts.h"
#include "vm/network.h"
#include "wire/wire.h"

int sm_engine_open(struct sm_engine **engine, sm_error *err)
{
    struct sm_engine *e = calloc(1, sizeof(*e));
    if (!e)
        return sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    e->agent_fd = -1;
    e->greeted = SM_BELL_NONE;
    pthread_mutex_init(&e->lock, NULL);
    int rc = sm_hv_open(&e->hv, err);
    if (rc)
        sm_engine_close(e);
    else
        *engine = e;
    return rc;
}

void sm_engine_close(struct sm_engine *e)
{
    if (!e)
        return;
    sm_machine_close(
        e->machine); /* joins the device thread: agent_connected is not called any more */
    sm_hv_close(e->hv);
    sm_close(e->agent_fd);
    sm_bell_close(&e->greeted);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

int sm_engine_is_emulated(struct sm_engine *e, bool *emulated, sm_error *err)
{
    return sm_hv_needs_assist(e->hv, emulated, err);
}

void sm_engine_fingerprint(const struct sm_engine *e, struct sm_fingerprint *f)
{
    uint8_t cpu[SM_CPU_DIGEST_BYTES];
    sm_hv_cpu_digest(e->hv, cpu);
    sm_fingerprint_add(f, sm_vmm_build_id, sizeof(sm_vmm_build_id));
    sm_fingerprint_add(f, cpu, sizeof(cpu));
    sm_engine_parts_fingerprint(f);
}

int sm_engine_check_shape(uint64_t memory_bytes, unsigned vcpus, sm_error *err)
{
    return sm_machine_check_shape(memory_bytes, vcpus, err);
}

static int create(struct sm_engine *e, const struct sm_engine_config *config,
    const struct sm_snapshot *snapshot, int fd, sm_error *err)
{
    const struct sm_vm_shape *shape = &config->shape;
    struct sm_machine_part parts[SM_ENGINE_PARTS];
    e->network = config->network;
    const struct sm_machine_part net = sm_engine_card(e);
    sm_engine_parts(parts, config->rootfs, &net);
    const struct sm_machine_config machine = {
        .memory_bytes = shape->memory_bytes,
        .vcpus = shape->vcpus,
        .kernel = shape->kernel,
        .initramfs = shape->initramfs,
        .cmdline = shape->cmdline,
        .parts = parts,
        .n_parts = SM_ENGINE_PARTS,
        .count_instructions = config->count_instructions,
        .hv = e->hv,
        .snapshot = snapshot,
        .snapshot_fd = fd,
    };
    return sm_machine_create(&e->machine, &machine, err);
}

/* ---- its beginning --------------------------------------------------------------------------- */

/* On the device thread. */
static void agent_connected(void *arg, int fd, uint32_t guest_port)
{
    (void)guest_port;
    struct sm_engine *e = arg;
    pthread_mutex_lock(&e->lock);
    if (e->agent_ns) {
        sm_close(fd); /* one greeting is enough */
    } else {
        e->agent_fd = fd;
        e->agent_ns = sm_now_ns();
        sm_bell_ring(&e->greeted);
    }
    pthread_mutex_unlock(&e->lock);
}

int sm_engine_boot(struct sm_engine *e, const struct sm_engine_config *config, sm_error *err)
{
    int rc = sm_bell_make(&e->greeted, err);
    if (!rc)
        rc = create(e, config, NULL, -1, err);
    if (!rc)
        rc = sm_vsock_listen(sm_machine_vsock(e->machine), SM_WIRE_PORT, agent_connected, e, err);
    return rc ? rc : sm_machine_boot(e->machine, err);
}

/* A kernel that cannot do it (before Linux 5.14) says so, and nothing is lost. */
static void make_own(struct sm_engine *e, const struct sm_engine_config *config)
{
    struct sm_ram ram;
    sm_machine_ram(e->machine, &ram);
    for (size_t i = 0; i < config->n_written; i++) {
        uint64_t at = (uint64_t)config->written[i].page * SM_SNAPSHOT_PAGE;
        uint64_t bytes = (uint64_t)config->written[i].n_pages * SM_SNAPSHOT_PAGE;
        if (at >= ram.bytes || bytes > ram.bytes - at ||
            madvise((uint8_t *)(uintptr_t)ram.base + at, bytes, MADV_POPULATE_WRITE))
            return;
    }
}

int sm_engine_restore(struct sm_engine *e, const struct sm_engine_config *config, int fd,
    const struct sm_snapshot *snapshot, const char *path, sm_error *err)
{
    int rc = create(e, config, snapshot, fd, err);
    if (rc)
        return rc;
    rc = sm_machine_load(e->machine, fd, snapshot, &e->times, err);
    if (rc)
        return sm_error_prefix(err, rc, "cannot restore the snapshot '%s'", path);
    make_own(e, config);
    return sm_machine_start(e->machine, err);
}

int sm_engine_written(struct sm_engine *e, struct sm_page_set **set, sm_error *err)
{
    struct sm_ram ram;
    int rc = sm_machine_pause(e->machine, &e->paused, err);
    sm_machine_ram(e->machine, &ram);
    return rc ? rc : sm_page_set_scan(&ram, true, set, err);
}

/* ---- streams --------------------------------------------------------------------------------- */

int sm_engine_accept(
    struct sm_engine *e, struct sm_wait *wait, int *fd, uint64_t *came_ns, sm_error *err)
{
    for (;;) {
        struct pollfd fds[2] = {
            {.fd = sm_bell_fd(&e->greeted), .events = POLLIN},
            {.fd = sm_machine_end_fd(e->machine), .events = POLLIN},
        };
        int n = poll(fds, 2, sm_wait_slice(wait));
        if (n < 0 && errno != EINTR)
            return sm_error_errno(err, errno, "cannot wait for the VM");
        if (n > 0 && fds[0].revents)
            break;
        if (n > 0)
            return sm_error_set(err, SM_EGUEST, "the machine has ended");
        if (n == 0 && sm_wait_over(wait))
            return sm_wait_failed(wait, err, "the agent in the VM was not ready");
    }
    pthread_mutex_lock(&e->lock);
    *fd = sm_steal_fd(&e->agent_fd);
    *came_ns = e->agent_ns;
    pthread_mutex_unlock(&e->lock);
    return 0;
}

int sm_engine_connect(
    struct sm_engine *e, uint32_t port, struct sm_wait *wait, int *fd, sm_error *err)
{
    return sm_vsock_connect(sm_machine_vsock(e->machine), port, wait, fd, err);
}

void sm_engine_end_streams(struct sm_engine *e)
{
    sm_vsock_end(sm_machine_vsock(e->machine));
}

void sm_engine_wait_quiet(struct sm_engine *e, struct sm_wait *wait)
{
    sm_vsock_wait_quiet(sm_machine_vsock(e->machine), sm_wait_slice(wait));
}

/* ---- its life -------------------------------------------------------------------------------- */

int sm_engine_wait(struct sm_engine *e, struct sm_wait *wait, enum sm_vm_end *how, sm_error *err)
{
    struct sm_machine_end end;
    int rc;
    do
        rc = sm_machine_wait(e->machine, sm_wait_slice(wait), &end, err);
    while (rc == -SM_ETIMEOUT && !sm_wait_over(wait));
    if (rc)
        return rc;
    if (how)
        *how = end.how;
    sm_error_set(err, SM_EGUEST, "%s", end.message);
    return 0;
}

int sm_engine_end_fd(const struct sm_engine *e)
{
    return sm_machine_end_fd(e->machine);
}

bool sm_engine_has_halted(struct sm_engine *e)
{
    return sm_machine_end_halted(e->machine);
}

void sm_engine_kill(struct sm_engine *e)
{
    sm_machine_kill(e->machine);
}

int sm_engine_pause(struct sm_engine *e, sm_error *err)
{
    return sm_machine_pause(e->machine, &e->paused, err);
}

int sm_engine_resume(struct sm_engine *e, sm_error *err)
{
    return sm_machine_resume(e->machine, &e->paused, err);
}

bool sm_engine_is_paused(struct sm_engine *e)
{
    return sm_machine_is_paused(e->machine, &e->paused);
}

const struct sm_guest_clock *sm_engine_clock(struct sm_engine *e)
{
    return e ? sm_machine_clock(e->machine) : NULL;
}

/* ---- looking at it --------------------------------------------------------------------------- */

size_t sm_engine_console(const struct sm_engine *e, char *buf, size_t size)
{
    return sm_machine_console(e->machine, buf, size);
}

void sm_engine_last_lines(const struct sm_engine *e, char *buf, size_t size)
{
    sm_machine_last_lines(e->machine, buf, size);
}

void sm_engine_get_counters(const struct sm_engine *e, sm_vm_counters *counters)
{
    struct sm_hv_counters c;
    sm_machine_get_counters(e->machine, &c);
    *counters = (sm_vm_counters){
        .exits = c.exits,
        .instructions = c.instructions,
        .assists = c.assists,
        .mmio = c.by_kind[SM_HV_EXIT_MMIO],
        .pio = c.by_kind[SM_HV_EXIT_PIO],
    };
}

void sm_engine_get_timing(const struct sm_engine *e, struct sm_engine_timing *timing)
{
    struct sm_machine_timing t;
    sm_machine_get_timing(e->machine, &t);
    *timing = (struct sm_engine_timing){
        .created_ns = t.created_ns,
        .loaded_ns = t.loaded_ns,
        .entered_ns = t.entered_ns,
        .ram_map_us = e->times.ram_map,
        .vcpu_restore_us = e->times.vcpu_restore,
        .irqchip_restore_us = e->times.irqchip_restore,
        .clock_us = e->times.clock,
        .device_restore_us = e->times.device_restore,
    };
}
