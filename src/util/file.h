/*
 * Files and directories that are written where others can get at them.
 *
 * A file that must appear whole or not at all is made beside its place, as NAME.partial, and
 * renamed when it is whole. The name can be foreseen, so the directory may hold anything there
 * already: another writer's file, what a killed writer left, or what another user planted (a link
 * to somewhere, a file that he keeps open). Hence:
 * - It is made new (O_EXCL, mode 0600). What is there already is looked at without following links;
 *   what is not a regular file of ours with this one name is refused and left alone.
 * - An exclusive lock (flock) lies on it while it is written, and dies with its writer. What has no
 *   lock is a leftover: it is removed and made anew, or gone on with where that was asked for (and
 *   nobody else may read it).
 * - It is locked under a name that still leads to it, and renamed only if that is still so.
 * Where it is not committed it is removed: a failure (a full disk, too) leaves nothing behind.
 *
 * Used by whatever writes files: snapshots, the image store, credentials, saved images.
 */
#ifndef SM_UTIL_FILE_H
#define SM_UTIL_FILE_H

#include <dirent.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include <supermachine.h>

#include "util/cleanup.h"

/* The system calls that a test lets fail. */
struct sm_partial_calls {
    int (*sync)(int fd);
    int (*rename)(int from_dir, const char *from, int to_dir, const char *to);
};

struct sm_partial {
    int dir;              /* borrowed; names are relative to it (AT_FDCWD: paths) */
    char *name, *partial; /* partial NULL: it has its name */
    int fd;               /* read and write; -1: none */
    struct sm_partial_calls calls;
};

struct sm_partial_options {
    const char *partial;           /* NULL: NAME.partial */
    int wait_ms;                   /* for another writer of it */
    bool resume;                   /* what a writer left is kept and gone on with */
    struct sm_partial_calls calls; /* NULL: the real ones */
};

enum sm_partial_sync {
    SM_PARTIAL_NO_SYNC,
    SM_PARTIAL_SYNC_FILE, /* whole if it is there after a crash of the host */
    SM_PARTIAL_SYNC_ALL,  /* and there */
};

/* SM_EBUSY when another writer is at it; SM_EEXIST when something is in the way. options may be
 * NULL. */
int sm_partial_open(struct sm_partial *p, int dir, const char *name,
    const struct sm_partial_options *options, sm_error *err);
/* Gives it its name; fd stays open, and locked. */
int sm_partial_commit(struct sm_partial *p, enum sm_partial_sync sync, sm_error *err);
/* Lets go of it without removing it: for who resumes it. */
void sm_partial_leave(struct sm_partial *p);
/* Removes what was not committed, and frees. For every opened one, at the end. */
void sm_partial_close(struct sm_partial *p);
#define auto_partial    SM_CLEANUP(sm_partial_close) struct sm_partial
#define SM_PARTIAL_NONE ((struct sm_partial){.fd = -1})

/* Writes all of it, or fails with errno: where the file stands, or at `at`. */
int sm_write_all(int fd, const void *data, size_t size);
int sm_write_at(int fd, const void *data, size_t size, uint64_t at);
/* Reads what there is at `at`: less than `size` only where the file ends. -1: errno. */
ssize_t sm_read_at(int fd, void *buf, size_t size, uint64_t at);

/* Reads a regular file of at most max bytes; *data is NUL-terminated and the caller's. */
int sm_read_file_at(
    int dirfd, const char *path, size_t max, char **data, size_t *size, sm_error *err);

/* Opens a directory to read its entries; `flags` as O_NOFOLLOW. NULL, with errno: it cannot be. */
DIR *sm_open_dir(int dir, const char *name, int flags);

/* Makes the directory, mode 0700, and those above it that are missing, `path` being relative to
 * `dir`; those that it made are there after a crash of the host. Fails with errno. */
int sm_make_dirs(int dir, const char *path);

/* The same of a path, and opens it: a place for what is ours alone. SM_EPERM when it belongs to
 * another user, or others may write into it: they could put files in place of ours. `what` is for
 * the sentence, as "image store". */
int sm_open_private_dir(const char *path, const char *what, int *fd, sm_error *err);

#endif
