/*
 * A user of its own for the machine's process of a VM that root starts, so that who gets out of one
 * VM is nobody to all else on the host: not to its files, and not to other VMs.
 *
 * The numbers are 65,536 above all that systemd and subuid ranges give to anybody. Which of them
 * are in use tell locks on the bytes of one file, each held by the descriptor that take gives: the
 * client has it, and the process, and with the last of them the number is free. It can be read
 * only. Where there is no such file to be had (a read-only /run), or this root may not become
 * others (a user namespace that does not have these numbers, a container without CAP_SETUID), there
 * is no such user, and the process stays its caller's, without capabilities.
 *
 * System calls elsewhere: openat, fcntl(F_OFD_SETLK), fstat, getrandom, capget, read.
 */
#ifndef SM_VM_MACHINE_USER_H
#define SM_VM_MACHINE_USER_H

#include <stdbool.h>
#include <sys/types.h>

#define SM_MACHINE_USER_FIRST 1900000000u
#define SM_MACHINE_USERS      65536u

/* *uid 0: there is none, this process is not root's or could not have one; *lock is -1 then, else
 * the caller's. */
void sm_machine_user_take(uid_t *uid, int *lock);

/* Whether all of them are there in this user namespace, by a map as /proc/self/uid_map. */
bool sm_machine_users_are_mapped(const char *map);
/* The same, of that file, for tests. */
void sm_machine_user_take_of(const char *path, uid_t *uid, int *lock);

#endif
