/* sm_vm, for the files of this directory. */
#ifndef SM_API_VM_H
#define SM_API_VM_H

#include <supermachine.h>

#include "api/channel.h"
#include "api/image_config.h"

const struct sm_image_config *sm_vm_image_config(const sm_vm *vm);

/* A connection to the agent: the one it opened itself if nobody has used it yet, or a new one. */
int sm_vm_channel(sm_vm *vm, struct sm_channel *channel, sm_error *err);

#endif
