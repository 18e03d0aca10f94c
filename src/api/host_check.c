/* sm_host_check: what this host lacks for running microVMs. */
#include <errno.h>
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
#include "util/locate.h"
#include "vm/engine.h"

#define LOW_DISK   (1ull << 30)
#define LOW_MEMORY (512ull << 20)

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
    check_file(&r, "image builder", "supermachine-image", "SUPERMACHINE_LIBEXEC_DIR", "");
    check_store(&r, store_dir);
    check_memory(&r);
    check_ping(&r);
    return r.worst;
}
