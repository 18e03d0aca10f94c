/*
 * Landlock: no file but those that were asked for, whoever's they are; from its later ABIs on no
 * TCP, no abstract socket and no signal to a process outside. See sandbox.h, step 9.
 *
 * It says nothing of what was opened before. The kernel is asked at run time what it can do, and
 * all that is handled, so that a right which nobody is given is nobody's. libc has no wrappers, and
 * the header of an older system knows an older ABI, so the numbers of later ones stand here.
 *
 * It runs before any list of system calls is in force.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "sandbox/internal.h"
#include "util/cleanup.h"

#define FS_READ      (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR)
#define FS_ABI_1     ((LANDLOCK_ACCESS_FS_MAKE_SYM << 1) - 1) /* all up to it */
#define FS_REFER     (1ULL << 13)
#define FS_TRUNCATE  (1ULL << 14)
#define FS_IOCTL_DEV (1ULL << 15)
#define NET_BIND_TCP (1ULL << 0)
#define NET_CONN_TCP (1ULL << 1)
/* What a rule of a file that is written may say; and what none says. */
#define FS_WRITE_FILE  (LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | FS_TRUNCATE)
#define FS_NEVER       (LANDLOCK_ACCESS_FS_EXECUTE | FS_IOCTL_DEV)
#define SCOPE_SOCKET   (1ULL << 0) /* abstract unix sockets */
#define SCOPE_SIGNAL   (1ULL << 1)
#define ABI_OF_RENAMES 2
#define ABI_OF_SCOPES  6

/* struct landlock_ruleset_attr as ABI 6 has it; an older kernel takes a longer one if what it does
 * not know is zero. */
struct rights {
    uint64_t fs, net, scoped;
};

static const struct {
    int abi;
    struct rights adds;
} table[] = {
    {1, {.fs = FS_ABI_1}},
    {ABI_OF_RENAMES, {.fs = FS_REFER}},
    {3, {.fs = FS_TRUNCATE}},
    {4, {.net = NET_BIND_TCP | NET_CONN_TCP}},
    {5, {.fs = FS_IOCTL_DEV}},
    {ABI_OF_SCOPES, {.scoped = SCOPE_SOCKET | SCOPE_SIGNAL}},
};

static struct rights of_abi(int abi, const struct sm_sandbox_spec *spec)
{
    struct rights all = {0};
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]) && table[i].abi <= abi; i++) {
        all.fs |= table[i].adds.fs;
        all.net |= spec->has_network ? 0 : table[i].adds.net;
        all.scoped |= table[i].adds.scoped & ~(spec->ends_others ? SCOPE_SIGNAL : 0);
    }
    return all;
}

static int allow(int rules, const char *path, uint64_t of_file, uint64_t of_directory)
{
    struct stat st;
    auto_fd fd = open(path, O_PATH | O_CLOEXEC);
    if (fd < 0)
        return sm_sandbox_is_left_out(errno) ? 0 : -1;
    if (fstat(fd, &st) < 0)
        return -1;
    struct landlock_path_beneath_attr rule = {
        .allowed_access = S_ISDIR(st.st_mode) ? of_directory : of_file,
        .parent_fd = fd,
    };
    return (int)syscall(SYS_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH, &rule, 0);
}

void sm_sandbox_landlock(const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers)
{
    int abi = (int)syscall(SYS_landlock_create_ruleset, NULL, 0, LANDLOCK_CREATE_RULESET_VERSION);
    if (abi < 0) {
        sm_layer_set(layers, SM_LAYER_LANDLOCK, SM_LAYER_MISSING, errno, "%s",
            errno == EOPNOTSUPP ? "the kernel was started without it (lsm=)"
                                : "the kernel has none");
        return;
    }
    if (abi < ABI_OF_RENAMES && spec->write_paths) {
        sm_layer_set(layers, SM_LAYER_LANDLOCK, SM_LAYER_MISSING, 0,
            "the kernel has ABI %d, which lets nobody rename into another directory", abi);
        return;
    }
    struct rights rights = of_abi(abi, spec);
    auto_fd rules = (int)syscall(SYS_landlock_create_ruleset, &rights, sizeof(rights), 0);
    int rc = rules < 0 ? -1 : 0;
    for (const char *const *path = spec->read_paths; !rc && path && *path; path++)
        rc = allow(rules, *path, LANDLOCK_ACCESS_FS_READ_FILE, FS_READ);
    for (const char *const *path = spec->write_paths; !rc && path && *path; path++)
        rc = allow(rules, *path, rights.fs & FS_WRITE_FILE, rights.fs & ~FS_NEVER);
    if (rc < 0 || syscall(SYS_landlock_restrict_self, rules, 0) < 0)
        sm_layer_set(layers, SM_LAYER_LANDLOCK, SM_LAYER_MISSING, errno, "it cannot be set");
    else if (abi < ABI_OF_SCOPES)
        sm_layer_set(layers, SM_LAYER_LANDLOCK, SM_LAYER_PARTLY, 0,
            "the kernel has ABI %d: signals and abstract sockets from %d on", abi, ABI_OF_SCOPES);
    else
        sm_layer_set(layers, SM_LAYER_LANDLOCK, SM_LAYER_IN_FORCE, 0, NULL);
}
