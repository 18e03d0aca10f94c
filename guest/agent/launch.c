/*
 * From an EXEC to a process that runs, and our ends of its streams: argv and environment, user,
 * pipes or a terminal. What becomes of them then is exec.c's.
 *
 * A pipe's reading end is blocking, the writing end of stdin is not. A terminal is one descriptor
 * for both directions, with a duplicate for input so that epoll can have both; and its other end,
 * because it is not over when the command closes it: systemd opens its console for each line.
 */
#include "launch.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "identity.h"
#include "spawn.h"
#include "system.h"
#include "user.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

/* Pointers to the strings of a request; used between decoding and starting, one exec at a time. */
static char *argv_store[SM_WIRE_MAX_STRINGS + 1];
static char *envp_store[SM_WIRE_MAX_STRINGS + 5];

/* ---- argv and environment ----------------------------------------------------------------- */

/* The strings of a list as a vector. They are the frame's, which outlives the start. */
static size_t vector(const struct sm_wire_list *list, char **store)
{
    uint32_t cursor = 0;
    size_t n = 0;
    for (const char *s; sm_wire_list_next(list, &cursor, &s); n++)
        memcpy(&store[n], &s, sizeof(s)); /* const goes, as execve wants it */
    store[n] = NULL;
    return n;
}

static const char *find_env(const char *name)
{
    size_t len = strlen(name);
    for (char **p = envp_store; *p; p++)
        if (strncmp(*p, name, len) == 0 && (*p)[len] == '=')
            return *p + len + 1;
    return NULL;
}

/* Appends NAME=value if NAME is not there; the string is built in store. */
static void default_env(size_t *n, const char *name, const char *value, char *store, size_t size)
{
    size_t len = strlen(name), value_len = strlen(value);
    if (find_env(name) || len + value_len + 2 > size)
        return;
    memcpy(store, name, len);
    store[len] = '=';
    memcpy(store + len + 1, value, value_len + 1);
    envp_store[(*n)++] = store;
    envp_store[*n] = NULL;
}

/* Where the strings are that the request lacks. */
struct defaults {
    char path[sizeof("PATH=" PATH_DEFAULT)], home[300], host[80], term[16];
};

static void environment(const struct sm_wire_exec *m, const char *home, struct defaults *d)
{
    size_t n = vector(&m->env, envp_store);
    default_env(&n, "PATH", PATH_DEFAULT, d->path, sizeof(d->path));
    default_env(&n, "HOME", home, d->home, sizeof(d->home));
    default_env(&n, "HOSTNAME", identity_hostname(), d->host, sizeof(d->host));
    if (m->flags & SM_WIRE_EXEC_TTY)
        default_env(&n, "TERM", "xterm", d->term, sizeof(d->term));
}

/* ---- streams ------------------------------------------------------------------------------ */

