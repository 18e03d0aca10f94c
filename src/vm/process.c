/* What a caller asks of a command's process. See process.h. */
#include "vm/process.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

/* ---- capabilities ------------------------------------------------------------------------- */

#define ALL_CAPABILITIES UINT64_MAX /* the guest's kernel knows how many there are */

/* By their numbers. */
static const char *const capabilities[] = {"CHOWN", "DAC_OVERRIDE", "DAC_READ_SEARCH", "FOWNER",
    "FSETID", "KILL", "SETGID", "SETUID", "SETPCAP", "LINUX_IMMUTABLE", "NET_BIND_SERVICE",
    "NET_BROADCAST", "NET_ADMIN", "NET_RAW", "IPC_LOCK", "IPC_OWNER", "SYS_MODULE", "SYS_RAWIO",
    "SYS_CHROOT", "SYS_PTRACE", "SYS_PACCT", "SYS_ADMIN", "SYS_BOOT", "SYS_NICE", "SYS_RESOURCE",
    "SYS_TIME", "SYS_TTY_CONFIG", "MKNOD", "LEASE", "AUDIT_WRITE", "AUDIT_CONTROL", "SETFCAP",
    "MAC_OVERRIDE", "MAC_ADMIN", "SYSLOG", "WAKE_ALARM", "BLOCK_SUSPEND", "AUDIT_READ", "PERFMON",
    "BPF", "CHECKPOINT_RESTORE"};

/* CHOWN, DAC_OVERRIDE, FOWNER, FSETID, KILL, SETGID, SETUID, SETPCAP, NET_BIND_SERVICE, SYS_CHROOT
 * and SETFCAP, as podman has it; what the agent gives where nothing is said (guest/agent). */
#define DEFAULT_CAPABILITIES 0x800405fbull

static int find_capability(const char *name, uint64_t *set, sm_error *err)
{
    const char *bare = strncasecmp(name, "CAP_", 4) == 0 ? name + 4 : name;
    if (strcasecmp(name, "ALL") == 0) {
        *set = ALL_CAPABILITIES;
        return 0;
    }
    for (unsigned i = 0; i < SM_ARRAY_LEN(capabilities); i++) {
        if (strcasecmp(bare, capabilities[i]) == 0) {
            *set = 1ull << i;
            return 0;
        }
    }
    return sm_error_set(err, SM_EINVAL,
        "there is no capability '%.64s'; they have names such as NET_ADMIN, or ALL", name);
}

static int find_capabilities(const char *const *names, uint64_t *set, sm_error *err)
{
    *set = 0;
    for (; names && *names; names++) {
        uint64_t one = 0;
        int rc = find_capability(*names, &one, err);
        if (rc)
            return rc;
        *set |= one;
    }
    return 0;
}

static int take_capabilities(const sm_exec_config *config, struct sm_wire_process *p, sm_error *err)
{
    uint64_t add = 0, drop = 0;
    int rc = find_capabilities(config->cap_add, &add, err);
    if (!rc)
        rc = find_capabilities(config->cap_drop, &drop, err);
    if (rc)
        return rc;
    bool add_all = add == ALL_CAPABILITIES, drop_all = drop == ALL_CAPABILITIES;
    if (add_all && drop_all)
        return sm_error_set(
            err, SM_EINVAL, "all capabilities cannot be both added and dropped; leave out one");
    for (unsigned i = 0; !add_all && !drop_all && i < SM_ARRAY_LEN(capabilities); i++)
        if (add & drop & 1ull << i)
            return sm_error_set(err, SM_EINVAL,
                "the capability %s cannot be both added and dropped", capabilities[i]);
    p->bounding = config->privileged ? ALL_CAPABILITIES
                  : add_all          ? ALL_CAPABILITIES & ~drop
                  : drop_all         ? add
                                     : (DEFAULT_CAPABILITIES | add) & ~drop;
    p->ambient = add & p->bounding;
    if (p->bounding != DEFAULT_CAPABILITIES || p->ambient != 0)
        p->flags |= SM_WIRE_PROCESS_CAPABILITIES;
    if (config->privileged)
        p->flags |= SM_WIRE_PROCESS_PRIVILEGED;
    return 0;
}

