/* From a pipe to a file. See stream.h. */
#include "builder/stream.h"

#include <stdio.h>
#include <unistd.h>

#include "image/store_files.h"
#include "util/cleanup.h"
#include "util/error.h"

enum { COPY_SIZE = 256 << 10 };

#define MAX_STREAM (64ull << 30)

static int copy_all(struct sm_imgstore *store, int stream, int fd, sm_error *err)
{
    auto_free char *buf = malloc(COPY_SIZE);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    uint64_t total = 0;
    while (true) {
        ssize_t n = read(stream, buf, COPY_SIZE);
        if (n == 0)
            return 0;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sm_error_errno(err, errno, "cannot read the archive");
        if ((total += (uint64_t)n) > MAX_STREAM)
            return sm_error_set(
                err, SM_ELIMIT, "the archive is larger than %llu GiB", MAX_STREAM >> 30);
        if (sm_write_all(fd, buf, (size_t)n) != 0)
            return sm_error_errno(
                err, errno, "cannot write into the store %s", sm_imgstore_path(store));
    }
}

int sm_store_keep_stream(
    struct sm_imgstore *store, int stream, struct sm_partial *file, char **path, sm_error *err)
{
    auto_partial kept = SM_PARTIAL_NONE;
    char *name = NULL;
    int rc = sm_store_open_tmp(store, &kept, err);
    if (rc == 0)
        rc = copy_all(store, stream, kept.fd, err);
    if (rc == 0 && asprintf(&name, "%s/%s", sm_imgstore_path(store), kept.partial) < 0)
        rc = sm_error_set(err, SM_ENOMEM, "out of memory");
    if (rc)
        return rc;
    *path = name;
    *file = kept;
    kept = SM_PARTIAL_NONE;
    return 0;
}
