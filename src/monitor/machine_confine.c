/*
 * The machine's process gives up what it has no need of. See machine.h and sandbox/sandbox.h.
 *
 * Memory: guest RAM is private and writable, and while a capture is taken there is a second copy of
 * what the guest used of it, and lists of its pages. All else is small.
 */
#include "monitor/machine_host.h"
#include "sandbox/calls.h"
#include "sandbox/sandbox.h"

#define DATA_BESIDES (1ull << 30) /* stacks, heaps, devices, the state in a snapshot (64 MiB) */
#define FILE_SPARE   (1ull << 30) /* of a snapshot, beside guest RAM */
#define DESCRIPTORS  8192         /* streams (4096 at most), and what each vCPU and device has */

int sm_machine_host_confine(
    struct machine_host *h, const struct sm_machine_shape *start, sm_error *err)
{
    const struct sm_sandbox_spec spec = {
        .who = "the VM's machine",
        .data_limit = 2 * start->memory_bytes + start->memory_bytes / 4096 + DATA_BESIDES,
        .file_limit = start->memory_bytes + FILE_SPARE,
        .descriptor_limit = DESCRIPTORS,
        .calls = &sm_calls_machine_setup,
        .trap_fd = SM_MACHINE_END,
    };
    return sm_sandbox_enter(&spec, &h->layers, err);
}

int sm_machine_host_tighten(sm_error *err)
{
    return sm_sandbox_tighten(&sm_calls_machine_run, err);
}
