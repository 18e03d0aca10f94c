/*
 * What a command is, as it is asked of the agent: what the caller says, and for all that he leaves
 * open what the image's configuration says.
 */
#ifndef SM_VM_COMMAND_H
#define SM_VM_COMMAND_H

#include <supermachine.h>

#include "image/image_config.h"
#include "util/strv.h"
#include "vm/process.h"
#include "wire/wire.h"

/* The argv and env that an exec of this image runs with, see sm_exec_config. Both must be empty;
 * what was put into them is the caller's even after a failure. */
int sm_command_argv(const struct sm_oci_config *image, const sm_exec_config *exec,
    struct sm_strv *argv, sm_error *err);
int sm_command_env(const struct sm_oci_config *image, const sm_exec_config *exec,
    struct sm_strv *env, sm_error *err);

/* A command in all its parts; the message points into the others, into config and image. */
struct sm_command {
    struct sm_strv argv, env;
    struct sm_process process;
    struct sm_wire_exec wire;
};

/* *command must be all zero; what was put into it is the caller's even after a failure. */
int sm_command_describe(const struct sm_oci_config *image, const sm_exec_config *config,
    struct sm_command *command, sm_error *err);
void sm_command_clear(struct sm_command *command);

#define auto_command __attribute__((cleanup(sm_command_clear))) struct sm_command

/* Makes it the one that the container is of, its process 1; *systemd: and what that is prepared for
 * as systemd. */
int sm_command_be_first(
    const sm_exec_config *config, struct sm_command *command, bool *systemd, sm_error *err);

/* What SM_SIGNAL_STOP means for it. */
int sm_command_stop_signal(const struct sm_oci_config *image, const sm_exec_config *config,
    bool systemd, int *signal, sm_error *err);

/* Of this argv, which is not empty: see enum sm_systemd. */
bool sm_command_is_systemd(const struct sm_strv *argv, const sm_exec_config *config);

/* What is wrong with it, before there is a VM. */
int sm_command_check(
    const struct sm_oci_config *image, const sm_exec_config *config, sm_error *err);

/* As sm_exec_is_default of the public API: nothing is asked for but to see the output of what the
 * VM was made for. */
bool sm_command_is_default(const sm_exec_config *config);

/* The same, but that a terminal is to be what it is seen by. */
bool sm_command_is_terminal(const sm_exec_config *config);

#endif
