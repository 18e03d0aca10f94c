/* What a machine that runs is asked. See control/machine_call.h. */
#include <stdlib.h>
#include <string.h>

#include "devices/vsock/vsock.h"
#include "hypervisor/hypervisor.h"
#include "monitor/machine_host.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

static int refuse(sm_error *err)
{
    return sm_error_set(err, SM_EPROTOCOL, "the machine was asked for what it does not know");
}

/* ---- what may take its time ------------------------------------------------------------------ */

static int written(struct machine_host *h, struct sm_machine_message *m,
    struct sm_machine_reply *reply, sm_error *err)
{
    struct sm_ram ram;
    struct sm_page_set *pages;
    if (m->n_fds != 1)
        return refuse(err);
    int rc = sm_machine_pause(h->machine, &h->paused, err);
    sm_machine_ram(h->machine, &ram);
    if (!rc)
        rc = sm_page_set_scan(&ram, true, &pages, err);
    if (rc)
        return rc;
    size_t bytes = (pages->n_pages / 64 + 1) * sizeof(uint64_t);
    if (pages->changed && sm_write_at(m->fds[0], pages->changed, bytes, 0))
        rc = sm_error_set(err, SM_EIO, "cannot tell which pages were written");
    else
        reply->pages = pages->changed ? pages->n_pages : 0;
    sm_page_set_free(pages);
    return rc;
}

void sm_machine_host_life(
    struct machine_host *h, struct sm_machine_message *m, struct sm_machine_reply *reply)
{
    sm_error err;
    int rc = 0;
    switch (m->request.call) {
    case SM_CALL_PAUSE:
        rc = sm_machine_pause(h->machine, &h->paused, &err);
        break;
    case SM_CALL_RESUME:
        rc = sm_machine_resume(h->machine, &h->paused, &err);
        break;
    case SM_CALL_WRITTEN:
        rc = written(h, m, reply, &err);
        break;
    case SM_CALL_QUIET:
        reply->yes = sm_vsock_wait_quiet(sm_machine_vsock(h->machine), (int)m->request.ms);
        break;
    case SM_CALL_CAPTURE:
    case SM_CALL_CAPTURE_RESUME:
    case SM_CALL_CAPTURE_WRITE:
    case SM_CALL_CAPTURE_FREE:
        sm_machine_host_capture(h, m, reply);
        return;
    default:
        rc = refuse(&err);
    }
    if (rc)
        sm_machine_reply_failed(reply, rc, &err);
}

/* ---- what takes no time ---------------------------------------------------------------------- */

static int console(struct machine_host *h, struct sm_machine_message *m,
    struct sm_machine_reply *reply, sm_error *err)
{
    size_t room = sm_machine_console(h->machine, NULL, 0) + 1;
    room = SM_MIN(room, (size_t)m->request.size);
    auto_free char *text = malloc(room + 1);
    if (m->n_fds != 1)
        return refuse(err);
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "no memory for the console");
    *text = '\0';
    reply->console = sm_machine_console(h->machine, text, room);
    size_t have = room ? SM_MIN(reply->console, (uint64_t)room - 1) : 0;
    if (sm_write_at(m->fds[0], text, have, 0))
        return sm_error_set(err, SM_EIO, "cannot hand out the console");
    return 0;
}

static void counters(struct machine_host *h, struct sm_machine_reply *reply)
{
    struct sm_hv_counters c;
    sm_machine_get_counters(h->machine, &c);
    reply->counters = (sm_vm_counters){
        .exits = c.exits,
        .instructions = c.instructions,
        .assists = c.assists,
        .mmio = c.by_kind[SM_HV_EXIT_MMIO],
        .pio = c.by_kind[SM_HV_EXIT_PIO],
    };
}

static void timing(struct machine_host *h, struct sm_machine_reply *reply)
{
    struct sm_machine_timing t;
    sm_machine_get_timing(h->machine, &t);
    reply->timing = (struct sm_machine_timing_reply){
        .created_ns = t.created_ns,
        .loaded_ns = t.loaded_ns,
        .entered_ns = t.entered_ns,
        .ram_map_us = h->times.ram_map,
        .vcpu_restore_us = h->times.vcpu_restore,
        .irqchip_restore_us = h->times.irqchip_restore,
        .clock_us = h->times.clock,
        .device_restore_us = h->times.device_restore,
    };
}

void sm_machine_host_quick(
    struct machine_host *h, struct sm_machine_message *m, struct sm_machine_reply *reply)
{
    sm_error err;
    int rc = 0;
    switch (m->request.call) {
    case SM_CALL_END_STREAMS:
        sm_vsock_end(sm_machine_vsock(h->machine));
        break;
    case SM_CALL_HALTED:
        reply->yes = sm_machine_end_halted(h->machine);
        break;
    case SM_CALL_IS_PAUSED:
        reply->yes = sm_machine_is_paused(h->machine, &h->paused);
        break;
    case SM_CALL_KILL:
        sm_machine_kill(h->machine);
        break;
    case SM_CALL_CONSOLE:
        rc = console(h, m, reply, &err);
        break;
    case SM_CALL_LAST_LINES:
        sm_machine_last_lines(
            h->machine, reply->text, SM_MIN(sizeof(reply->text), (size_t)m->request.size));
        break;
    case SM_CALL_COUNTERS:
        counters(h, reply);
        break;
    case SM_CALL_TIMING:
        timing(h, reply);
        break;
    default:
        rc = refuse(&err);
    }
    if (rc)
        sm_machine_reply_failed(reply, rc, &err);
}