/* ---- limits ------------------------------------------------------------------------------- */

static const struct {
    const char *name;
    uint32_t number; /* RLIMIT_* of Linux on what we run */
} resources[] = {
    {"cpu", 0},
    {"fsize", 1},
    {"data", 2},
    {"stack", 3},
    {"core", 4},
    {"rss", 5},
    {"nproc", 6},
    {"nofile", 7},
    {"memlock", 8},
    {"locks", 10},
    {"sigpending", 11},
    {"msgqueue", 12},
    {"nice", 13},
    {"rtprio", 14},
    {"rttime", 15},
};

/* A number, or -1 for none; false: neither. */
static bool parse_limit(const char *text, size_t len, uint64_t *limit)
{
    *limit = 0;
    if (len == 2 && memcmp(text, "-1", 2) == 0) {
        *limit = UINT64_MAX;
        return true;
    }
    for (size_t i = 0; i < len; i++)
        if (text[i] < '0' || text[i] > '9' || __builtin_mul_overflow(*limit, 10, limit) ||
            __builtin_add_overflow(*limit, (uint64_t)(text[i] - '0'), limit))
            return false;
    return len > 0;
}

/* NAME=SOFT[:HARD] */
static int parse_ulimit(const char *text, struct sm_wire_limit *limit, sm_error *err)
{
    size_t name = strcspn(text, "="), i = 0;
    while (i < SM_ARRAY_LEN(resources) &&
           (strlen(resources[i].name) != name || memcmp(resources[i].name, text, name) != 0))
        i++;
    if (i == SM_ARRAY_LEN(resources))
        return sm_error_set(err, SM_EINVAL,
            "there is no limit '%.64s'; they are NAME=SOFT[:HARD], NAME as nofile or memlock",
            text);
    limit->resource = resources[i].number;
    const char *soft = text[name] ? text + name + 1 : "";
    size_t len = strcspn(soft, ":");
    const char *hard = soft[len] ? soft + len + 1 : soft;
    if (!parse_limit(soft, len, &limit->soft) ||
        !parse_limit(hard, soft[len] ? strlen(hard) : len, &limit->hard))
        return sm_error_set(err, SM_EINVAL,
            "the limit '%.64s' is not NAME=SOFT[:HARD] with numbers; -1 is none", text);
    if (limit->soft > limit->hard)
        return sm_error_set(
            err, SM_EINVAL, "the limit '%.64s' has a soft limit above the hard one", text);
    return 0;
}

static int take_limits(const sm_exec_config *config, struct sm_process *process, sm_error *err)
{
    struct sm_wire_process *p = &process->wire;
    p->limits.data = process->limits;
    for (const char *const *text = config->ulimits; text && *text; text++) {
        struct sm_wire_limit limit;
        if (p->limits.len == sizeof(process->limits))
            return sm_error_set(
                err, SM_EINVAL, "more than %u limits; give each once", SM_WIRE_MAX_LIMITS);
        int rc = parse_ulimit(*text, &limit, err);
        if (rc)
            return rc;
        sm_wire_limit_store(process->limits + p->limits.len, &limit);
        p->limits.len += SM_WIRE_LIMIT_SIZE;
        p->flags |= SM_WIRE_PROCESS_LIMITS;
    }
    return 0;
}

/* ---- mounts ------------------------------------------------------------------------------- */

/* MS_* of Linux */
enum { READ_ONLY = 1, NO_SUID = 2, NO_DEV = 4, NO_EXEC = 8 };

static const struct {
    const char *name;
    unsigned set, clear;
} mount_options[] = {
    {"rw", 0, READ_ONLY},
    {"ro", READ_ONLY, 0},
    {"suid", 0, NO_SUID},
    {"nosuid", NO_SUID, 0},
    {"dev", 0, NO_DEV},
    {"nodev", NO_DEV, 0},
    {"exec", 0, NO_EXEC},
    {"noexec", NO_EXEC, 0},
    {"tmpcopyup", SM_WIRE_TMPFS_COPY, 0},
    {"notmpcopyup", 0, SM_WIRE_TMPFS_COPY},
    /* how mounts pass on to other name spaces: there is nobody else */
    {"private", 0, 0},
    {"rprivate", 0, 0},
    {"shared", 0, 0},
    {"rshared", 0, 0},
    {"slave", 0, 0},
    {"rslave", 0, 0},
};

