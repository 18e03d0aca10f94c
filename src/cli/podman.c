/* Options of `podman run` without a meaning here. See podman.h. */
#include "cli/podman.h"

#include <getopt.h>
#include <string.h>

#include "util/bytes.h"

#define FIRST 0x400 /* of the ids without a letter */

/* id, name, argument, and which values are taken and do nothing: NULL any, "" none; what to do
 * instead of the others. */
#define ROWS(X)                                                                                            \
    X(FIRST + 0, "annotation", "KEY=VALUE", NULL, NULL)                                                    \
    X(FIRST + 1, "arch", "ARCH", "", "say --platform linux/ARCH")                                          \
    X('a', "attach", "STREAM", "",                                                                         \
        "output is always passed on, and standard input with --interactive")                               \
    X(FIRST + 3, "blkio-weight", "WEIGHT", NULL, NULL)                                                     \
    X(FIRST + 4, "blkio-weight-device", "DEVICE:WEIGHT", NULL, NULL)                                       \
    X(FIRST + 5, "cgroup-conf", "SETTING", "",                                                             \
        "the control groups are the guest's own; write to /sys/fs/cgroup in it")                           \
    X(FIRST + 6, "cgroup-parent", "PATH", "", "start supermachine itself in the control group")            \
    X(FIRST + 7, "cgroupns", "MODE", "private", NULL)                                                      \
    X(FIRST + 8, "cgroups", "MODE", NULL, NULL)                                                            \
    X(FIRST + 9, "chrootdirs", "DIR", "", "put the files into the image")                                  \
    X(FIRST + 10, "cidfile", "FILE", "", "choose a name with --name")                                      \
    X(FIRST + 11, "conmon-pidfile", "FILE", "",                                                            \
        "there is no other process; take supermachine's own PID")                                          \
    X(FIRST + 12, "cpu-period", "N", "", "say the number of CPUs with --cpus")                             \
    X(FIRST + 13, "cpu-quota", "N", "", "say the number of CPUs with --cpus")                              \
    X(FIRST + 14, "cpu-rt-period", "N", "", "start supermachine with chrt")                                \
    X(FIRST + 15, "cpu-rt-runtime", "N", "", "start supermachine with chrt")                               \
    X('c', "cpu-shares", "SHARES", NULL, NULL)                                                             \
    X(FIRST + 17, "cpuset-cpus", "LIST", "", "start supermachine with taskset")                            \
    X(FIRST + 18, "cpuset-mems", "LIST", "", "start supermachine with numactl")                            \
    X('d', "detach", NULL, "",                                                                             \
        "a VM cannot be left behind yet; put supermachine into the background")                            \
    X(FIRST + 20, "detach-keys", "KEYS", NULL, NULL)                                                       \
    X(FIRST + 21, "device", "DEVICE", "", "devices of the host cannot be given to a VM")                   \
    X(FIRST + 22, "device-cgroup-rule", "RULE", "", "devices of the host cannot be given to a VM")         \
    X(FIRST + 23, "device-read-bps", "LIMIT", "",                                                          \
        "start supermachine in a control group with that limit")                                           \
    X(FIRST + 24, "device-read-iops", "LIMIT", "",                                                         \
        "start supermachine in a control group with that limit")                                           \
    X(FIRST + 25, "device-write-bps", "LIMIT", "",                                                         \
        "start supermachine in a control group with that limit")                                           \
    X(FIRST + 26, "device-write-iops", "LIMIT", "",                                                        \
        "start supermachine in a control group with that limit")                                           \
    X(FIRST + 27, "disable-content-trust", NULL, NULL, NULL)                                               \
    X(FIRST + 28, "env-merge", "NAME=VALUE", "", "give the whole value with --env")                        \
    X(FIRST + 29, "gidmap", "MAP", "", "ids in a VM are its own, and none is the host's")                  \
    X(FIRST + 30, "health-cmd", "COMMAND", NULL, NULL)                                                     \
    X(FIRST + 31, "health-interval", "TIME", NULL, NULL)                                                   \
    X(FIRST + 32, "health-on-failure", "ACTION", "none", NULL)                                             \
    X(FIRST + 33, "health-retries", "N", NULL, NULL)                                                       \
    X(FIRST + 34, "health-start-period", "TIME", NULL, NULL)                                               \
    X(FIRST + 35, "health-timeout", "TIME", NULL, NULL)                                                    \
    X(FIRST + 36, "hostuser", "NAME", "", "put the user into the image")                                   \
    X(FIRST + 37, "image-volume", "MODE", "bind ignore", NULL)                                             \
    X(FIRST + 38, "init-path", "PATH", "", "--init has a program of its own")                              \
    X(FIRST + 39, "ip", "ADDRESS", "",                                                                     \
        "an address of its own comes with --network tap:IF,ip=ADDRESS/LENGTH")                             \
    X(FIRST + 40, "ip6", "ADDRESS", "",                                                                    \
        "an address of its own comes with --network tap:IF,ip6=ADDRESS/LENGTH")                            \
    X(FIRST + 41, "ipc", "MODE", "private shareable", NULL)                                                \
    X('l', "label", "KEY=VALUE", NULL, NULL)                                                               \
    X(FIRST + 43, "label-file", "FILE", NULL, NULL)                                                        \
    X(FIRST + 44, "log-driver", "DRIVER", NULL, NULL)                                                      \
    X(FIRST + 45, "log-opt", "OPTION", NULL, NULL)                                                         \
    X(FIRST + 46, "mac-address", "MAC", "",                                                                \
        "an address of its own comes with --network tap:IF,mac=MAC")                                       \
    X(FIRST + 47, "memory-reservation", "SIZE", NULL, NULL)                                                \
    X(FIRST + 48, "memory-swap", "SIZE", NULL, NULL)                                                       \
    X(FIRST + 49, "memory-swappiness", "N", NULL, NULL)                                                    \
    X(FIRST + 50, "mount", "MOUNT", "", "volumes are not possible yet; --tmpfs is")                        \
    X(FIRST + 51, "network-alias", "NAME", "", "VMs do not know each other by name")                       \
    X(FIRST + 52, "no-healthcheck", NULL, NULL, NULL)                                                      \
    X(FIRST + 53, "no-hosts", NULL, "", "the guest's /etc/hosts is its own; change it there")              \
    X(FIRST + 54, "oom-kill-disable", NULL, "",                                                            \
        "a guest without memory must end something; give more with --memory")                              \
    X(FIRST + 55, "os", "OS", "", "say --platform OS/ARCH")                                                \
    X(FIRST + 56, "passwd", "=BOOL", NULL, NULL)                                                           \
    X(FIRST + 57, "passwd-entry", "ENTRY", "", "put the user into the image")                              \
    X(FIRST + 58, "personality", "MODE", "", "start the command with setarch")                             \
    X(FIRST + 59, "pid", "MODE", "private", NULL)                                                          \
    X(FIRST + 60, "pidfile", "FILE", "",                                                                   \
        "the command has no process on this host; take supermachine's own PID")                            \
    X(FIRST + 61, "pids-limit", "N", NULL, NULL)                                                           \
    X(FIRST + 62, "pod", "POD", "", "there are no pods")                                                   \
    X(FIRST + 63, "pod-id-file", "FILE", "", "there are no pods")                                          \
    X(FIRST + 64, "preserve-fds", "N", "",                                                                 \
        "a VM has no descriptors of the host but the standard streams")                                    \
    X(FIRST + 65, "replace", NULL, "", "end the VM of that name first")                                    \
    X(FIRST + 66, "requires", "NAME", "", "start what it needs before")                                    \
    X(FIRST + 67, "restart", "POLICY", "no", NULL)                                                         \
    X(FIRST + 68, "rmi", NULL, "", "remove the image with 'supermachine image rm'")                        \
    X(FIRST + 69, "rootfs", NULL, "", "make an image of the directory first")                              \
    X(FIRST + 70, "sdnotify", "MODE", "ignore", NULL)                                                      \
    X(FIRST + 71, "seccomp-policy", "POLICY", "default", NULL)                                             \
    X(FIRST + 72, "secret", "SECRET", "", "there are no secrets; pass it through standard input")          \
    X(FIRST + 73, "sig-proxy", "=BOOL", "true", NULL)                                                      \
    X(FIRST + 74, "subgidname", "NAME", "", "ids in a VM are its own, and none is the host's")             \
    X(FIRST + 75, "subuidname", "NAME", "", "ids in a VM are its own, and none is the host's")             \
    X(FIRST + 76, "tz", "ZONE", "", "say --env TZ=ZONE")                                                   \
    X(FIRST + 77, "uidmap", "MAP", "", "ids in a VM are its own, and none is the host's")                  \
    X(FIRST + 78, "userns", "MODE", "host", "ids in a VM are its own, and none is the host's")             \
    X(FIRST + 79, "uts", "MODE", "private", NULL)                                                          \
    X(FIRST + 80, "variant", "VARIANT", "", "say --platform linux/ARCH/VARIANT")                           \
    X('v', "volume", "HOST:GUEST", "",                                                                     \
        "volumes are not possible yet; put the files into the image, or pass them through standard input") \
    X(FIRST + 82, "volumes-from", "NAME", "",                                                              \
        "volumes are not possible yet; put the files into the image")

