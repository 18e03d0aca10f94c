/* The container's share of memory and processes: see bounds.h. */
#include "bounds.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "directory.h"
#include "number.h"
#include "system.h"

#define MIB ((uint64_t)1 << 20)

/* What the container cannot have: the kernel's own memory grows with the machine's. */
#define RESERVE          (8 * MIB)
#define RESERVE_OF       32 /* one part in so many */
#define SMALL_RESERVE_OF 4  /* at most, of a small machine */

/* What the writable layer leaves to processes. */
#define FOR_PROCESSES    (48 * MIB)
#define FOR_PROCESSES_OF 4

/* The kernel allows a thread for so much memory; the container has all but one in 16 of them. */
#define THREAD_MEMORY   (128 * 1024)
#define THREADS_KEPT_OF 16

static int events = -1; /* memory.events */

struct bounds bounds_of(uint64_t memory)
{
    uint64_t reserve = RESERVE + memory / RESERVE_OF;
    if (reserve > memory / SMALL_RESERVE_OF)
        reserve = memory / SMALL_RESERVE_OF;
    struct bounds b = {.group = memory - reserve};
    uint64_t left = b.group / FOR_PROCESSES_OF;
    if (left < FOR_PROCESSES)
        left = FOR_PROCESSES;
    b.layer = b.group > 2 * left ? b.group - left : b.group / 2;
    b.processes = memory / THREAD_MEMORY;
    b.processes -= b.processes / THREADS_KEPT_OF;
    return b;
}

struct bounds bounds_here(void)
{
    struct sysinfo info = {0};
    (void)sysinfo(&info); /* cannot fail */
    return bounds_of((uint64_t)info.totalram * info.mem_unit);
}

const char *bounds_text(char text[BOUNDS_TEXT], uint64_t number)
{
    char *end = &text[BOUNDS_TEXT - 1];
    *end = 0;
    return number_before(end, number);
}

static int set(int dir, const char *name, const char *value)
{
    int fd = openat(dir, name, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return errno;
    int e = write(fd, value, strlen(value)) < 0 ? errno : 0;
    close(fd);
    return e;
}

static int bound(int group, const char **what)
{
    struct bounds b = bounds_here();
    char text[BOUNDS_TEXT];
    *what = "cannot bound the container";
    int e = set(group, "memory.max", bounds_text(text, b.group));
    return e != 0 ? e : set(group, "pids.max", bounds_text(text, b.processes));
}

int bounds_set(const char *controllers, int group, const char **what)
{
    *what = "cannot turn the cgroup controllers on";
    int e = set(AT_FDCWD, controllers, "+cpu +cpuset +io +memory +pids");
    if (e != 0)
        return e;
    e = bound(group, what);
    if (e != 0)
        return e;
    events = openat(group, "memory.events", O_RDONLY | O_CLOEXEC);
    return events < 0 ? errno : 0;
}

int bounds_reset(int group, const char **what)
{
    /* What a group has that nobody has changed; not all of these are there in every kernel. */
    static const struct {
        const char *name, *value;
    } initial[] = {{"cgroup.freeze", "0"}, {"cgroup.max.depth", "max"},
        {"cgroup.max.descendants", "max"}, {"cpu.max", "max"}, {"cpu.weight", "100"},
        {"cpuset.cpus", "\n"}, {"cpuset.mems", "\n"}, {"memory.high", "max"}, {"memory.low", "0"},
        {"memory.min", "0"}, {"memory.oom.group", "0"}};
    *what = "cannot remove the groups of the container that has ended";
    if (directory_empty(group) != 0)
        return errno;
    *what = "cannot turn the controllers off that the container which has ended had on";
    int e = set(group, "cgroup.subtree_control", "-cpu -cpuset -io -memory -pids");
    if (e != 0)
        return e;
    for (size_t i = 0; i < sizeof(initial) / sizeof(initial[0]); i++)
        (void)set(group, initial[i].name, initial[i].value);
    return bound(group, what);
}

uint64_t system_kills(void)
{
    static const char key[] = "\noom_kill ";
    char text[256];
    ssize_t n = events < 0 ? -1 : pread(events, text, sizeof(text) - 1, 0);
    if (n < 0)
        return 0;
    text[n] = 0;
    const char *at = strstr(text, key);
    uint64_t kills = 0;
    for (at = at ? at + sizeof(key) - 1 : ""; *at >= '0' && *at <= '9'; at++)
        kills = kills * 10 + (uint64_t)(*at - '0');
    return kills;
}