static bool take_mount_flag(const char *option, size_t len, unsigned *flags)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(mount_options); i++) {
        if (strlen(mount_options[i].name) == len &&
            memcmp(mount_options[i].name, option, len) == 0) {
            *flags = (*flags & ~mount_options[i].clear) | mount_options[i].set;
            return true;
        }
    }
    return false;
}

/* What the file system itself understands. */
static bool is_tmpfs_option(const char *option, size_t len)
{
    static const char *const names[] = {"size=", "mode=", "uid=", "gid=", "nr_inodes="};
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++)
        if (len > strlen(names[i]) && memcmp(names[i], option, strlen(names[i])) == 0)
            return true;
    return false;
}

static int no_memory(sm_error *err)
{
    return sm_error_set(err, SM_ENOMEM, "no memory for what the command asks for");
}

static int add_tmpfs(
    struct sm_process *process, unsigned flags, const char *where, const char *data, sm_error *err)
{
    auto_free char *text = NULL;
    if (asprintf(&text, "%u:%s:%s", flags, where, data) < 0) {
        text = NULL;
        return no_memory(err);
    }
    if (!sm_strv_add(&process->tmpfs, text))
        return no_memory(err);
    process->wire.flags |= SM_WIRE_PROCESS_TMPFS;
    return 0;
}

/* DIR[:OPTION,...] becomes FLAGS:DIR:OPTION,... */
static int take_tmpfs(struct sm_process *process, const char *text, sm_error *err)
{
    auto_free char *where = strndup(text, strcspn(text, ":"));
    auto_free char *data = calloc(1, strlen(text) + sizeof("mode=1777"));
    if (!where || !data)
        return no_memory(err);
    if (*where != '/')
        return sm_error_set(
            err, SM_EINVAL, "'%.256s' is no absolute path to mount a tmpfs at", where);
    unsigned flags = NO_SUID | NO_DEV | SM_WIRE_TMPFS_COPY;
    strcpy(data, "mode=1777");
    for (const char *option = text + strlen(where); *option;) {
        size_t len = strcspn(++option, ",");
        if (is_tmpfs_option(option, len)) {
            strcat(data, ",");
            strncat(data, option, len);
        } else if (len > 0 && !take_mount_flag(option, len, &flags)) {
            return sm_error_set(err, SM_EINVAL, "'%.*s' is no option of a tmpfs (%.256s)",
                (int)(len > 64 ? 64 : len), option, where);
        }
        option += len;
    }
    return add_tmpfs(process, flags, where, data, err);
}

static int take_mounts(const sm_exec_config *config, struct sm_process *process, sm_error *err)
{
    static const struct {
        const char *path, *mode;
    } writable[] = {{"/run", "mode=755"}, {"/tmp", "mode=1777"}, {"/var/tmp", "mode=1777"}};
    int rc = 0;
    if (config->read_only)
        process->wire.flags |= SM_WIRE_PROCESS_READ_ONLY;
    for (size_t i = 0; !rc && config->read_only && !config->no_tmpfs && i < SM_ARRAY_LEN(writable);
         i++)
        rc = add_tmpfs(process, NO_SUID | NO_DEV | SM_WIRE_TMPFS_COPY, writable[i].path,
            writable[i].mode, err);
    for (const char *const *text = config->tmpfs; !rc && text && *text; text++)
        rc = take_tmpfs(process, *text, err);
    process->wire.tmpfs.strv = (const char *const *)process->tmpfs.items;
    return rc;
}

/* ---- hosts -------------------------------------------------------------------------------- */

/* A word of a line of /etc/hosts. */
static bool is_host_name(const char *name, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if (name[i] <= ' ' || name[i] == '#' || name[i] > '~')
            return false;
    return len > 0 && len < 256;
}

static bool is_address(const char *text)
{
    unsigned char raw[16];
    return strcmp(text, SM_WIRE_HOST_GATEWAY) == 0 || inet_pton(AF_INET, text, raw) == 1 ||
           inet_pton(AF_INET6, text, raw) == 1;
}

