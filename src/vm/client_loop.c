/* The loop of a VM's client. See client_loop.h. */
#include "vm/client_loop.h"

#include "util/loop.h"

int sm_vm_loop(sm_vm *vm, struct sm_loop **loop, sm_error *err)
{
    struct sm_loop *fresh = NULL;
    int rc = 0;
    pthread_mutex_lock(&vm->lock);
    if (!vm->loop)
        rc = sm_loop_create(&fresh, err);
    if (fresh)
        rc = sm_loop_start(fresh, "vm-client", err);
    if (rc)
        sm_loop_destroy(fresh);
    else if (fresh)
        vm->loop = fresh;
    *loop = vm->loop;
    pthread_mutex_unlock(&vm->lock);
    return rc;
}

void sm_vm_end_loop(sm_vm *vm)
{
    sm_loop_destroy(vm->loop);
    vm->loop = NULL;
}
