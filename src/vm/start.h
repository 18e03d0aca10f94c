/* Starting a VM: booted, or restored from what is baked (and is baked first where it is not), or
 * from a file. */
#ifndef SM_VM_START_H
#define SM_VM_START_H

#include "vm/vm.h"

int sm_vm_bring_up(sm_image *image, const struct sm_vm_plan *plan, sm_vm **vm, sm_error *err);

#endif
