/* How a VM is started. See start.h. */
#include "vm/start.h"

#include "util/cleanup.h"
#include "util/clock.h"
#include "vm/bake.h"
#include "vm/bring_up.h"
#include "vm/command.h"
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
    case SM_FROM_BOOT: {
        int rc = sm_vm_try_ports(vm, &plan->network, err);
        return rc ? rc : sm_vm_boot(vm, plan, err);
    }
    case SM_FROM_BAKED:
        break;
    }
    return restore_baked(vm, plan, err);
}

/* What is wrong with what is asked for, before anything is made for it. In a file of the user's the
 * command may be running that the image does not name. */
static int check(const sm_image *image, const struct sm_vm_plan *plan, sm_error *err)
{
    const sm_exec_config *command = plan->command;
    int rc = sm_vm_check_ports(&image->config, &plan->network, err);
    if (rc || !command || (plan->from == SM_FROM_FILE && sm_command_is_default(command)))
        return rc;
    return sm_command_check(&image->config, command, err);
}

int sm_vm_bring_up(sm_image *image, const struct sm_vm_plan *plan, sm_vm **vm, sm_error *err)
{
    sm_vm *v;
    int rc = check(image, plan, err);
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
