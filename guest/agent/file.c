/*
 * Files in and out. A written file appears by a rename, whole, with its owner and mode. A read file
 * is sent as the output drains; its size is only a hint (files of /proc say 0).
 */
#include "agent.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define TEMP_NAME ".supermachine-" /* and the number of the conn's slot, and the ticks */

/* c->path holds the path, a NUL, and the name of the temporary file beside it. */
static const char *final_path(const struct conn *c)
{
    return (const char *)c->path->data;
}

static const char *temp_path(const struct conn *c)
{
    return final_path(c) + strlen(final_path(c)) + 1;
}

static void hexadecimal(char *to, uint64_t v)
{
    for (int i = 15; i >= 0; i--, v >>= 4)
        to[i] = "0123456789abcdef"[v & 15];
    to[16] = 0;
}

static bool make_paths(struct agent *a, struct conn *c, const char *path)
{
    const char *slash = strrchr(path, '/');
    size_t len = strlen(path), dir = (size_t)(slash - path) + 1;
    if (!(c->path = buffer_get(a, 2 * (SM_WIRE_MAX_PATH + 64u))))
        return false;
    char *p = (char *)c->path->data;
    memcpy(p, path, len + 1);
    p += len + 1;
    memcpy(p, path, dir);
    memcpy(p + dir, TEMP_NAME, sizeof(TEMP_NAME) - 1);
    hexadecimal(p + dir + sizeof(TEMP_NAME) - 1, a->boot_nonce + a->ticks);
    return true;
}

static void forget(struct agent *a, struct conn *c)
{
    if (c->file >= 0)
        close(c->file);
    c->file = -1;
    buffer_put(a, c->path);
    c->path = NULL;
}

static enum sm_wire_error_kind kind_of(int errnum)
{
    return errnum == ENOENT || errnum == ENOTDIR ? SM_WIRE_E_NOT_FOUND : SM_WIRE_E_INTERNAL;
}

void file_abandon(struct agent *a, struct conn *c)
{
    if (c->state == CONN_WRITE_FILE && c->path)
        unlink(temp_path(c));
    forget(a, c);
}

static void write_failed(struct agent *a, struct conn *c, const char *what)
{
    int errnum = errno;
    unlink(temp_path(c));
    conn_error(a, c, kind_of(errnum), errnum, what, final_path(c), NULL);
    forget(a, c);
}

static void write_done(struct agent *a, struct conn *c)
{
    if (rename(temp_path(c), final_path(c)) != 0) {
        write_failed(a, c, "cannot replace ");
        return;
    }
    forget(a, c);
    c->state = CONN_REQUEST;
    conn_put(a, c, SM_WIRE_OK, NULL);
}

void file_write_start(struct agent *a, struct conn *c, const struct sm_wire_write_file *m)
{
    if (m->path[0] != '/' || m->path[strlen(m->path) - 1] == '/' || m->size > SM_WIRE_MAX_FILE ||
        (m->mode & ~07777u) != 0) {
        conn_error(
            a, c, SM_WIRE_E_BAD_VALUE, 0, "path, size or mode makes no sense: ", m->path, NULL);
        return;
    }
    if (!make_paths(a, c, m->path)) {
        conn_error(a, c, SM_WIRE_E_INTERNAL, ENOMEM, "no memory for ", m->path, NULL);
        return;
    }
    c->file = open(temp_path(c), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (c->file < 0) {
        int errnum = errno;
        conn_error(
            a, c, kind_of(errnum), errnum, "cannot write to the directory of ", m->path, NULL);
        forget(a, c);
        return;
    }
    /* Owner first: changing it takes set-id bits away. */
    if (fchown(c->file, m->uid, m->gid) != 0 || fchmod(c->file, m->mode) != 0) {
        write_failed(a, c, "cannot set owner and mode of ");
        return;
    }
    c->left = m->size;
    c->state = CONN_WRITE_FILE;
    if (c->left == 0)
        write_done(a, c);
}

void file_write_data(struct agent *a, struct conn *c, const struct sm_wire_frame *f)
{
    if (f->len > c->left) {
        errno = EFBIG;
        write_failed(a, c, "more data than was announced for ");
        return;
    }
    for (uint32_t done = 0; done < f->len;) {
        ssize_t n = write(c->file, f->payload + done, f->len - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            write_failed(a, c, "cannot write ");
            return;
        }
        done += (uint32_t)n;
    }
    c->left -= f->len;
    if (c->left == 0)
        write_done(a, c);
}

void file_read_start(struct agent *a, struct conn *c, const struct sm_wire_read_file *m)
{
    struct stat st;
    int fd = m->path[0] == '/' ? open(m->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY) : -1;
    if (fd < 0 || fstat(fd, &st) != 0) {
        int errnum = m->path[0] == '/' ? errno : EINVAL;
        if (fd >= 0)
            close(fd);
        conn_error(a, c, kind_of(errnum), errnum, "cannot open ", m->path, NULL);
        return;
    }
    c->file = fd;
    c->left = m->max;
    if (!S_ISREG(st.st_mode)) {
        conn_error(a, c, SM_WIRE_E_BAD_VALUE, 0, "not a regular file: ", m->path, NULL);
        forget(a, c);
        return;
    }
    if ((uint64_t)st.st_size > m->max) {
        conn_error(a, c, SM_WIRE_E_TOO_BIG, 0, "larger than was asked for: ", m->path, NULL);
        forget(a, c);
        return;
    }
    struct sm_wire_file file = {
        .size = (uint64_t)st.st_size,
        .mode = st.st_mode & 07777u,
        .uid = st.st_uid,
        .gid = st.st_gid,
    };
    c->state = CONN_READ_FILE;
    conn_put(a, c, SM_WIRE_FILE, &file); /* whose flush goes on with file_read_more */
}

/* One frame each time the output is empty, and so one in a turn of the loop. */
void file_read_more(struct agent *a, struct conn *c)
{
    struct buffer *b = conn_room(a, c, SM_WIRE_HEADER + SM_WIRE_MAX_DATA);
    ssize_t n = -1;
    if (!b)
        errno = ENOMEM;
    else
        n = read(c->file, b->data + b->start + b->len + SM_WIRE_HEADER, SM_WIRE_MAX_DATA);
    if (n < 0) {
        conn_error(a, c, SM_WIRE_E_INTERNAL, errno, "cannot read the file", NULL);
        forget(a, c);
    } else if (n == 0) {
        forget(a, c);
        c->state = CONN_REQUEST;
        conn_put(a, c, SM_WIRE_OK, NULL);
    } else if ((uint64_t)n > c->left) {
        conn_error(a, c, SM_WIRE_E_TOO_BIG, 0, "the file is larger than was asked for", NULL);
        forget(a, c);
    } else {
        c->left -= (uint64_t)n;
        sm_wire_data_header(b->data + b->start + b->len, SM_WIRE_DATA, (uint32_t)n);
        conn_commit(a, c, SM_WIRE_HEADER + (uint32_t)n);
    }
}
