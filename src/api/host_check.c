/* sm_host_check: what this host lacks for running microVMs. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include "image/store.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/locate.h"
#include "util/spawn.h"
#include "vm/engine.h"

#define LOW_DISK    (1ull << 30)
#define LOW_MEMORY  (512ull << 20)
#define LAYERS_TEXT 8192 /* a dozen lines with a reason each */
#define LEAVE_MS    1000 /* for who has told them */

struct report {
    sm_check_fn *fn;
    void *arg;
    enum sm_check_status worst;
};

__attribute__((format(printf, 5, 6))) static void add(struct report *r, const char *name,
    enum sm_check_status status, const char *advice, const char *fmt, ...)
{
    char detail[1200];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(detail, sizeof(detail), fmt, ap);
    va_end(ap);
    if (status > r->worst)
        r->worst = status;
    r->fn(r->arg, &(sm_check){.name = name, .status = status, .detail = detail, .advice = advice});
}

static void check_hypervisor(struct report *r)
{
    struct sm_engine *engine;
    sm_error err;
    if (sm_engine_open(&engine, &err)) {
        add(r, "kvm", SM_CHECK_FAILED,
            err.code == SM_EPERM
                ? "add your user to the group that owns /dev/kvm (usually 'kvm') and log in again"
                : "load the kernel module kvm_intel or kvm_amd; "
                  "in a cloud VM ask for nested virtualisation; in a container pass /dev/kvm in",
            "%s", err.message);
        return;
    }
    add(r, "kvm", SM_CHECK_OK, NULL, "/dev/kvm can be used");
    bool emulated;
    if (sm_engine_is_emulated(engine, &emulated, &err))
        add(r, "hardware", SM_CHECK_FAILED, NULL, "a test VM did not run: %s", err.message);
    else if (emulated)
        add(r, "hardware", SM_CHECK_WARNING,
            "everything works; use a host with hardware virtualisation where speed matters",
            "no hardware virtualisation below: guest kernels are emulated and slow, and we help out");
    else
        add(r, "hardware", SM_CHECK_OK, NULL, "hardware virtualisation works");
    sm_engine_close(engine);
}

static void check_file(
    struct report *r, const char *name, const char *file, const char *env, const char *beside)
{
    auto_free char *path = NULL;
    sm_error err;
    if (sm_locate(file, env, beside, &path, &err))
        add(r, name, SM_CHECK_FAILED,
            err.code == SM_EPERM ? "let everybody read it and search its directories"
                                 : "build it with 'make', or install supermachine",
            "%s", err.message);
    else
        add(r, name, SM_CHECK_OK, NULL, "%s", path);
}

/* The nearest directory above (or at) the store that exists. */
static void existing_parent(char *path)
{
    while (access(path, F_OK)) {
        char *slash = strrchr(path, '/');
        if (!slash) {
            memcpy(path, ".", 2); /* a relative path's */
            return;
        }
        slash[slash == path] = '\0';
        if (slash == path)
            return;
    }
}

static void check_store(struct report *r, const char *dir)
{
    sm_error err;
    auto_free char *path = dir ? strdup(dir) : sm_imgstore_default_dir(&err);
    if (!path && !dir) {
        add(r, "store", SM_CHECK_FAILED, NULL, "%s", err.message);
        return;
    }
    auto_free char *parent = path && *path ? strdup(path) : strdup(".");
    if (!parent || !path)
        return;
    existing_parent(parent);
    struct statvfs fs;
    if (access(parent, W_OK | X_OK))
        add(r, "store", SM_CHECK_FAILED, "make it writable, or set XDG_DATA_HOME to another place",
            "'%s' cannot be written: %s", parent, strerror(errno));
    else if (statvfs(parent, &fs))
        add(r, "store", SM_CHECK_WARNING, NULL, "cannot see how full '%s' is: %s", parent,
            strerror(errno));
    else {
        uint64_t left = (uint64_t)fs.f_bavail * fs.f_frsize;
        bool low = left < LOW_DISK;
        add(r, "store", low ? SM_CHECK_WARNING : SM_CHECK_OK,
            low ? "free some space, or set XDG_DATA_HOME to another file system" : NULL,
            "%s, %.1f GB free", path, (double)left / 1e9);
    }
}

static void check_memory(struct report *r)
{
    struct sysinfo info;
    if (sysinfo(&info))
        return;
    uint64_t left = (uint64_t)(info.freeram + info.bufferram) * info.mem_unit;
    auto_file meminfo = fopen("/proc/meminfo", "re");
    char line[128];
    unsigned long long kib;
    while (meminfo && fgets(line, sizeof(line), meminfo)) {
        if (sscanf(line, "MemAvailable: %llu kB", &kib) == 1)
            left = (uint64_t)kib << 10;
    }
    bool low = left < LOW_MEMORY;
    add(r, "memory", low ? SM_CHECK_WARNING : SM_CHECK_OK,
        low ? "use small VMs (--memory), or end other programs" : NULL, "%.1f GB available",
        (double)left / 1e9);
}

