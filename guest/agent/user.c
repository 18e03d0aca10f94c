/*
 * The image's user database: /etc/passwd and /etc/group, read whole, line by line.
 *
 * As container engines do: a name is looked for before a number; an unknown number is that uid with
 * gid 0 and HOME "/"; supplementary groups come from the database only if no group was named. Root
 * with nothing else said needs no file at all.
 */
#include "user.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "system.h"
#include "wire/wire.h"

#define DATABASE_MAX (1u << 20)

static const char *passwd_path = "/etc/passwd", *group_path = "/etc/group";

void user_set_database(const char *passwd, const char *group)
{
    passwd_path = passwd;
    group_path = group;
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
    int saved = errno;
    close(fd);
    errno = saved;
    return rc;
}

static void unload(struct text *t)
{
    if (t->data)
        system_free(t->data, t->mapped);
}

/* Splits the next line at its colons into n fields (missing ones are ""); false at the end. */
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
    *end = 0;
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

/* name and home of the user go to u->storage, one behind the other. False: they do not fit. */
static bool keep(struct user *u, const char *name, const char *home)
{
    size_t name_len = strlen(name), home_len = strlen(home);
    if (name_len + home_len + 2 > sizeof(u->storage))
        return false;
    memcpy(u->storage, name, name_len + 1);
    memcpy(u->storage + name_len + 1, home, home_len + 1);
    u->home = home_len > 0 ? u->storage + name_len + 1 : "/";
    return true;
}

static int find_passwd(const char *path, const char *who, struct user *u, const char **what)
{
    struct text t;
    if (load(path, &t) != 0) {
        unload(&t);
        *what = "cannot read /etc/passwd";
        return SM_WIRE_E_INTERNAL;
    }
    /* A name wins over a number, wherever it stands; of several lines the first. */
    uint32_t uid = 0;
    bool numeric = number(who, &uid), found = false;
    char *f[7];
    for (size_t pos = 0; next_line(&t, &pos, f, 7);) {
        bool named = strcmp(f[0], who) == 0;
        uint32_t entry_uid, entry_gid;
        if (!number(f[2], &entry_uid) || !number(f[3], &entry_gid) ||
            !(named || (numeric && !found && entry_uid == uid)) || !keep(u, f[0], f[5]))
            continue;
        u->uid = entry_uid;
        u->gid = entry_gid;
        found = true;
        if (named)
            break;
    }
    unload(&t);
    if (found)
        return 0;
    *what = "unknown user name";
    if (!numeric)
        return SM_WIRE_E_NO_USER;
    u->uid = uid;
    return 0;
}

static int find_group(const char *path, const char *which, struct user *u, const char **what)
{
    struct text t;
    if (load(path, &t) != 0) {
        unload(&t);
        *what = "cannot read /etc/group";
        return SM_WIRE_E_INTERNAL;
    }
    uint32_t gid = 0;
    bool numeric = which && number(which, &gid), found = false;
    char *f[4];
    for (size_t pos = 0; !found && next_line(&t, &pos, f, 4);) {
        uint32_t entry_gid;
        if (!number(f[2], &entry_gid))
            continue;
        if (which && strcmp(f[0], which) == 0) {
            u->gid = entry_gid;
            found = true;
        } else if (!which && u->n_groups < sizeof(u->groups) / sizeof(u->groups[0]) &&
                   u->storage[0] && is_member(f[3], u->storage)) {
            u->groups[u->n_groups++] = entry_gid;
        }
    }
    unload(&t);
    if (!which || found)
        return 0;
    *what = "unknown group name";
    if (!numeric)
        return SM_WIRE_E_NO_USER;
    u->gid = gid;
    return 0;
}

int user_find(const char *spec, struct user *u, const char **what)
{
    u->uid = 0;
    u->gid = 0;
    u->n_groups = 0;
    u->home = "/";
    u->storage[0] = 0;

    if (spec[0] == 0 || strcmp(spec, "root") == 0 || strcmp(spec, "0") == 0 ||
        strcmp(spec, "0:0") == 0 || strcmp(spec, "root:root") == 0) {
        u->home = "/root";
        return 0;
    }
    char who[256];
    const char *colon = strchr(spec, ':');
    size_t len = colon ? (size_t)(colon - spec) : strlen(spec);
    if (len >= sizeof(who)) {
        *what = "too long a name";
        return SM_WIRE_E_NO_USER;
    }
    memcpy(who, spec, len);
    who[len] = 0;
    int rc = find_passwd(passwd_path, who[0] ? who : "0", u, what);
    if (rc == 0)
        rc = find_group(group_path, colon && colon[1] ? colon + 1 : NULL, u, what);
    return rc;
}
