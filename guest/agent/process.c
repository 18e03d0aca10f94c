/*
 * What a command's process is beside its user: capabilities, limits, what it may become.
 *
 * Where nothing is said it costs the start of a VM's own command nothing: process 1 has dropped
 * what podman drops while it was parked. What is asked for within that is dropped by the child;
 * what goes beyond it must come from a process that dropped nothing (container.h). A command that
 * joins comes from the agent, which has everything, and drops by itself.
 *
 * As crun does it: root has what its bounding set has, for execve gives it that; another user has
 * what was added for it by name, as ambient capabilities, and else none.
 *
 * System calls are made directly: a libc's think of threads, and here memory is shared with them.
 */
#include "process.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bounds.h"
#include "copy.h"
#include "descriptor.h"
#include "directory.h"
#include "loop.h"
#include "number.h"
#include "system.h"

#define SYSCTLS   "/proc/sys/"
#define LAYER_DIR "/dev/shm"   /* a directory of the tmpfs that has the writable layer */
#define PARTS     8            /* of it, each for a tmpfs beside it */
#define COPY_NS   20000000000u /* for all that is copied into them: less than a start may take */

#define BIT(cap) (1ull << (cap))

/* podman's default_capabilities. */
#define DEFAULT_BOUNDING                                                                           \
    (BIT(CAP_CHOWN) | BIT(CAP_DAC_OVERRIDE) | BIT(CAP_FOWNER) | BIT(CAP_FSETID) | BIT(CAP_KILL) |  \
        BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SETFCAP) | BIT(CAP_SETGID) | BIT(CAP_SETPCAP) |        \
        BIT(CAP_SETUID) | BIT(CAP_SYS_CHROOT))

static int sysctls = -1; /* where they can be set: those of the container are read-only */

/* ---- capabilities ------------------------------------------------------------------------- */

/* Drops from the bounding set what `from` has and `to` has not. */
static int bound(uint64_t from, uint64_t to)
{
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (!(from & ~to & BIT(cap)))
            continue;
        if (syscall(SYS_prctl, PR_CAPBSET_DROP, cap, 0, 0, 0) != 0)
            /* The kernel knows no more; or we are somebody (in tests) who has nothing to drop. */
            return errno == EINVAL || (errno == EPERM && geteuid() != 0) ? 0 : -1;
    }
    return 0;
}

int process_bound(void)
{
    return bound(UINT64_MAX, DEFAULT_BOUNDING);
}

bool process_exceeds(const struct sm_wire_process *p)
{
    return (p->flags & SM_WIRE_PROCESS_PRIVILEGED) ||
           ((p->flags & SM_WIRE_PROCESS_CAPABILITIES) && (p->bounding & ~DEFAULT_BOUNDING) != 0);
}

/* A user that is not root keeps nothing over execve but what is ambient, and that must be permitted
 * and inheritable. */
static int be_ambient(uint64_t set)
{
    struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    for (unsigned i = 0; i < 2; i++) {
        uint32_t half = (uint32_t)(set >> (32 * i));
        data[i] = (struct __user_cap_data_struct){half, half, half};
    }
    if (syscall(SYS_capset, &header, data) != 0)
        return -1;
    for (unsigned long cap = 0; cap < 64; cap++)
        if ((set & BIT(cap)) &&
            syscall(SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) != 0)
            return -1;
    return 0;
}