const struct cli_option cli_podman_options[] = {
#define OPTION(id, name, arg, values, why) {id, name, arg, NULL},
    ROWS(OPTION)
#undef OPTION
        {0},
};

static const struct {
    const char *values, *why;
} verdicts[] = {
#define VERDICT(id, name, arg, values, why) {values, why},
    ROWS(VERDICT)
#undef VERDICT
};

/* Is the value one of the words? */
static bool is_one_of(const char *value, const char *words)
{
    size_t len = strlen(value);
    for (const char *w = words; *w; w += strcspn(w, " "), w += strspn(w, " "))
        if (strcspn(w, " ") == len && memcmp(w, value, len) == 0)
            return true;
    return false;
}

bool cli_take_podman_option(const struct cli_command *self, int id, int *status)
{
    size_t i = 0;
    while (i < SM_ARRAY_LEN(verdicts) && cli_podman_options[i].id != id)
        i++;
    *status = CLI_EXIT_OK;
    if (i == SM_ARRAY_LEN(verdicts))
        return false;
    const char *name = cli_podman_options[i].name, *values = verdicts[i].values;
    const char *value = !cli_podman_options[i].arg ? "" : optarg ? optarg : "true";
    if (!values || (*values && is_one_of(value, values)))
        return true;
    if (!*values)
        *status = cli_fail_usage(self, "--%s is not possible: %s", name, verdicts[i].why);
    else
        *status = cli_fail_usage(self, "'--%s %s' is not possible: %s%s", name, value,
            verdicts[i].why ? verdicts[i].why : "it is ", verdicts[i].why ? "" : values);
    return true;
}
