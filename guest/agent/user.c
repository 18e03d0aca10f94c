/*
 * The image's user database: /etc/passwd and /etc/group, read whole, line by line.
 *
 * As podman and runc do: digits are a number, whoever has them for a name; an unknown number is
 * that uid with gid 0 and HOME "/"; supplementary groups come from the database only where no colon
 * says a group; the user's own group is always among them, or files that shut it out would let it
 * in. Who says nothing is uid 0, whose groups and HOME are those of its line. Nobody has to have a
 * database: one that is none (a FIFO, a huge file) is only refused to who needs it.
 *
 * The last answer is kept and given again while both files are what they were: a command that is
 * started from a snapshot then reads neither.
 */
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "descriptor.h"
#include "system.h"

#define DATABASE_MAX (1u << 20)

static const char *passwd_path = "/etc/passwd", *group_path = "/etc/group";

/* The last answer. */
static struct {
    char spec[USER_SPEC_MAX + 1];
    struct stat passwd, group;
    bool known;
    struct user user;
} last;

void user_set_database(const char *passwd, const char *group)
{
    passwd_path = passwd;
    group_path = group;
    last.known = false;
}

struct text {
    char *data;
    size_t len, mapped;
};

/* Empty if the file is missing or empty. */
static int load(const char *path, struct text *t)
{
    *t = (struct text){.data = NULL};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR ? 0 : -1;
    struct stat st;
    int rc = fstat(fd, &st);
    if (rc == 0 && (!S_ISREG(st.st_mode) || st.st_size > DATABASE_MAX)) {
        errno = EFBIG;
        rc = -1;
    }
    if (rc == 0 && st.st_size > 0) {
        size_t size = (size_t)st.st_size + 1; /* a NUL ends the last line */
        char *p = system_alloc(size);
        ssize_t n = !p ? -1 : read(fd, p, size - 1);
        if (p)
            *t = (struct text){.data = p, .len = n < 0 ? 0 : (size_t)n, .mapped = size};
        rc = n < 0 ? -1 : 0;
    }
    return close_after(fd, rc);
}

static void unload(struct text *t)
{
    if (t->data)
        system_free(t->data, t->mapped);
}

static bool is_space(char c)
{
    return c == ' ' || c == '\t' || c == '\r';
}

/* Splits the next line at its colons into n fields (missing ones are ""), without the spaces around
 * it; false at the end. */
static bool next_line(const struct text *t, size_t *pos, char *fields[], size_t n)
{
    static char empty[1];
    if (*pos >= t->len)
        return false;
    char *line = t->data + *pos;
    char *end = memchr(line, '\n', t->len - *pos);
    if (!end)
        end = t->data + t->len;
    *pos = (size_t)(end - t->data) + 1;
    while (end > line && is_space(end[-1]))
        end--;
    *end = 0;
    while (is_space(*line))
        line++;
    for (size_t i = 0; i < n; i++) {
        fields[i] = line ? line : empty;
        if (line && i + 1 < n) {
            line = strchr(line, ':');
            if (line)
                *line++ = 0;
        }
    }
    return true;
}

static bool number(const char *s, uint32_t *out)
{
    uint64_t v = 0;
    if (*s == 0)
        return false;
    for (; *s; s++) {
        if (*s < '0' || *s > '9' || (v = v * 10 + (uint64_t)(*s - '0')) >= UINT32_MAX)
            return false;
    }
    *out = (uint32_t)v;
    return true;
}

/* Is `name` one of the comma-separated members? */
static bool is_member(const char *members, const char *name)
{
    size_t len = strlen(name);
    for (const char *p = members; p;) {
        if (strncmp(p, name, len) == 0 && (p[len] == ',' || p[len] == 0))
            return true;
        p = strchr(p, ',');
        if (p)
            p++;
    }
    return false;
}

/* ---- one user ----------------------------------------------------------------------------- */

#define ID_MAX 2147483647u /* that somebody may ask for, as podman has it */

enum asked { NAME, ID, NO_ID };

/* What somebody wrote for a user or a group. */
static enum asked parse(const char *s, uint32_t *id)
{
    const char *digits = *s == '-' || *s == '+' ? s + 1 : s;
    if (*digits == 0 || strspn(digits, "0123456789") != strlen(digits))
        return NAME;
    return number(s, id) && *id <= ID_MAX ? ID : NO_ID;
}

static int no_id(const char **what)
{
    *what = "an id is not from 0 to 2147483647";
    return SM_WIRE_E_NO_USER;
}

static int add_group(struct user *u, gid_t gid, const char **what)
{
    for (size_t i = 0; i < u->n_groups; i++)
        if (u->groups[i] == gid)
            return 0;
    if (u->n_groups == USER_MAX_GROUPS) {
        *what = "too many groups";
        return SM_WIRE_E_NO_USER;
    }
    u->groups[u->n_groups++] = gid;
    return 0;
}

static bool keep(char *to, size_t size, const char *text)
{
    size_t len = strlen(text);
    if (len >= size)
        return false;
    memcpy(to, text, len + 1);
    return true;
}

/* A line without a group is one of gid 0, as other readers of the file have it. */
static int take_line(struct user *u, char *const f[], uint32_t uid, const char **what)
{
    uint32_t gid = 0;
    u->uid = uid;
    u->gid = number(f[3], &gid) ? gid : 0;
    *what = "too long a line in /etc/passwd";
    return keep(u->name, sizeof(u->name), f[0]) &&
                   keep(u->home, sizeof(u->home), f[5][0] ? f[5] : "/")
               ? 0
               : SM_WIRE_E_NO_USER;
}