static void close_fd(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int open_terminal(const struct sm_wire_exec *m, struct launched *l)
{
    struct winsize size = {
        .ws_row = m->rows ? m->rows : 24, .ws_col = m->columns ? m->columns : 80};
    int unlock = 0;
    l->out[0] = open("/dev/ptmx", O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
    if (l->out[0] < 0 || ioctl(l->out[0], TIOCSPTLCK, &unlock) != 0 ||
        ioctl(l->out[0], TIOCSWINSZ, &size) != 0)
        return -1;
    l->terminal = ioctl(l->out[0], TIOCGPTPEER, O_RDWR | O_NOCTTY | O_CLOEXEC);
    if (l->terminal < 0)
        return -1;
    l->in = fcntl(l->out[0], F_DUPFD_CLOEXEC, 3);
    return l->in < 0 ? -1 : 0;
}

static int open_pipes(uint32_t flags, struct launched *l, int child[3])
{
    int p[2];
    if (flags & SM_WIRE_EXEC_STDIN) {
        if (pipe2(p, O_CLOEXEC) != 0)
            return -1;
        child[0] = p[0];
        l->in = p[1];
        if (fcntl(l->in, F_SETFL, O_WRONLY | O_NONBLOCK) != 0)
            return -1;
    }
    for (unsigned i = 0; i < 2; i++) {
        if (!(flags & (i == 0 ? SM_WIRE_EXEC_STDOUT : SM_WIRE_EXEC_STDERR)))
            continue;
        if (pipe2(p, O_CLOEXEC) != 0)
            return -1;
        l->out[i] = p[0];
        child[i + 1] = p[1];
    }
    return 0;
}

/* Who opens /dev/stdout opens the pipe (or terminal) anew, and must be its owner to be let in. */
static int own_streams(const int child[3], uid_t uid)
{
    for (unsigned i = 0; uid != 0 && i < 3; i++)
        if (child[i] >= 0 && fchown(child[i], uid, (gid_t)-1) != 0)
            return -1;
    return 0;
}

/* ---- start -------------------------------------------------------------------------------- */

/* The process, or s->kind and what failed. */
static void start(struct spawn *s, const struct sm_wire_exec *m, struct launched *l)
{
    int rc = s->tty ? open_terminal(m, l) : open_pipes(m->flags, l, s->fds);
    if (s->tty)
        s->fds[0] = l->terminal;
    if (rc == 0)
        rc = own_streams(s->fds, s->user->uid);
    l->start_ns = loop_now_ns();
    if (rc != 0) {
        s->kind = SM_WIRE_E_INTERNAL;
        s->errnum = errno;
        s->what = s->tty ? "no terminal for " : "no pipes for ";
    } else {
        l->pid = spawn(s);
    }
    for (unsigned i = 0; i < 3 && !s->tty; i++)
        close_fd(&s->fds[i]);
    if (l->pid >= 0)
        return;
    close_fd(&l->terminal);
    close_fd(&l->in);
    close_fd(&l->out[0]);
    close_fd(&l->out[1]);
}

bool launch(struct conn *c, const struct sm_wire_exec *m, struct launched *l)
{
    *l = (struct launched){.pid = -1, .in = -1, .out = {-1, -1}, .terminal = -1};
    if (vector(&m->argv, argv_store) == 0 || argv_store[0][0] == 0) {
        conn_error(c, SM_WIRE_E_NOT_FOUND, 0, "no command was given", NULL);
        return false;
    }
    struct user user;
    const char *what = "";
    int kind = user_find(m->user, &user, &what);
    if (kind != 0) {
        conn_error(c, (enum sm_wire_error_kind)kind, kind == SM_WIRE_E_INTERNAL ? errno : 0, what,
            " for user \"", m->user, "\"", NULL);
        return false;
    }
    struct defaults defaults;
    const char *group = "";
    kind = user_add_groups(&user, &m->process.groups, &group, &what);
    if (kind != 0) {
        conn_error(c, (enum sm_wire_error_kind)kind, kind == SM_WIRE_E_INTERNAL ? errno : 0, what,
            " for group \"", group, "\"", NULL);
        return false;
    }
    environment(m, user.home, &defaults);
    struct spawn s = {.argv = argv_store,
        .envp = envp_store,
        .path = find_env("PATH"),
        .cwd = m->cwd,
        .user = &user,
        .process = &m->process,
        .fds = {-1, -1, -1},
        .tty = (m->flags & SM_WIRE_EXEC_TTY) != 0,
        .first = (m->flags & SM_WIRE_EXEC_FIRST) != 0,
        .init = (m->flags & SM_WIRE_EXEC_INIT) != 0,
        .systemd = (m->flags & SM_WIRE_EXEC_SYSTEMD) != 0,
        .trial = (m->flags & SM_WIRE_EXEC_TRIAL) != 0};
    start(&s, m, l);
    if (l->pid >= 0 && s.systemd)
        system_keep_journal();
    if (l->pid < 0)
        conn_error(c, s.kind, s.errnum, s.what,
            s.kind == SM_WIRE_E_BAD_CWD ? m->cwd
            : s.which                   ? s.which
                                        : argv_store[0],
            s.step ? ": " : NULL, s.step, NULL);
    return l->pid >= 0;
}
