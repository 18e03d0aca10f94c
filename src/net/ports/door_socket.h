/*
 * The unix socket of a front door: where it may be, who may use it, what a dead owner has left, and
 * the sockets of the user's beside it.
 *
 * "PATH" is a socket file with mode 0600, so the directory's and the file's permissions say who
 * connects; "@NAME" is in the abstract namespace, which has no permissions, so the kernel is asked
 * who connects: this user and root may. A socket file on which nobody listens any more is replaced,
 * any other file is left alone. Where the file lies in a directory of the caller's own with mode
 * 0700, nobody else can have put a socket there, and the guest's connections may lead out to the
 * sockets beside it.
 *
 * Threads: opened by any, which may wait for a file system; all else does not block.
 */
#ifndef SM_NET_PORTS_DOOR_SOCKET_H
#define SM_NET_PORTS_DOOR_SOCKET_H

#include <stdbool.h>
#include <stdint.h>

#include <supermachine.h>

struct sm_door_socket {
    int fd; /* -1: none */
    char *path;
    bool is_file;
    bool leads_out; /* the directory is the caller's alone */
};
#define SM_DOOR_SOCKET_NONE ((struct sm_door_socket){.fd = -1})

/* Binds and listens. SM_EINVAL: no such path can be; SM_EBUSY: it is there already. */
int sm_door_socket_open(struct sm_door_socket *door, const char *path, sm_error *err);
/* Removes the file, too. */
void sm_door_socket_close(struct sm_door_socket *door);

/* The next client that may come in (non-blocking), -1 with errno: there is none now; EACCES: one
 * was sent away. */
int sm_door_socket_accept(const struct sm_door_socket *door);

/* Connects (non-blocking) to the unix socket "PATH_N"; -1: there is none, or the door does not lead
 * out. */
int sm_door_socket_lead_out(const struct sm_door_socket *door, uint32_t n);

#endif
