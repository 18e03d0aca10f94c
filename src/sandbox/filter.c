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
#include "sandbox/calls.h"
#include "sandbox/sandbox.h"
#include "util/error.h"

int sm_sandbox_tighten(const struct sm_sandbox_calls *calls, sm_error *err)
{
    if (SM_SANDBOX_OFF)
        return 0;
    struct sock_filter filter[SM_SANDBOX_LONGEST];
    struct sock_fprog program = {.len = calls->length, .filter = filter};
    if (calls->length > SM_SANDBOX_LONGEST)
        return sm_error_set(
            err, SM_ELIMIT, "the list of system calls \"%s\" is too long", calls->name);
    for (unsigned i = 0; i < calls->length; i++) {
        filter[i] = calls->filter[i];
        if (BPF_CLASS(filter[i].code) == BPF_JMP && filter[i].k == SM_SANDBOX_SELF)
            filter[i].k = (uint32_t)getpid();
    }
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
