/* Files of a VM. */
#ifndef SM_VM_FILES_H
#define SM_VM_FILES_H

#include "vm/vm.h"

/* As sm_vm_write_file and sm_vm_read_file of the public API. */
int sm_vm_put_file(
    sm_vm *vm, const struct sm_wire_write_file *file, const void *data, sm_error *err);
int sm_vm_get_file(
    sm_vm *vm, const struct sm_wire_read_file *file, void **data, size_t *size, sm_error *err);

#endif