/* What the kernel has; the host may ask for all that there are. */
static uint64_t known(uint64_t set)
{
    uint64_t kept = 0;
    for (unsigned long cap = 0; cap < 64; cap++) {
        if (!(set & BIT(cap)))
            continue;
        if (syscall(SYS_prctl, PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
            kept |= BIT(cap);
    }
    return kept;
}

/* ---- the user ----------------------------------------------------------------------------- */

/* The agent itself is root in root's group alone. */
static int become_user(const struct user *u)
{
    if (u->uid == 0 && u->gid == 0 && u->n_groups == 1)
        return 0;
    return syscall(SYS_setgroups, u->n_groups, u->groups) != 0 ||
                   syscall(SYS_setgid, u->gid) != 0 || syscall(SYS_setuid, u->uid) != 0
               ? -1
               : 0;
}

static int become_user_with(
    const struct sm_wire_process *p, const struct user *u, uint64_t bounding)
{
    uint64_t ambient = u->uid != 0 ? known(p->ambient & p->bounding) : 0;
    if (bound(bounding, p->bounding) != 0)
        return -1;
    if (ambient != 0 && syscall(SYS_prctl, PR_SET_KEEPCAPS, 1, 0, 0, 0) != 0)
        return -1;
    if (become_user(u) != 0)
        return -1;
    return ambient != 0 ? be_ambient(ambient) : 0;
}

/* ---- what is not about the process alone ---------------------------------------------------- */

static int fail(struct process_failure *failure, const char *what, const char *which)
{
    failure->what = what;
    failure->which = which;
    return -1;
}

/* "a.b.c" or "a/b/c" as a path; where the first separator is a slash, dots are part of names. */
static bool sysctl_path(const char *name, size_t len, char *path, size_t size)
{
    bool dots =
        memchr(name, '/', len) == NULL ||
        (memchr(name, '.', len) && (char *)memchr(name, '.', len) < (char *)memchr(name, '/', len));
    if (len == 0 || len >= size || name[0] == '/' || name[0] == '.')
        return false;
    for (size_t i = 0; i < len; i++) {
        char c = name[i];
        path[i] = !dots ? c : c == '.' ? '/' : c == '/' ? '.' : c;
    }
    path[len] = 0;
    return strstr(path, "..") == NULL;
}

int process_open(void)
{
    sysctls = open(SYSCTLS, O_PATH | O_DIRECTORY | O_CLOEXEC);
    return sysctls < 0 ? -1 : 0;
}

static int set_sysctl(const char *setting)
{
    char path[256];
    if (sysctls < 0 && process_open() != 0)
        return -1;
    const char *value = strchr(setting, '=');
    errno = EINVAL;
    if (!value || !sysctl_path(setting, (size_t)(value - setting), path, sizeof(path)))
        return -1;
    int fd = openat(sysctls, path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    size_t len = strlen(++value);
    ssize_t n = write(fd, value, len);
    return close_after(fd, n == (ssize_t)len ? 0 : -1);
}

static int set_sysctls(const struct sm_wire_process *p, struct process_failure *failure)
{
    uint32_t cursor = 0;
    for (const char *setting; sm_wire_list_next(&p->sysctls, &cursor, &setting);) {
        if (set_sysctl(setting) == 0)
            continue;
        return fail(failure,
            errno == ENOENT ? "the guest kernel has no such setting: sysctl "
                            : "cannot set sysctl ",
            setting);
    }
    return 0;
}

/* ---- mounts ------------------------------------------------------------------------------- */

/* What is written in a tmpfs cannot be had back, and its own idea of a bound is half of the memory.
 * So one that nobody gave a size has a part of the writable layer, which gets smaller by that: all
 * that is written stays within one bound (bounds.h). */
static uint64_t part;
static uint64_t copy_end_ns; /* of this command; 0: nothing was copied yet */

static int set_size(const char *where, unsigned long flags, uint64_t bytes)
{
    static const char name[] = "size=";
    char data[32];
    data[sizeof(data) - 1] = 0;
    char *at = number_before(data + sizeof(data) - 1, bytes) - strlen(name);
    memcpy(at, name, strlen(name));
    return mount(NULL, where, NULL, MS_REMOUNT | flags, at);
}

/* Of the directory that it is mounted over, which is open. */
static int copy_up(int under, const char *where)
{
    int over = open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (copy_end_ns == 0)
        copy_end_ns = loop_now_ns() + COPY_NS;
    int rc = over < 0 ? -1 : copy_within(under, over, copy_end_ns);
    return close_after(over, rc);
}

/* What is copied stays within its size. */
static int mount_over(int under, const char *where, unsigned long flags, const char *data)
{
    const unsigned long writable = flags & ~(unsigned long)(MS_RDONLY | SM_WIRE_TMPFS_COPY);
    if (mount("tmpfs", where, "tmpfs", writable, data) != 0)
        return -1;
    int rc = strstr(data, "size=") ? 0 : set_size(where, writable, part);
    if (rc == 0 && (flags & SM_WIRE_TMPFS_COPY))
        rc = copy_up(under, where);
    if (rc == 0 && (flags & MS_RDONLY))
        rc = mount(NULL, where, NULL, MS_REMOUNT | MS_RDONLY | writable, NULL);
    int errnum = errno;
    if (rc != 0)
        umount2(where, MNT_DETACH);
    errno = errnum;
    return rc;
}

static int mount_sized(const char *where, unsigned long flags, const char *data)
{
    int under = directory_make(where) != 0 ? -1 : open(where, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return under < 0 ? -1 : close_after(under, mount_over(under, where, flags, data));
}

static int fail_to_mount(struct process_failure *failure, const char *where)
{
    const char *why = errno == ENOSPC
                          ? "no room in the tmpfs for what is in the directory (see size= and "
                            "notmpcopyup of --tmpfs, and -m): "
                      : errno == ETIMEDOUT
                          ? "more is in the directory than can be copied into a tmpfs within 20 s "
                            "(see notmpcopyup of --tmpfs): "
                          : NULL;
    if (why)
        errno = 0; /* said in our words */
    return fail(failure, why ? why : "cannot mount a tmpfs: ", where);
}

static const struct {
    const char *path, *mode;
} for_systemd[] = {{"/run", "mode=755"}, {"/run/lock", "mode=1777"}, {"/tmp", "mode=1777"},
    {"/var/log/journal", "mode=755"}};
#define N_FOR_SYSTEMD (sizeof(for_systemd) / sizeof(for_systemd[0]))

/* As container engines do it for systemd. */
static int mount_for_systemd(struct process_failure *failure)
{
    for (size_t i = 0; i < N_FOR_SYSTEMD; i++)
        if (mount_sized(for_systemd[i].path, MS_NOSUID | MS_NODEV | SM_WIRE_TMPFS_COPY,
                for_systemd[i].mode) != 0)
            return fail_to_mount(failure, for_systemd[i].path);
    return 0;
}

/* For the container's own command, before the others: what systemd expects, if it is that, and room
 * for all that is mounted. */
static int divide(const struct sm_wire_process *p, bool systemd, struct process_failure *failure)
{
    static bool divided;
    uint64_t n = systemd ? N_FOR_SYSTEMD : 0;
    uint32_t cursor = 0;
    for (const char *text; sm_wire_list_next(&p->tmpfs, &cursor, &text);)
        n += strstr(text, "size=") == NULL;
    if (n == 0 && !divided)
        return 0;
    uint64_t layer = bounds_here().layer;
    part = layer / (n < PARTS ? PARTS : n + 1);
    /* Where more is in the layer already it stays as it is. */
    (void)!set_size(LAYER_DIR, MS_NOSUID | MS_NODEV, layer - n * part);
    divided = n > 0;
    return systemd ? mount_for_systemd(failure) : 0;
}

static char where[SM_WIRE_MAX_PATH + 1]; /* the last one that was asked for */

/* "FLAGS:DIR:DATA" */
static int mount_tmpfs(const char *text)
{
    unsigned long flags = 0;
    for (; *text >= '0' && *text <= '9'; text++)
        flags = flags * 10 + (unsigned long)(*text - '0');
    const char *dir = *text ? text + 1 : text, *data = strchr(dir, ':');
    size_t len = data ? (size_t)(data - dir) : 0;
    errno = EINVAL;
    if (len == 0 || len >= sizeof(where))
        return -1;
    memcpy(where, dir, len);
    where[len] = 0;
    return mount_sized(where, flags, data + 1);
}

static int set_mounts(const struct sm_wire_process *p, struct process_failure *failure)
{
    uint32_t cursor = 0;
    if (part == 0 && p->tmpfs.count > 0)
        part = bounds_here().layer / PARTS;
    for (const char *text; sm_wire_list_next(&p->tmpfs, &cursor, &text);)
        if (mount_tmpfs(text) != 0)
            return fail_to_mount(failure, where);
    return 0;
}

/* All of / but what is mounted below. */
int process_seal(const struct sm_wire_process *p, struct process_failure *failure)
{
    if (!(p->flags & SM_WIRE_PROCESS_READ_ONLY))
        return 0;
    return mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY, NULL) != 0
               ? fail(failure, "cannot make / read-only for ", NULL)
               : 0;
}

/* ---- other things of the guest -------------------------------------------------------------- */

/* The address of our line for the gateway; returns its length, 0 where there is no such line. */
static size_t find_gateway(const char *hosts, size_t len, const char **address)
{
    static const char names[] = "\t" SM_WIRE_GATEWAY_NAME;
    const char *at = memmem(hosts, len, names, sizeof(names) - 1);
    if (!at)
        return 0;
    const char *start = at;
    while (start > hosts && start[-1] != '\n')
        start--;
    *address = start;
    return (size_t)(at - start);
}

static bool put_text(char text[SYSTEM_HOSTS_MAX], size_t *len, const char *more, size_t n)
{
    if (n > SYSTEM_HOSTS_MAX - *len)
        return false;
    memcpy(text + *len, more, n);
    *len += n;
    return true;
}

/* Makes lines of what was asked for, and what was there: of two lines for a name the first counts.
 * Returns the length, 0 with errno. */
static size_t hosts_with(
    char text[SYSTEM_HOSTS_MAX], const struct sm_wire_list *lines, const char *old, size_t old_len)
{
    static const char symbol[] = SM_WIRE_HOST_GATEWAY "\t";
    const char *gateway = NULL;
    size_t gateway_len = find_gateway(old, old_len, &gateway);
    size_t len = 0;
    uint32_t cursor = 0;
    for (const char *line; sm_wire_list_next(lines, &cursor, &line);) {
        bool symbolic = strncmp(line, symbol, sizeof(symbol) - 1) == 0;
        errno = symbolic && gateway_len == 0 ? ENETUNREACH : EFBIG;
        if (errno == ENETUNREACH || (symbolic && !put_text(text, &len, gateway, gateway_len)))
            return 0;
        line += symbolic ? sizeof(symbol) - 2 : 0; /* the tab stays */
        if (!put_text(text, &len, line, strlen(line)) || !put_text(text, &len, "\n", 1))
            return 0;
    }
    errno = EFBIG;
    return put_text(text, &len, old, old_len) ? len : 0;
}

static int add_hosts(const struct sm_wire_list *lines)
{
    char text[SYSTEM_HOSTS_MAX], old[SYSTEM_HOSTS_MAX];
    int fd = open("/etc/hosts", O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return -1;
    ssize_t n = pread(fd, old, sizeof(old), 0);
    size_t len = n < 0 ? 0 : hosts_with(text, lines, old, (size_t)n);
    ssize_t put = len > 0 ? pwrite(fd, text, len, 0) : -1;
    return close_after(fd, put == (ssize_t)len ? 0 : -1);
}

static int set_oom_score(int32_t score)
{
    char text[12], *end = text + sizeof(text);
    char *s = number_before(end, score < 0 ? -(uint32_t)score : (uint32_t)score);
    if (score < 0)
        *--s = '-';
    int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -1;
    ssize_t n = write(fd, s, (size_t)(end - s));
    return close_after(fd, n == end - s ? 0 : -1);
}

int process_prepare(
    const struct sm_wire_process *p, bool first, bool systemd, struct process_failure *failure)
{
    copy_end_ns = 0;
    if (first && divide(p, systemd, failure) != 0)
        return -1;
    if (p->flags == 0)
        return 0;
    if (p->hosts.count > 0 && add_hosts(&p->hosts) != 0)
        return fail(failure, "cannot add lines to /etc/hosts for ", NULL);
    if (set_sysctls(p, failure) != 0 || set_mounts(p, failure) != 0)
        return -1;
    if ((p->flags & SM_WIRE_PROCESS_OOM_SCORE) && set_oom_score(p->oom_score_adj) != 0)
        return fail(failure, "cannot set the OOM score of ", NULL);
    return 0;
}

/* ---- the process itself --------------------------------------------------------------------- */

static int set_limits(const struct sm_wire_process *p)
{
    struct sm_wire_limit l;
    for (uint32_t i = 0; sm_wire_limit_get(p, i, &l); i++) {
        struct rlimit limit = {.rlim_cur = l.soft, .rlim_max = l.hard};
        if (prlimit(0, (int)l.resource, &limit, NULL) != 0)
            return -1;
    }
    return 0;
}

int process_become(const struct sm_wire_process *p, const struct user *u, bool bounded,
    struct process_failure *failure)
{
    static const struct sm_wire_process usual = {.bounding = DEFAULT_BOUNDING};
    if (set_limits(p) != 0)
        return fail(failure, "cannot set limits of ", NULL);
    if (become_user_with(p->flags & SM_WIRE_PROCESS_CAPABILITIES ? p : &usual, u,
            bounded ? DEFAULT_BOUNDING : UINT64_MAX) != 0)
        return fail(failure, "cannot change user for ", NULL);
    if (p->flags & SM_WIRE_PROCESS_UMASK)
        umask((mode_t)p->umask);
    if ((p->flags & SM_WIRE_PROCESS_NO_NEW_PRIVS) &&
        syscall(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0)
        return fail(failure, "cannot take new privileges from ", NULL);
    return 0;
}
