/*
 * User, capabilities and what a process may become. All of it is the thread's, hence one thread.
 *
 * It runs before any list of system calls is in force.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "util/error.h"

/* capget(2) and capset(2) have no wrapper in libc; version 3 has two words of 32 bits. */
#define CAP_WORDS   2
#define FILE_RIGHTS (1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_DAC_READ_SEARCH | 1ULL << CAP_FOWNER)

static int get_caps(struct __user_cap_data_struct caps[CAP_WORDS])
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    return (int)syscall(SYS_capget, &head, caps);
}

static int set_caps(const struct __user_cap_data_struct caps[CAP_WORDS])
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    return (int)syscall(SYS_capset, &head, caps);
}

/* What setresuid left as permitted becomes effective again. */
static int raise_caps(void)
{
    struct __user_cap_data_struct caps[CAP_WORDS] = {{0}};
    if (get_caps(caps) < 0)
        return -1;
    for (int i = 0; i < CAP_WORDS; i++)
        caps[i].effective = caps[i].permitted;
    return set_caps(caps);
}

int sm_sandbox_change_user(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err)
{
    if (!spec->change_user) {
        sm_layer_set(layers, SM_LAYER_USER, SM_LAYER_NOT_WANTED, 0, "it is user %u's own process",
            (unsigned)geteuid());
        return 0;
    }
    if (prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0 || setgroups(0, NULL) < 0 ||
        setresgid(spec->gid, spec->gid, spec->gid) < 0 ||
        setresuid(spec->uid, spec->uid, spec->uid) < 0 || raise_caps() < 0) {
        int errnum = errno;
        sm_layer_set(layers, SM_LAYER_USER, SM_LAYER_MISSING, errnum, "it cannot be changed");
        return sm_error_errno(err, errnum, "cannot become user %u, group %u", (unsigned)spec->uid,
            (unsigned)spec->gid);
    }
    /* /proc/self is root's after a change of user; the maps of a namespace are written there. */
    prctl(PR_SET_DUMPABLE, 1, 0, 0, 0);
    sm_layer_set(layers, SM_LAYER_USER, SM_LAYER_IN_FORCE, 0, NULL);
    return 0;
}

/* What it had of those that `kept` names by bits. */
static int keep_caps(uint64_t kept)
{
    struct __user_cap_data_struct had[CAP_WORDS], caps[CAP_WORDS] = {{0}};
    if (get_caps(had) < 0)
        return -1;
    for (int i = 0; i < CAP_WORDS; i++)
        caps[i].effective = caps[i].permitted = had[i].permitted & (uint32_t)(kept >> (32 * i));
    return set_caps(caps);
}

/* The bounding set says what an exec could give: without CAP_SETPCAP it stays, and no new
 * privileges says the same. */
static int drop_caps(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err)
{
    uint64_t kept = spec->keeps_file_rights ? FILE_RIGHTS : 0;
    struct __user_cap_data_struct left[CAP_WORDS];
    bool bounded = true;
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        bounded = prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0 && bounded;
    /* The ambient set follows what is permitted; it is asked to go all the same. */
    prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
    if (keep_caps(kept) < 0 || get_caps(left) < 0)
        return sm_error_errno(err, errno, "cannot give up capabilities");
    uint32_t some = 0;
    for (int i = 0; i < CAP_WORDS; i++) {
        some |= left[i].permitted;
        if ((left[i].effective | left[i].permitted | left[i].inheritable) &
            ~(uint32_t)(kept >> (32 * i)))
            return sm_error_set(err, SM_EPERM, "capabilities are left after all were given up");
    }
    bool all = bounded && !some;
    sm_layer_set(layers, SM_LAYER_NO_CAPABILITIES, all ? SM_LAYER_IN_FORCE : SM_LAYER_PARTLY, 0,
        all    ? NULL
        : some ? "it keeps those that root reads and writes others' files by"
               : "the bounding set stays, which takes CAP_SETPCAP to change");
    return 0;
}

int sm_sandbox_drop_privileges(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err)
{
    int rc = drop_caps(spec, layers, err);
    if (rc)
        return rc;
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return sm_error_errno(err, errno, "cannot give up new privileges");
    sm_layer_set(layers, SM_LAYER_NO_NEW_PRIVILEGES, SM_LAYER_IN_FORCE, 0, NULL);
    if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
        return sm_error_errno(err, errno, "cannot become a process that nobody traces");
    sm_layer_set(layers, SM_LAYER_NOT_DUMPABLE, SM_LAYER_IN_FORCE, 0, NULL);
    return 0;
}
