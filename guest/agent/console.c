/*
 * The last word: a line on the console, and the machine's end. Nothing else of the agent is needed
 * for either, so both work from the first instruction on, wherever on the way to the new root.
 */
#include "console.h"

#include <fcntl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <unistd.h>

_Noreturn void power_off(void)
{
    sync();
#ifdef __x86_64__
    /* Without ACPI a power-off would only halt; the VMM takes a reset for it. */
    reboot(RB_AUTOBOOT);
#else
    reboot(RB_POWER_OFF);
#endif
    for (;;)
        pause();
}

static size_t append(char *to, size_t len, size_t size, const char *s)
{
    while (*s && len + 1 < size)
        to[len++] = *s++;
    return len;
}

/* Wherever we are on the way, there is a root that a directory can be made in. */
static int open_kmsg(void)
{
    int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
    if (fd >= 0)
        return fd;
    mkdir("/.devices", 0700);
    mount("devtmpfs", "/.devices", "devtmpfs", MS_NOSUID, NULL);
    return open("/.devices/kmsg", O_WRONLY | O_CLOEXEC);
}

_Noreturn void die(const char *what, const char *on, int errnum)
{
    char line[512], digits[12];
    size_t n = append(line, 0, sizeof(line), "<2>supermachine agent: ");
    n = append(line, n, sizeof(line), what);
    n = append(line, n, sizeof(line), on);
    if (errnum > 0) {
        char *d = digits + sizeof(digits) - 1;
        *d = 0;
        for (; errnum > 0 && d > digits; errnum /= 10)
            *--d = (char)('0' + errnum % 10);
        n = append(line, n, sizeof(line), ": errno ");
        n = append(line, n, sizeof(line), d);
    }
    line[n++] = '\n';
    int fd = open_kmsg();
    ssize_t written = fd >= 0 ? write(fd, line, n) : -1;
    (void)written; /* there is nobody left to tell */
    power_off();
}
