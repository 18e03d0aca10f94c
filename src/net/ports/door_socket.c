/* The unix socket of a front door. See door_socket.h. */
#include "net/ports/door_socket.h"

#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "util/cleanup.h"
#include "util/error.h"

#define BACKLOG        64
#define LONGEST_BESIDE "_4294967295"

static socklen_t address_of(const char *path, struct sockaddr_un *addr)
{
    *addr = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t len = strlen(path);
    memcpy(addr->sun_path, path, len);
    if (*path == '@')
        addr->sun_path[0] = '\0';
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
}

/* `path` fits into a socket address. Is the directory the caller's alone? */
static bool is_private(const char *path)
{
    char dir[sizeof(((struct sockaddr_un *)0)->sun_path)];
    snprintf(dir, sizeof(dir), "%s", path);
    char *slash = strrchr(dir, '/');
    if (slash)
        slash[slash == dir] = '\0';
    struct stat st;
    return stat(slash ? dir : ".", &st) == 0 && st.st_uid == geteuid() && !(st.st_mode & 077);
}

/* A socket file is there, and nobody listens on it: it may go. */
static bool remove_dead(const struct sockaddr_un *addr, socklen_t size)
{
    struct stat st;
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && lstat(addr->sun_path, &st) == 0 && S_ISSOCK(st.st_mode) &&
           connect(fd, (const struct sockaddr *)addr, size) < 0 && errno == ECONNREFUSED &&
           unlink(addr->sun_path) == 0;
}

/* The socket file gets the mode that the socket has before the bind. */
static int bind_and_listen(struct sm_door_socket *door, sm_error *err)
{
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || fchmod(fd, 0600) < 0)
        return sm_error_errno(err, errno, "cannot open the front door %s", door->path);
    struct sockaddr_un addr;
    socklen_t size = address_of(door->path, &addr);
    const struct sockaddr *to = (const struct sockaddr *)&addr;
    int rc = bind(fd, to, size);
    if (rc < 0 && errno == EADDRINUSE && door->is_file && remove_dead(&addr, size))
        rc = bind(fd, to, size);
    if (rc < 0 && errno == EADDRINUSE)
        return sm_error_set(err, SM_EBUSY,
            "cannot open the front door %s: it is there already; choose another path", door->path);
    if (rc < 0)
        return sm_error_errno(err, errno, "cannot open the front door %s", door->path);
    if (listen(fd, BACKLOG) < 0) {
        rc = sm_error_errno(err, errno, "cannot listen on the front door %s", door->path);
        if (door->is_file)
            unlink(door->path);
        return rc;
    }
    door->fd = sm_steal_fd(&fd);
    return 0;
}

int sm_door_socket_open(struct sm_door_socket *door, const char *path, sm_error *err)
{
    *door = SM_DOOR_SOCKET_NONE;
    const size_t longest = sizeof(((struct sockaddr_un *)0)->sun_path) - sizeof(LONGEST_BESIDE);
    if (!*path || strlen(path) > longest)
        return sm_error_set(err, SM_EINVAL,
            "the path of the front door must have 1 to %zu bytes: %s", longest, path);
    door->path = strdup(path);
    if (!door->path)
        return sm_error_errno(err, ENOMEM, "cannot open the front door %s", path);
    door->is_file = *path != '@';
    door->leads_out = door->is_file && is_private(path);
    int rc = bind_and_listen(door, err);
    if (rc)
        sm_door_socket_close(door);
    return rc;
}

void sm_door_socket_close(struct sm_door_socket *door)
{
    if (door->fd >= 0 && door->is_file)
        unlink(door->path);
    sm_close(door->fd);
    free(door->path);
    *door = SM_DOOR_SOCKET_NONE;
}

/* In the abstract namespace no file mode keeps others out. */
static bool may_enter(const struct sm_door_socket *door, int fd)
{
    struct ucred peer;
    socklen_t size = sizeof(peer);
    return door->is_file || (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) == 0 &&
                                (peer.uid == geteuid() || peer.uid == 0));
}

int sm_door_socket_accept(const struct sm_door_socket *door)
{
    // cppcheck-suppress nullPointer
    auto_fd fd = accept4(door->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0 && !may_enter(door, fd)) {
        errno = EACCES;
        return -1;
    }
    return sm_steal_fd(&fd);
}

int sm_door_socket_lead_out(const struct sm_door_socket *door, uint32_t n)
{
    if (!door->leads_out)
        return -1;
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    snprintf(
        addr.sun_path, sizeof(addr.sun_path), "%s_%u", door->path, n); /* the length is checked */
    auto_fd fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0)
        return -1;
    return sm_steal_fd(&fd);
}
