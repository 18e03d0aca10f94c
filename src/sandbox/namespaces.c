/*
 * Namespaces of our own: see sandbox.h, step 4.
 *
 * One unshare(2) makes all of them. Where it fails they are tried one by one, so that each has its
 * own reason: a host may refuse those of users only (then root still gets the others), or have no
 * more of one kind to give.
 *
 * It runs before any list of system calls is in force.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "util/cleanup.h"
#include "util/error.h"

static const struct {
    int flag;
    enum sm_sandbox_layer layer;
} kinds[] = {
    /* First: who has it may make the others. */
    {CLONE_NEWUSER, SM_LAYER_USER_NAMESPACE},
    {CLONE_NEWNS, SM_LAYER_MOUNT_NAMESPACE},
    {CLONE_NEWIPC, SM_LAYER_IPC_NAMESPACE},
    {CLONE_NEWUTS, SM_LAYER_UTS_NAMESPACE},
    {CLONE_NEWNET, SM_LAYER_NETWORK_NAMESPACE},
};
#define KINDS (sizeof(kinds) / sizeof(kinds[0]))

static int write_file(const char *path, const char *text, sm_error *err)
{
    auto_fd fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        return sm_error_errno(err, errno, "cannot write %s", path);
    return 0;
}

/* In its new namespace the process is who it was. The kernel lets an unprivileged one map its group
 * only if it gives up setgroups(2) before; root has given up the right with its old namespace. */
static int map_ids(uid_t uid, gid_t gid, sm_error *err)
{
    char line[64];
    int rc = write_file("/proc/self/setgroups", "deny", err);
    if (!rc) {
        snprintf(line, sizeof(line), "%u %u 1\n", (unsigned)uid, (unsigned)uid);
        rc = write_file("/proc/self/uid_map", line, err);
    }
    if (!rc) {
        snprintf(line, sizeof(line), "%u %u 1\n", (unsigned)gid, (unsigned)gid);
        rc = write_file("/proc/self/gid_map", line, err);
    }
    return rc;
}

/* Makes those of `flags`: which it has made. */
static int make(int flags, struct sm_sandbox_layers *layers)
{
    int made = unshare(flags) == 0 ? flags : 0;
    for (size_t i = 0; i < KINDS; i++) {
        if (!(flags & kinds[i].flag))
            continue;
        if (made & kinds[i].flag || unshare(kinds[i].flag) == 0) {
            made |= kinds[i].flag;
            sm_layer_set(layers, kinds[i].layer, SM_LAYER_IN_FORCE, 0, NULL);
        } else {
            sm_layer_set(layers, kinds[i].layer, SM_LAYER_MISSING, errno, "the host refuses it");
        }
    }
    return made;
}

static void not_wanted(struct sm_sandbox_layers *layers)
{
    for (size_t i = 0; i < KINDS; i++)
        sm_layer_set(
            layers, kinds[i].layer, SM_LAYER_NOT_WANTED, 0, "it finds things by paths of the host");
}

void sm_sandbox_unshare(const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    int flags = 0;
    if (getpid() == 1)
        sm_layer_set(layers, SM_LAYER_PROCESS_NAMESPACE, SM_LAYER_IN_FORCE, 0, NULL);
    else
        sm_layer_set(
            layers, SM_LAYER_PROCESS_NAMESPACE, SM_LAYER_MISSING, 0, "it was started without one");
    if (spec->keeps_root) {
        not_wanted(layers);
        return;
    }
    for (size_t i = 0; i < KINDS; i++)
        flags |= kinds[i].flag;
    if (spec->has_network) {
        flags &= ~CLONE_NEWNET;
        sm_layer_set(layers, SM_LAYER_NETWORK_NAMESPACE, SM_LAYER_NOT_WANTED, 0,
            "it is the process with the sockets");
    }
    if (!(make(flags, layers) & CLONE_NEWUSER))
        return;
    /* Without them it is nobody there. That does no harm to who has descriptors only, and it is how
     * a process ends up that is started by a confined one. */
    sm_error why = {0};
    if (map_ids(uid, gid, &why))
        sm_layer_set(layers, SM_LAYER_USER_NAMESPACE, SM_LAYER_PARTLY, 0, "%.120s", why.message);
}