/* What turns a layer of the machine's process on, where a host can be told to. */
static const char *layer_advice(const char *name)
{
    if (strstr(name, "namespace"))
        return "allow user namespaces: sysctl user.max_user_namespaces, "
               "kernel.unprivileged_userns_clone (Debian), "
               "kernel.apparmor_restrict_unprivileged_userns (Ubuntu); in a container, its seccomp profile";
    if (strcmp(name, "landlock") == 0)
        return "a kernel of Linux 6.12 or later with landlock among its security modules (lsm=)";
    return NULL;
}

/* A line of supermachine-vm's: "STATE\tNAME\tREASON". Whether the layer is in force. */
static bool take_layer(struct report *r, char *line)
{
    char *name = strchr(line, '\t'), *reason = name ? strchr(name + 1, '\t') : NULL;
    if (!reason)
        return false;
    *name++ = *reason++ = '\0';
    if (strcmp(line, "in force") == 0)
        return true;
    add(r, "confinement", SM_CHECK_WARNING, layer_advice(name), "%s: %s, %s", name, line, reason);
    return false;
}

/* What a process of a VM is confined by on this host: one is started to tell. */
static int ask_layers(char **text, sm_error *err)
{
    auto_free char *program = NULL;
    int rc = sm_locate("supermachine-vm", "SUPERMACHINE_LIBEXEC_DIR", "", &program, err);
    int ends[2], pid;
    if (rc)
        return rc;
    if (pipe2(ends, O_CLOEXEC))
        return sm_error_errno(err, errno, "cannot make a pipe");
    const char *const argv[] = {program, "layers", NULL};
    const struct sm_spawn how = {.program = program, .argv = argv, .fds = &ends[1], .n_fds = 1};
    auto_fd pidfd = -1;
    auto_fd from = ends[0];
    rc = sm_spawn(&how, &pidfd, &pid, err);
    sm_close(ends[1]);
    char *all = rc ? NULL : calloc(1, LAYERS_TEXT);
    if (rc == 0 && !all)
        rc = sm_error_set(err, SM_ENOMEM, "out of memory");
    ssize_t n = 1;
    for (size_t have = 0; all && n > 0 && have + 1 < LAYERS_TEXT; have += n > 0 ? (size_t)n : 0)
        n = read(from, all + have, LAYERS_TEXT - 1 - have);
    if (pidfd >= 0 && !sm_spawn_wait(pidfd, LEAVE_MS))
        sm_spawn_kill(pidfd);
    if (!rc)
        *text = all;
    return rc;
}

static void check_confinement(struct report *r)
{
    auto_free char *text = NULL;
    sm_error err;
    if (ask_layers(&text, &err)) {
        add(r, "confinement", SM_CHECK_FAILED, NULL, "%s", err.message);
        return;
    }
    unsigned layers = 0, in_force = 0;
    char *rest = text;
    for (char *line; (line = strsep(&rest, "\n"));) {
        layers += *line != '\0';
        in_force += *line && take_layer(r, line);
    }
    if (layers == 0)
        add(r, "confinement", SM_CHECK_WARNING, NULL, "supermachine-vm does not tell");
    else if (in_force == layers)
        add(r, "confinement", SM_CHECK_OK, NULL, "all %u layers around a VM's processes", layers);
}

/* What the user-mode network needs for a guest's echo requests. */
static void check_ping(struct report *r)
{
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, IPPROTO_ICMP);
    if (fd >= 0 || errno != EACCES)
        sm_close(fd);
    else
        add(r, "ping", SM_CHECK_WARNING,
            "sysctl -w net.ipv4.ping_group_range='0 2147483647', or do without",
            "guests cannot ping beyond their gateway: this host's ping_group_range leaves you out");
}

enum sm_check_status sm_host_check(const char *store_dir, sm_check_fn *fn, void *arg)
{
    struct report r = {.fn = fn, .arg = arg};
    check_hypervisor(&r);
    check_file(&r, "guest kernel", "vmlinux", "SUPERMACHINE_GUEST_DIR", "guest");
    check_file(&r, "guest agent", "agent.cpio", "SUPERMACHINE_GUEST_DIR", "guest");
    check_confinement(&r);
    check_file(&r, "image builder", "supermachine-image", "SUPERMACHINE_LIBEXEC_DIR", "");
    check_store(&r, store_dir);
    check_memory(&r);
    check_ping(&r);
    return r.worst;
}
