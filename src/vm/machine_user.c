/* A user for a machine. See machine_user.h. */
#include "vm/machine_user.h"

#include <fcntl.h>
#include <inttypes.h>
#include <linux/capability.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "util/cleanup.h"

#define LOCKS "/run/supermachine-users"

/* Another user's file could be locked by him for ever. */
static bool is_ours(int fd, struct stat *st)
{
    return fstat(fd, st) == 0 && S_ISREG(st->st_mode) && st->st_uid == geteuid() &&
           !(st->st_mode & (S_IRWXG | S_IRWXO));
}

static int lock_byte(int fd, short how, uint32_t n)
{
    struct flock byte = {.l_type = how, .l_whence = SEEK_SET, .l_start = n, .l_len = 1};
    return fcntl(fd, F_OFD_SETLK, &byte);
}

/* The lock is to be held by a descriptor through which nothing can be written: a machine that a
 * guest has taken over could fill the file system with it. Takers want the byte for writing, so one
 * for reading keeps them off; and there is no moment without. */
static int held_for_reading(const char *path, int fd, const struct stat *st, uint32_t n)
{
    struct stat same;
    auto_fd reader = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY);
    if (reader < 0 || fstat(reader, &same) || same.st_ino != st->st_ino ||
        same.st_dev != st->st_dev || lock_byte(fd, F_RDLCK, n) || lock_byte(reader, F_RDLCK, n))
        return -1;
    return sm_steal_fd(&reader);
}

void sm_machine_user_take_of(const char *path, uid_t *uid, int *lock)
{
    uint32_t first = 0;
    struct stat st;
    *uid = 0;
    *lock = -1;
    auto_fd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    if (fd < 0 || !is_ours(fd, &st))
        return;
    /* Anywhere: a number that has just become free is best left alone for a while. */
    if (getrandom(&first, sizeof(first), GRND_NONBLOCK) != sizeof(first))
        first = 0;
    for (uint32_t i = 0; i < SM_MACHINE_USERS; i++) {
        uint32_t n = (first + i) % SM_MACHINE_USERS;
        if (lock_byte(fd, F_WRLCK, n))
            continue;
        *lock = held_for_reading(path, fd, &st, n);
        *uid = *lock < 0 ? 0 : SM_MACHINE_USER_FIRST + n;
        return;
    }
}

/* ---- whether it can be had ------------------------------------------------------------------- */

bool sm_machine_users_are_mapped(const char *map)
{
    auto_file file = fopen(map, "re");
    uint64_t inside, outside, count;
    while (
        file && fscanf(file, "%" SCNu64 " %" SCNu64 " %" SCNu64, &inside, &outside, &count) == 3) {
        if (inside <= SM_MACHINE_USER_FIRST &&
            inside + count >= (uint64_t)SM_MACHINE_USER_FIRST + SM_MACHINE_USERS)
            return true;
    }
    return false;
}

/* Root of a container may lack them. */
static bool has_capabilities(void)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];
    const uint32_t wanted = 1u << CAP_SETUID | 1u << CAP_SETGID;
    return syscall(SYS_capget, &head, data) == 0 && (data[0].effective & wanted) == wanted;
}

void sm_machine_user_take(uid_t *uid, int *lock)
{
    *uid = 0;
    *lock = -1;
    if (geteuid() == 0 && has_capabilities() && sm_machine_users_are_mapped("/proc/self/uid_map") &&
        sm_machine_users_are_mapped("/proc/self/gid_map"))
        sm_machine_user_take_of(LOCKS, uid, lock);
}