static int find_passwd(const char *who, struct user *u, const char **what)
{
    uint32_t uid = 0;
    enum asked asked = parse(who, &uid);
    if (asked == NO_ID)
        return no_id(what);
    struct text t;
    *what = "/etc/passwd is not to be read";
    int rc = load(passwd_path, &t) == 0 ? -1 : SM_WIRE_E_INTERNAL;
    char *f[7];
    for (size_t pos = 0; rc < 0 && next_line(&t, &pos, f, 7);) {
        uint32_t line_uid;
        if (number(f[2], &line_uid) && (asked == ID ? line_uid == uid : strcmp(f[0], who) == 0))
            rc = take_line(u, f, line_uid, what);
    }
    unload(&t);
    if (rc >= 0)
        return rc;
    *what = "no such name in /etc/passwd";
    u->uid = uid;
    return asked == ID ? 0 : SM_WIRE_E_NO_USER;
}

/* The gid of a name. */
static int find_group(const char *name, gid_t *gid, const char **what)
{
    struct text t;
    *what = "/etc/group is not to be read";
    int rc = load(group_path, &t) == 0 ? -1 : SM_WIRE_E_INTERNAL;
    char *f[4];
    for (size_t pos = 0; rc < 0 && next_line(&t, &pos, f, 4);) {
        uint32_t line_gid;
        if (strcmp(f[0], name) == 0 && number(f[2], &line_gid)) {
            *gid = line_gid;
            rc = 0;
        }
    }
    unload(&t);
    if (rc >= 0)
        return rc;
    *what = "no such name in /etc/group";
    return SM_WIRE_E_NO_USER;
}

static int find_any_group(const char *which, gid_t *gid, const char **what)
{
    uint32_t id = 0;
    switch (parse(which, &id)) {
    case ID:
        *gid = id;
        return 0;
    case NO_ID:
        return no_id(what);
    default:
        return find_group(which, gid, what);
    }
}

/* The groups that the user is a member of. */
static int find_memberships(struct user *u, const char **what)
{
    struct text t;
    *what = "/etc/group is not to be read";
    int rc = u->name[0] == 0 ? 0 : load(group_path, &t) == 0 ? -1 : SM_WIRE_E_INTERNAL;
    if (rc == 0)
        return 0;
    char *f[4];
    for (size_t pos = 0; rc < 0 && next_line(&t, &pos, f, 4);) {
        uint32_t line_gid;
        int full =
            number(f[2], &line_gid) && is_member(f[3], u->name) ? add_group(u, line_gid, what) : 0;
        if (full)
            rc = full;
    }
    unload(&t);
    return rc > 0 ? rc : 0;
}

static int look_up(
    const char *who, const char *which, bool any_group, struct user *u, const char **what)
{
    int rc = find_passwd(who, u, what);
    if (!rc && which[0])
        rc = find_any_group(which, &u->gid, what);
    if (!rc)
        rc = add_group(u, u->gid, what);
    if (!rc && !any_group)
        rc = find_memberships(u, what);
    return rc;
}

static void be_root(struct user *u)
{
    *u = (struct user){.home = "/"};
}

/* "USER[:GROUP]"; a further colon ends the group. */
static int find(const char *spec, struct user *u, const char **what)
{
    char who[USER_SPEC_MAX + 1];
    if (!keep(who, sizeof(who), spec)) {
        *what = "too long a name";
        return SM_WIRE_E_NO_USER;
    }
    char *which = strchr(who, ':');
    bool colon = which != NULL;
    if (colon) {
        *which++ = 0;
        which[strcspn(which, ":")] = 0;
    }
    be_root(u);
    int rc = look_up(who[0] ? who : "0", colon ? which : "", colon, u, what);
    if (rc && spec[0] == 0) { /* with nothing said, a database that is none is as good as none */
        be_root(u);
        rc = add_group(u, 0, what);
    }
    return rc;
}

/* ---- the last answer ---------------------------------------------------------------------- */

/* A file that was changed within the tick in which it was looked at looks the same. */
#define SETTLED_S 2

/* All zero: it is not there. */
static void look_at(const char *path, struct stat *s)
{
    if (stat(path, s) != 0)
        *s = (struct stat){.st_size = 0};
}

static bool is_same(const struct stat *a, const struct stat *b)
{
    return a->st_dev == b->st_dev && a->st_ino == b->st_ino && a->st_size == b->st_size &&
           a->st_ctim.tv_sec == b->st_ctim.tv_sec && a->st_ctim.tv_nsec == b->st_ctim.tv_nsec;
}

static bool is_settled(const struct stat *s, time_t now)
{
    return s->st_ctim.tv_sec < now - SETTLED_S;
}

int user_find(const char *spec, struct user *u, const char **what)
{
    struct stat passwd, group;
    look_at(passwd_path, &passwd);
    look_at(group_path, &group);
    if (last.known && strcmp(spec, last.spec) == 0 && is_same(&passwd, &last.passwd) &&
        is_same(&group, &last.group)) {
        *u = last.user;
        return 0;
    }
    struct timespec now = {0};
    clock_gettime(CLOCK_REALTIME, &now);
    int rc = find(spec, u, what);
    last.known = rc == 0 && is_settled(&passwd, now.tv_sec) && is_settled(&group, now.tv_sec) &&
                 keep(last.spec, sizeof(last.spec), spec);
    last.passwd = passwd;
    last.group = group;
    last.user = *u;
    return rc;
}

int user_add_groups(
    struct user *u, const struct sm_wire_list *groups, const char **which, const char **what)
{
    uint32_t cursor = 0;
    int rc = 0;
    while (!rc && sm_wire_list_next(groups, &cursor, which)) {
        gid_t gid = 0;
        rc = find_any_group(*which, &gid, what);
        if (!rc)
            rc = add_group(u, gid, what);
    }
    return rc;
}
