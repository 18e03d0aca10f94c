/* The steps of sandbox.h, for enter.c to put in order. Each notes its layers, and fails only where
 * no host has a reason to refuse it. */
#ifndef SM_SANDBOX_INTERNAL_H
#define SM_SANDBOX_INTERNAL_H

#include <errno.h>

#include "sandbox/sandbox.h"

/* A listed path that is not there, or is closed to us anyway. */
static inline bool sm_sandbox_is_left_out(int errnum)
{
    return errnum == ENOENT || errnum == ENOTDIR || errnum == EACCES;
}

/* limits.c */
int sm_sandbox_limit(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err);

/* privileges.c */
int sm_sandbox_change_user(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err);
int sm_sandbox_drop_privileges(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err);

/* namespaces.c */
void sm_sandbox_unshare(const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers);

/* root.c; needs the mount namespace, and says so where it is not there. */
void sm_sandbox_empty_root(const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers);

/* landlock.c; paths are looked up in the root that is there then. */
void sm_sandbox_landlock(const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers);

/* trap.c: the handler of SIGSYS. */
int sm_sandbox_catch(const char *who, int fd, sm_error *err);

#endif
