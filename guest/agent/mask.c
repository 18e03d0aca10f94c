/*
 * What of /proc and /sys is hidden from a container, and what of it is read-only: podman's lists.
 * The machine is the container's own, so this guards nothing; but images are made and tested so,
 * and their scripts look whether they may.
 */
#include "mask.h"

#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/mount.h>

#define LEN(array) (sizeof(array) / sizeof((array)[0]))

static const struct {
    const char *path;
    bool directory;
} hidden[] = {
    {"/proc/acpi", true},
    {"/proc/kcore", false},
    {"/proc/keys", false},
    {"/proc/latency_stats", false},
    {"/proc/sched_debug", false},
    {"/proc/scsi", true},
    {"/proc/timer_list", false},
    {"/proc/timer_stats", false},
    {"/sys/dev/block", true},
    {"/sys/devices/virtual/powercap", true},
    {"/sys/firmware", true},
    {"/sys/fs/selinux", true},
};

static const char *const read_only[] = {
    "/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"};

#define FLAGS (MS_NOSUID | MS_NODEV | MS_NOEXEC)

static int hide(const char *path, bool directory)
{
    return directory ? mount("tmpfs", path, "tmpfs", FLAGS | MS_RDONLY, "size=0,nr_inodes=1")
                     : mount("/dev/null", path, NULL, MS_BIND, NULL);
}

static int make_read_only(const char *path)
{
    return mount(NULL, path, NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | FLAGS, NULL);
}

int mask_paths(void)
{
    for (size_t i = 0; i < LEN(hidden); i++)
        if (hide(hidden[i].path, hidden[i].directory) != 0 && errno != ENOENT)
            return -1;
    for (size_t i = 0; i < LEN(read_only); i++) {
        const char *path = read_only[i];
        bool there = mount(path, path, NULL, MS_BIND, NULL) == 0;
        if (there ? make_read_only(path) != 0 : errno != ENOENT)
            return -1;
    }
    return make_read_only("/sys");
}
