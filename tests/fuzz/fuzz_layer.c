/* A layer's tar bytes, over a small layer below, up to the finished image. */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "rootfs/rootfs.h"
#include "tar.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct bytes {
    const uint8_t *data;
    size_t size;
};

static ssize_t next_bytes(void *arg, const void **data, sm_error *err)
{
    struct bytes *b = arg;
    size_t n = b->size < 3000 ? b->size : 3000;
    *data = b->data;
    b->data += n;
    b->size -= n;
    return (ssize_t)n;
}

int LLVMFuzzerTestOneInput(const uint8_t *input, size_t size)
{
    static const unsigned char id[32] = {1};
    uint8_t *data = malloc(size ? size : 1);
    if (!data)
        return 0;
    memcpy(data, input, size);
    fuzz_mend_tar(data, size);
    const struct sm_rootfs_limits limits = {.bytes = 32 << 20, .files = 1000, .layers = 2};
    int fd = memfd_create("image", MFD_CLOEXEC);
    sm_error err;
    struct sm_rootfs *rootfs = NULL;
    if (fd < 0 || sm_rootfs_new(fd, &limits, &rootfs, &err) != 0)
        abort();
    /* The same bytes twice: the second time they meet what they made. */
    for (int i = 0; i < 2; i++) {
        struct bytes b = {data, size};
        if (sm_rootfs_add_layer(rootfs, next_bytes, &b, &err) != 0)
            goto out;
    }
    if (sm_rootfs_finish(rootfs, id, &err) != 0 && err.code != SM_ELIMIT)
        abort();
out:
    sm_rootfs_free(rootfs);
    close(fd);
    free(data);
    return 0;
}
