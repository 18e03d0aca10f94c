/*
 * Stops and restarts all processes of the guest's users, by the cgroup freezer.
 *
 * Commands start in the root cgroup like the agent itself, which costs them nothing; the root
 * cannot be frozen. So a freeze first moves everybody into a group of its own: children of those
 * who were moved are born there, and passes are made until one finds nobody left. Kernel threads,
 * which are listed in the root as well, have no /proc/PID/exe. A freeze belongs to a bake and may
 * take its time; the thaw belongs to a restore and is one system call.
 */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define ROOT_PROCS "/sys/fs/cgroup/cgroup.procs"
#define GROUP      "/sys/fs/cgroup/supermachine"
#define PASSES_MAX 100

static int procs = -1, freeze_switch = -1, events = -1;

static int open_group(void)
{
    if (events >= 0)
        return 0;
    if (mkdir(GROUP, 0755) != 0 && errno != EEXIST)
        return -1;
    procs = open(GROUP "/cgroup.procs", O_WRONLY | O_CLOEXEC);
    freeze_switch = open(GROUP "/cgroup.freeze", O_WRONLY | O_CLOEXEC);
    events = open(GROUP "/cgroup.events", O_RDONLY | O_CLOEXEC);
    return procs < 0 || freeze_switch < 0 || events < 0 ? -1 : 0;
}

static bool is_user_process(const char *pid, size_t len)
{
    char path[32] = "/proc/", target[1];
    if (len == 1 && pid[0] == '1')
        return false; /* us */
    if (len > 10)
        return false;
    memcpy(path + 6, pid, len);
    memcpy(path + 6 + len, "/exe", 5);
    return readlink(path, target, sizeof(target)) > 0;
}

/* Moves those whom the root lists, at least the first few thousand of them; returns how many, or
 * -1. */
static int move_some(void)
{
    static char list[32 * 1024];
    int fd = open(ROOT_PROCS, O_RDONLY | O_CLOEXEC), moved = 0;
    if (fd < 0)
        return -1;
    size_t len = 0;
    for (ssize_t n; len < sizeof(list) && (n = read(fd, list + len, sizeof(list) - len)) > 0;)
        len += (size_t)n;
    close(fd);
    for (char *p = list, *end; (end = memchr(p, '\n', (size_t)(list + len - p))); p = end + 1) {
        size_t digits = (size_t)(end - p);
        if (!is_user_process(p, digits))
            continue;
        if (write(procs, p, digits) == (ssize_t)digits)
            moved++;
        else if (errno != ESRCH) /* it has ended meanwhile */
            return -1;
    }
    return moved;
}

/* Is this line in the group's cgroup.events? 1, 0, or -errno. */
static int has_event(const char *line)
{
    char text[128];
    ssize_t n = pread(events, text, sizeof(text) - 1, 0);
    if (n < 0)
        return -errno;
    text[n] = 0;
    return strstr(text, line) != NULL;
}

int system_frozen(void)
{
    return has_event("frozen 1");
}

int system_freeze(bool *anybody, const char **what)
{
    *what = "cannot make a cgroup for freezing";
    if (open_group() != 0)
        return errno;
    *what = "cannot move processes to the freezer's cgroup";
    int moved, passes = 0;
    do
        moved = move_some();
    while (moved > 0 && ++passes < PASSES_MAX);
    if (moved != 0)
        return moved < 0 ? errno : EBUSY;
    *anybody = passes > 0 || has_event("populated 1") != 0;
    if (!*anybody)
        return 0;
    *what = "cannot freeze";
    return pwrite(freeze_switch, "1", 1, 0) == 1 ? 0 : errno;
}

int system_thaw(const char **what)
{
    *what = "cannot thaw";
    return freeze_switch < 0 || pwrite(freeze_switch, "0", 1, 0) == 1 ? 0 : errno;
}
