/* How a VM is started. See start.h. */
#include "vm/start.h"

#include "util/cleanup.h"
#include "util/clock.h"
#include "vm/bake.h"
#include "vm/bring_up.h"
#include "vm/ports.h"

static int restore_baked(sm_vm *vm, const struct sm_vm_plan *plan, sm_error *err)
{
    auto_free char *path = NULL;
    int rc = sm_bake_find(vm, plan, &path, err);
    return rc ? rc : sm_vm_restore(vm, plan, path, err);
}

static int come_up(sm_vm *vm, const struct sm_vm_plan *plan, sm_error *err)
{
    switch (plan->from) {
    case SM_FROM_FILE:
        return sm_vm_restore(vm, plan, plan->file, err);
    case SM_FROM_BOOT:
        return sm_vm_boot(vm, plan, err);
    case SM_FROM_BAKED:
        break;
    }
    return restore_baked(vm, plan, err);
}

int sm_vm_bring_up(sm_image *image, const struct sm_vm_plan *plan, sm_vm **vm, sm_error *err)
{
    sm_vm *v;
    int rc = sm_vm_check_ports(&image->config, &plan->network, err);
    if (!rc)
        rc = sm_vm_new(image, plan, sm_now_ns(), &v, err);
    if (rc)
        return rc;
    rc = come_up(v, plan, err);
    if (!rc)
        rc = sm_vm_follow_ports(v, &plan->network, err);
    if (rc)
        sm_vm_free(v);
    else
        *vm = v;
    return rc;
}
