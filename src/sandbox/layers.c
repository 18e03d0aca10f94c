/* See layers.h. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "sandbox/layers.h"

static const char *const names[SM_LAYERS] = {
    [SM_LAYER_LIMITS] = "limits",
    [SM_LAYER_USER] = "another user",
    [SM_LAYER_USER_NAMESPACE] = "user namespace",
    [SM_LAYER_MOUNT_NAMESPACE] = "mount namespace",
    [SM_LAYER_IPC_NAMESPACE] = "ipc namespace",
    [SM_LAYER_UTS_NAMESPACE] = "uts namespace",
    [SM_LAYER_NETWORK_NAMESPACE] = "network namespace",
    [SM_LAYER_PROCESS_NAMESPACE] = "process namespace",
    [SM_LAYER_EMPTY_ROOT] = "empty root",
    [SM_LAYER_NO_CAPABILITIES] = "no capabilities",
    [SM_LAYER_NO_NEW_PRIVILEGES] = "no new privileges",
    [SM_LAYER_NOT_DUMPABLE] = "not dumpable",
    [SM_LAYER_LANDLOCK] = "landlock",
    [SM_LAYER_SECCOMP] = "seccomp",
};

const char *sm_layer_name(enum sm_sandbox_layer layer)
{
    return names[layer];
}

const char *sm_layer_state_name(enum sm_layer_state state)
{
    static const char *const words[] = {
        [SM_LAYER_MISSING] = "missing",
        [SM_LAYER_NOT_WANTED] = "not wanted",
        [SM_LAYER_PARTLY] = "partly",
        [SM_LAYER_IN_FORCE] = "in force",
    };
    return words[state];
}

void sm_layer_set(struct sm_sandbox_layers *layers, enum sm_sandbox_layer layer,
    enum sm_layer_state state, int errnum, const char *reason, ...)
{
    char *text = layers->layer[layer].reason;
    size_t size = sizeof(layers->layer[layer].reason);
    layers->layer[layer].state = state;
    text[0] = '\0';
    if (!reason)
        return;
    va_list args;
    va_start(args, reason);
    vsnprintf(text, size, reason, args);
    va_end(args);
    size_t used = strlen(text);
    if (errnum)
        snprintf(text + used, size - used, ": %s", strerrordesc_np(errnum));
}
