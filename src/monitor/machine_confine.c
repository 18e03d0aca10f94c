/*
 * The machine's process gives up what it has no need of. See machine.h and sandbox/sandbox.h.
 *
 * Memory: guest RAM is private and writable, and each capture reserves as much again, of which it
 * uses what the guest did, and lists of its pages. All else is small.
 */
#include <unistd.h>

#include "monitor/machine_host.h"
#include "sandbox/calls.h"
#include "sandbox/sandbox.h"
#include "util/loop.h"

#define DATA_BESIDES (1ull << 30) /* stacks, heaps, devices, the state in a snapshot (64 MiB) */
#define FILE_SPARE   (1ull << 30) /* of a snapshot, beside guest RAM */
#define DESCRIPTORS  8192         /* streams (4096 at most), and what each vCPU and device has */

int sm_machine_host_confine(
    struct machine_host *h, const struct sm_machine_shape *start, sm_error *err)
{
    const struct sm_sandbox_spec spec = {
        .who = "the VM's machine",
        .data_limit =
            (1 + SM_MACHINE_CAPTURES) * (start->memory_bytes + start->memory_bytes / 512) +
            DATA_BESIDES,
        .file_limit = start->memory_bytes + FILE_SPARE,
        .descriptor_limit = DESCRIPTORS,
        .change_user = start->uid != 0,
        .uid = start->uid,
        .gid = start->uid,
        .calls = &sm_calls_machine_setup,
        .trap_fd = SM_MACHINE_END,
    };
    return sm_sandbox_enter(&spec, &h->layers, err);
}

/* The first thing that the device thread does; without it there is no machine. */
static void tighten_device_thread(void *arg)
{
    (void)arg;
    if (sm_sandbox_tighten(&sm_calls_machine_device, NULL))
        _exit(1);
}

int sm_machine_host_tighten(struct machine_host *h, sm_error *err)
{
    int rc = sm_sandbox_tighten(&sm_calls_machine_run, err);
    return rc ? rc : sm_loop_post(sm_machine_loop(h->machine), tighten_device_thread, NULL, err);
}

int sm_machine_host_tighten_vcpu(sm_error *err)
{
    return sm_sandbox_tighten(&sm_calls_machine_vcpu, err);
}
