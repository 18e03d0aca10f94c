/* How a VM is started. See start.h. */
#include "vm/start.h"

#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "vm/bake.h"

int sm_vm_bring_up(sm_image *image, const sm_vm_config *config, sm_vm **vm, sm_error *err)
{
    if (config->cold && config->snapshot)
        return sm_error_set(err, SM_EINVAL, "a VM is either restored from '%s' or booted, not both",
            config->snapshot);
    uint64_t start_ns = sm_now_ns();
    sm_vm *v;
    int rc = sm_vm_new(image, config, start_ns, &v, err);
    if (rc)
        return rc;
    if (config->snapshot) {
        rc = sm_vm_restore(v, config, config->snapshot, err);
    } else if (config->cold) {
        rc = sm_vm_boot(v, config, err);
    } else {
        auto_free char *path = NULL;
        rc = sm_bake_find(v, config, &path, err);
        if (!rc)
            rc = sm_vm_restore(v, config, path, err);
    }
    if (!rc)
        rc = sm_vm_network_open(&v->network, v->machine, &v->image->config, config, err);
    if (!rc && (v->service_pid || v->network.n_known))
        sm_vm_network_watch(&v->network);
    if (rc) {
        sm_vm_free(v);
        return rc;
    }
    *vm = v;
    return 0;
}
