/* Files of a VM. See files.h. */
#include "vm/files.h"

#include "util/error.h"
#include "vm/agent/files.h"

int sm_vm_put_file(
    sm_vm *vm, const struct sm_wire_write_file *file, const void *data, sm_error *err)
{
    int rc = sm_agent_check_path(file->path, err);
    if (rc)
        return rc;
    if (file->size > SM_WIRE_MAX_FILE)
        return sm_error_set(err, SM_ELIMIT, "a file of %llu bytes is too large; 1 GiB at most",
            (unsigned long long)file->size);
    struct sm_channel channel;
    rc = sm_vm_channel(vm, &channel, err);
    if (rc)
        return rc;
    rc = sm_agent_put_file(&channel, file, data, err);
    sm_channel_close(&channel);
    return rc ? sm_error_prefix(err, rc, "cannot write '%.256s' in the VM", file->path) : 0;
}

int sm_vm_get_file(
    sm_vm *vm, const struct sm_wire_read_file *file, void **data, size_t *size, sm_error *err)
{
    struct sm_channel channel;
    int rc = sm_agent_check_path(file->path, err);
    if (!rc)
        rc = sm_vm_channel(vm, &channel, err);
    if (rc)
        return rc;
    rc = sm_agent_get_file(&channel, file, data, size, err);
    sm_channel_close(&channel);
    return rc ? sm_error_prefix(err, rc, "cannot read '%.256s' in the VM", file->path) : 0;
}
