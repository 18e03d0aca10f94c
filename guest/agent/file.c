/*
 * Files in and out. A written file appears by a rename, whole, with its owner and mode. A read file
 * is sent as the output drains; its size is only a hint (files of /proc say 0).
 */
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "identity.h"

#define TEMP_NAME ".supermachine-" /* and a number that this boot has had no other time */

struct file {
    int fd;              /* -1: not open */
    uint64_t left;       /* bytes still to come, or still allowed */
    struct buffer *path; /* of a written one; a NUL; that of the temporary file beside it */
};
_Static_assert(sizeof(struct file) <= CONN_OWN_BYTES, "fits into a conn");

static const char *final_path(const struct file *f)
{
    return (const char *)f->path->data;
}

static const char *temp_path(const struct file *f)
{
    return final_path(f) + strlen(final_path(f)) + 1;
}

static void hexadecimal(char *to, uint64_t v)
{
    for (int i = 15; i >= 0; i--, v >>= 4)
        to[i] = "0123456789abcdef"[v & 15];
    to[16] = 0;
}

static bool make_paths(struct file *f, const char *path)
{
    static uint64_t files;
    const char *slash = strrchr(path, '/');
    size_t len = strlen(path), dir = (size_t)(slash - path) + 1;
    if (!(f->path = buffer_get(2 * (SM_WIRE_MAX_PATH + 64u))))
        return false;
    char *p = (char *)f->path->data;
    memcpy(p, path, len + 1);
    p += len + 1;
    memcpy(p, path, dir);
    memcpy(p + dir, TEMP_NAME, sizeof(TEMP_NAME) - 1);
    hexadecimal(p + dir + sizeof(TEMP_NAME) - 1, identity_nonce() + ++files);
    return true;
}

static void forget(struct file *f)
{
    if (f->fd >= 0)
        close(f->fd);
    buffer_put(f->path);
}

static enum sm_wire_error_kind kind_of(int errnum)
{
    return errnum == ENOENT || errnum == ENOTDIR ? SM_WIRE_E_NOT_FOUND : SM_WIRE_E_INTERNAL;
}

/* ---- writing ------------------------------------------------------------------------------ */

static void write_lost(struct conn *c)
{
    struct file *f = conn_own(c);
    if (f->fd >= 0)
        unlink(temp_path(f));
    forget(f);
}

static void write_failed(struct conn *c, const char *what)
{
    int errnum = errno;
    const struct file *f = conn_own(c);
    conn_error(c, kind_of(errnum), errnum, what, final_path(f), NULL);
}

static void write_done(struct conn *c)
{
    struct file *f = conn_own(c);
    if (rename(temp_path(f), final_path(f)) != 0) {
        write_failed(c, "cannot replace ");
        return;
    }
    forget(f);
    conn_leave(c);
    conn_put(c, SM_WIRE_OK, NULL);
}

static bool write_frame(struct conn *c, const struct sm_wire_frame *frame)
{
    struct file *f = conn_own(c);
    if (frame->type != SM_WIRE_DATA)
        return false;
    if (frame->len > f->left) {
        errno = EFBIG;
        write_failed(c, "more data than was announced for ");
        return true;
    }
    for (uint32_t done = 0; done < frame->len;) {
        ssize_t n = write(f->fd, frame->payload + done, frame->len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            write_failed(c, "cannot write ");
            return true;
        }
        done += (uint32_t)n;
    }
    f->left -= frame->len;
    if (f->left == 0)
        write_done(c);
    return true;
}

static const struct conn_user writes = {.frame = write_frame, .lost = write_lost};

void file_write(struct conn *c, const struct sm_wire_write_file *m)
{
    if (m->path[0] != '/' || m->path[strlen(m->path) - 1] == '/' || m->size > SM_WIRE_MAX_FILE ||
        (m->mode & ~07777u) != 0) {
        conn_error(c, SM_WIRE_E_BAD_VALUE, 0, "path, size or mode makes no sense: ", m->path, NULL);
        return;
    }
    struct file *f = conn_own(c);
    *f = (struct file){.fd = -1, .left = m->size};
    if (!make_paths(f, m->path)) {
        conn_error(c, SM_WIRE_E_INTERNAL, ENOMEM, "no memory for ", m->path, NULL);
        return;
    }
    conn_take(c, &writes);
    f->fd = open(temp_path(f), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (f->fd < 0) {
        write_failed(c, "cannot write to the directory of ");
        return;
    }
    /* Owner first: changing it takes set-id bits away. */
    if (fchown(f->fd, m->uid, m->gid) != 0 || fchmod(f->fd, m->mode) != 0) {
        write_failed(c, "cannot set owner and mode of ");
        return;
    }
    if (f->left == 0)
        write_done(c);
}

/* ---- reading ------------------------------------------------------------------------------ */

static void read_lost(struct conn *c)
{
    forget(conn_own(c));
}

/* One frame each time the output is empty, and so one in a turn of the loop. */
static void read_more(struct conn *c)
{
    struct file *f = conn_own(c);
    struct buffer *b = conn_room(c, SM_WIRE_HEADER + SM_WIRE_MAX_DATA);
    ssize_t n = -1;
    if (!b)
        errno = ENOMEM;
    else
        n = read(f->fd, b->data + b->start + b->len + SM_WIRE_HEADER, SM_WIRE_MAX_DATA);
    if (n < 0) {
        conn_error(c, SM_WIRE_E_INTERNAL, errno, "cannot read the file", NULL);
    } else if (n == 0) {
        forget(f);
        conn_leave(c);
        conn_put(c, SM_WIRE_OK, NULL);
    } else if ((uint64_t)n > f->left) {
        conn_error(c, SM_WIRE_E_TOO_BIG, 0, "the file is larger than was asked for", NULL);
    } else {
        f->left -= (uint64_t)n;
        sm_wire_data_header(b->data + b->start + b->len, SM_WIRE_DATA, (uint32_t)n);
        conn_commit(c, SM_WIRE_HEADER + (uint32_t)n);
    }
}

static const struct conn_user reads = {.writable = read_more, .lost = read_lost};

void file_read(struct conn *c, const struct sm_wire_read_file *m)
{
    struct stat st;
    int fd = m->path[0] == '/' ? open(m->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int errnum = m->path[0] == '/' ? errno : EINVAL;
        if (fd >= 0)
            close(fd);
        conn_error(c, kind_of(errnum), errnum, "cannot open ", m->path, NULL);
        return;
    }
    conn_take(c, &reads);
    *(struct file *)conn_own(c) = (struct file){.fd = fd, .left = m->max};
    if (!S_ISREG(st.st_mode)) {
        conn_error(c, SM_WIRE_E_BAD_VALUE, 0, "not a regular file: ", m->path, NULL);
        return;
    }
    if ((uint64_t)st.st_size > m->max) {
        conn_error(c, SM_WIRE_E_TOO_BIG, 0, "larger than was asked for: ", m->path, NULL);
        return;
    }
    struct sm_wire_file file = {
        .size = (uint64_t)st.st_size,
        .mode = st.st_mode & 07777u,
        .uid = st.st_uid,
        .gid = st.st_gid,
    };
    conn_put(c, SM_WIRE_FILE, &file); /* whose flush goes on with read_more */
}
