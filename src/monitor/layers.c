/* See layers.h. */
#include "monitor/layers.h"

#include <stdio.h>
#include <stdlib.h>

#include "sandbox/calls.h"
#include "sandbox/sandbox.h"
#include "util/spawn.h"

#define LIMIT (1ULL << 30) /* any will do: what is told is whether it can be set */

int sm_layers_role(void)
{
    const struct sm_sandbox_spec spec = {
        .who = "supermachine-vm",
        .data_limit = LIMIT,
        .file_limit = LIMIT,
        .descriptor_limit = 64,
        .calls = &sm_calls_machine_setup,
        .trap_fd = SM_SPAWN_FIRST,
    };
    struct sm_sandbox_layers layers;
    sm_error err = {0};
    int rc = sm_sandbox_enter(&spec, &layers, &err);
    for (int i = 0; i < SM_LAYERS; i++)
        /* A process namespace is for who starts a VM to give. */
        if (layers.layer[i].state != SM_LAYER_NOT_WANTED && i != SM_LAYER_PROCESS_NAMESPACE)
            dprintf(SM_SPAWN_FIRST, "%s\t%s\t%s\n", sm_layer_state_name(layers.layer[i].state),
                sm_layer_name((enum sm_sandbox_layer)i), layers.layer[i].reason);
    if (rc)
        dprintf(SM_SPAWN_FIRST, "missing\tsandbox\t%s\n", err.message);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
