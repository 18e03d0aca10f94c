/* What a process is confined by, layer for layer, and why one is not there: for doctor, inspect and
 * a test to look at. */
#ifndef SM_SANDBOX_LAYERS_H
#define SM_SANDBOX_LAYERS_H

#include <stddef.h>

/* In the order in which they are told. */
enum sm_sandbox_layer {
    SM_LAYER_LIMITS,
    SM_LAYER_USER,
    SM_LAYER_USER_NAMESPACE,
    SM_LAYER_MOUNT_NAMESPACE,
    SM_LAYER_IPC_NAMESPACE,
    SM_LAYER_UTS_NAMESPACE,
    SM_LAYER_NETWORK_NAMESPACE,
    SM_LAYER_PROCESS_NAMESPACE,
    SM_LAYER_EMPTY_ROOT,
    SM_LAYER_NO_CAPABILITIES,
    SM_LAYER_NO_NEW_PRIVILEGES,
    SM_LAYER_NOT_DUMPABLE,
    SM_LAYER_LANDLOCK,
    SM_LAYER_SECCOMP,
    SM_LAYERS
};

enum sm_layer_state {
    SM_LAYER_MISSING,    /* the host or this build does not give it; the reason says why */
    SM_LAYER_NOT_WANTED, /* this process does without, by its specification */
    SM_LAYER_PARTLY,     /* in force, but for what the reason says */
    SM_LAYER_IN_FORCE
};

struct sm_sandbox_layers {
    struct {
        enum sm_layer_state state;
        char reason[160]; /* empty in force */
    } layer[SM_LAYERS];
};

/* "user namespace", ... */
const char *sm_layer_name(enum sm_sandbox_layer layer);
/* "missing", "not wanted", "partly", "in force" */
const char *sm_layer_state_name(enum sm_layer_state state);

/* Notes a state; the reason is a format, NULL: none. errnum 0, or what is appended in words. */
void sm_layer_set(struct sm_sandbox_layers *layers, enum sm_sandbox_layer layer,
    enum sm_layer_state state, int errnum, const char *reason, ...)
    __attribute__((format(printf, 5, 6)));

#endif
