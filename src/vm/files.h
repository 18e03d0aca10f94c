/* Files of a VM, through its agent. */
#ifndef SM_VM_FILES_H
#define SM_VM_FILES_H

#include "vm/vm.h"

/* As sm_vm_write_file and sm_vm_read_file of the public API. */
int sm_vm_put_file(sm_vm *vm, const char *path, const void *data, size_t size, mode_t mode,
    uid_t uid, gid_t gid, sm_error *err);
int sm_vm_get_file(
    sm_vm *vm, const char *path, size_t max, void **data, size_t *size, sm_error *err);

#endif
