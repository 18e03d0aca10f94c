/*
 * Stops and restarts all processes of the container, by the freezer of its cgroup: that reaches all
 * groups below it, those too that the guest made itself. Where nobody of the user's is or was,
 * there is nothing to freeze. A freeze belongs to a capture and may take its time; the thaw belongs
 * to a restore and is one system call.
 */
#include "system.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "container.h"

static int freeze_switch = -1, events = -1;

static int open_switch(void)
{
    if (events >= 0)
        return 0;
    freeze_switch = openat(container_cgroup(), "cgroup.freeze", O_WRONLY | O_CLOEXEC);
    events = openat(container_cgroup(), "cgroup.events", O_RDONLY | O_CLOEXEC);
    return freeze_switch < 0 || events < 0 ? -1 : 0;
}

int system_frozen(void)
{
    char text[128];
    ssize_t n = pread(events, text, sizeof(text) - 1, 0);
    if (n < 0)
        return -errno;
    text[n] = 0;
    return strstr(text, "frozen 1") != NULL;
}

int system_freeze(bool *anybody, const char **what)
{
    /* What is captured has a process 1 that waits for its command, if it has none. */
    int e = container_prepare(what);
    *anybody = container_is_used();
    if (e != 0 || !*anybody)
        return e;
    *what = "cannot freeze";
    return open_switch() == 0 && pwrite(freeze_switch, "1", 1, 0) == 1 ? 0 : errno;
}

int system_thaw(const char **what)
{
    *what = "cannot thaw";
    return freeze_switch < 0 || pwrite(freeze_switch, "0", 1, 0) == 1 ? 0 : errno;
}