/* NAME:ADDRESS becomes a line. */
static int take_hosts(const sm_exec_config *config, struct sm_process *process, sm_error *err)
{
    for (const char *const *text = config->hosts; text && *text; text++) {
        size_t name = strcspn(*text, ":");
        const char *address = (*text)[name] ? *text + name + 1 : "";
        if (!is_host_name(*text, name) || !is_address(address))
            return sm_error_set(
                err, SM_EINVAL, "'%.256s' is not NAME:ADDRESS for /etc/hosts", *text);
        auto_free char *line = NULL;
        if (asprintf(&line, "%s\t%.*s", address, (int)name, *text) < 0) {
            line = NULL;
            return no_memory(err);
        }
        if (!sm_strv_add(&process->hosts, line))
            return no_memory(err);
        process->wire.flags |= SM_WIRE_PROCESS_HOSTS;
    }
    process->wire.hosts.strv = (const char *const *)process->hosts.items;
    return 0;
}

/* ---- numbers and names -------------------------------------------------------------------- */

static int take_umask(const char *text, struct sm_wire_process *p, sm_error *err)
{
    char *end;
    if (!text)
        return 0;
    unsigned long mask = strtoul(text, &end, 8);
    if (text[0] < '0' || text[0] > '7' || *end || strlen(text) > 4)
        return sm_error_set(
            err, SM_EINVAL, "the umask '%.64s' is not an octal number such as 0077", text);
    p->umask = (uint32_t)mask & 0777;
    p->flags |= SM_WIRE_PROCESS_UMASK;
    return 0;
}

static int take_oom_score(int score, struct sm_wire_process *p, sm_error *err)
{
    if (score < -1000 || score > 1000)
        return sm_error_set(err, SM_EINVAL, "the OOM score %d is not from -1000 to 1000", score);
    p->oom_score_adj = score;
    if (score != 0)
        p->flags |= SM_WIRE_PROCESS_OOM_SCORE;
    return 0;
}

static int take_groups(const char *const *groups, struct sm_wire_process *p, sm_error *err)
{
    p->groups.strv = groups;
    for (; groups && *groups; groups++) {
        if (strcmp(*groups, "keep-groups") == 0)
            return sm_error_set(err, SM_EUNSUPPORTED,
                "the guest cannot keep your groups (keep-groups); name those that it shall have");
        p->flags |= SM_WIRE_PROCESS_GROUPS;
    }
    return 0;
}

static int take_sysctls(const char *const *settings, struct sm_wire_process *p, sm_error *err)
{
    p->sysctls.strv = settings;
    for (; settings && *settings; settings++) {
        const char *eq = strchr(*settings, '=');
        if (!eq || eq == *settings)
            return sm_error_set(err, SM_EINVAL, "the sysctl '%.256s' is not NAME=VALUE", *settings);
        p->flags |= SM_WIRE_PROCESS_SYSCTLS;
    }
    return 0;
}

int sm_process_describe(const sm_exec_config *config, struct sm_process *process, sm_error *err)
{
    struct sm_wire_process *p = &process->wire;
    int rc = take_capabilities(config, p, err);
    if (!rc)
        rc = take_limits(config, process, err);
    if (!rc)
        rc = take_mounts(config, process, err);
    if (!rc)
        rc = take_hosts(config, process, err);
    if (!rc)
        rc = take_umask(config->umask, p, err);
    if (!rc)
        rc = take_oom_score(config->oom_score_adj, p, err);
    if (!rc)
        rc = take_groups(config->groups, p, err);
    if (!rc)
        rc = take_sysctls(config->sysctls, p, err);
    if (config->no_new_privileges)
        p->flags |= SM_WIRE_PROCESS_NO_NEW_PRIVS;
    return rc;
}

void sm_process_clear(struct sm_process *process)
{
    sm_strv_clear(&process->tmpfs);
    sm_strv_clear(&process->hosts);
}

bool sm_process_is_default(const sm_exec_config *c)
{
    return !c->groups && !c->privileged && !c->cap_add && !c->cap_drop && !c->no_new_privileges &&
           !c->ulimits && !c->sysctls && !c->umask && !c->oom_score_adj && !c->read_only &&
           !c->tmpfs && !c->hosts;
}
