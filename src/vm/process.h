/*
 * The attributes of a command's process, from the words in which a caller asks for them (those of
 * podman's options) to numbers for the agent, which believes them. What is wrong with a word is
 * told here, before there is a VM.
 */
#ifndef SM_VM_PROCESS_H
#define SM_VM_PROCESS_H

#include <supermachine.h>

#include "util/strv.h"
#include "wire/wire.h"

struct sm_process {
    struct sm_wire_process wire;
    /* what wire points to, besides what is the configuration's */
    uint8_t limits[SM_WIRE_MAX_LIMITS * SM_WIRE_LIMIT_SIZE];
    struct sm_strv tmpfs, hosts;
};

/* *process must be all zero; what was put into it is the caller's even after a failure. */
int sm_process_describe(const sm_exec_config *config, struct sm_process *process, sm_error *err);
void sm_process_clear(struct sm_process *process);

/* Nothing is asked for. */
bool sm_process_is_default(const sm_exec_config *config);

#endif
