/* A user for a machine. See machine_user.h. */
#include "vm/machine_user.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/cleanup.h"

#define LOCKS "/run/supermachine-users"

/* Another user's file could be locked by him for ever. */
static bool is_ours(int fd)
{
    struct stat st;
    return fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_uid == geteuid() &&
           !(st.st_mode & (S_IRWXG | S_IRWXO));
}

void sm_machine_user_take_of(const char *path, uid_t *uid, int *lock)
{
    uint32_t first = 0;
    *uid = 0;
    *lock = -1;
    auto_fd fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    if (fd < 0 || !is_ours(fd))
        return;
    /* Anywhere: a number that has just become free is best left alone for a while. */
    if (getrandom(&first, sizeof(first), GRND_NONBLOCK) != sizeof(first))
        first = 0;
    for (uint32_t i = 0; i < SM_MACHINE_USERS; i++) {
        uint32_t n = (first + i) % SM_MACHINE_USERS;
        struct flock byte = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = n, .l_len = 1};
        if (fcntl(fd, F_OFD_SETLK, &byte) == 0) {
            *uid = SM_MACHINE_USER_FIRST + n;
            *lock = sm_steal_fd(&fd);
            return;
        }
    }
}

void sm_machine_user_take(uid_t *uid, int *lock)
{
    *uid = 0;
    *lock = -1;
    if (geteuid() == 0)
        sm_machine_user_take_of(LOCKS, uid, lock);
}
