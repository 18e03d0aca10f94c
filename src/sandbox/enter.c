/* The steps of sandbox.h in their order. */
#include "sandbox/build.h"
#include "sandbox/internal.h"

static int confine(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err)
{
    int rc;
    if ((rc = sm_sandbox_catch(spec->who, spec->trap_fd, err)) ||
        (rc = sm_sandbox_limit(spec, layers, err)) ||
        (rc = sm_sandbox_change_user(spec, layers, err)))
        return rc;
    sm_sandbox_unshare(spec, layers);
    sm_sandbox_empty_root(spec, layers);
    if ((rc = sm_sandbox_drop_privileges(spec, layers, err)))
        return rc;
    sm_sandbox_landlock(spec, layers);
    if (!spec->calls) {
        sm_layer_set(layers, SM_LAYER_SECCOMP, SM_LAYER_NOT_WANTED, 0, "it has no list");
        return 0;
    }
    rc = sm_sandbox_tighten(spec->calls, err);
    if (!rc)
        sm_layer_set(layers, SM_LAYER_SECCOMP, SM_LAYER_IN_FORCE, 0, NULL);
    return rc;
}

int sm_sandbox_enter(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err)
{
    for (int i = 0; i < SM_LAYERS; i++)
        sm_layer_set(layers, (enum sm_sandbox_layer)i, SM_LAYER_MISSING, 0,
            SM_SANDBOX_OFF ? "this build has sanitizers, which a sandbox would end"
                           : "it did not come to that");
    return SM_SANDBOX_OFF ? 0 : confine(spec, layers, err);
}
