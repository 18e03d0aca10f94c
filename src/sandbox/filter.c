/*
 * Lists of system calls, put into force: sandbox.h, step 10, and sm_sandbox_tighten.
 *
 * System calls: seccomp(SECCOMP_SET_MODE_FILTER).
 */
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/build.h"
#include "sandbox/sandbox.h"
#include "util/error.h"

int sm_sandbox_tighten(const struct sm_sandbox_calls *calls, sm_error *err)
{
    if (SM_SANDBOX_OFF)
        return 0;
    /* The kernel's structure has no const; it only reads. */
    struct sock_fprog program = {
        .len = calls->length, .filter = (struct sock_filter *)(uintptr_t)calls->filter};
    long rc = syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
        calls->one_thread ? 0 : SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (rc < 0)
        return sm_error_errno(
            err, errno, "cannot put the list of system calls \"%s\" into force", calls->name);
    if (rc > 0)
        return sm_error_set(err, SM_EBUSY,
            "cannot put the list of system calls \"%s\" into force: thread %ld has one of its own",
            calls->name, rc);
    return 0;
}
