/* What the targets share: the input taken piece by piece, demands on what comes of it, files that
 * have no name. */
#ifndef SM_TESTS_FUZZ_H
#define SM_TESTS_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define fuzz_demand(what)                                                                          \
    do {                                                                                           \
        if (!(what)) {                                                                             \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #what);                   \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct fuzz_input {
    const uint8_t *data;
    size_t left;
};

/* A little-endian number of n bytes; what is beyond the end is 0. */
static inline uint64_t fuzz_take(struct fuzz_input *in, unsigned n)
{
    uint64_t v = 0;
    for (unsigned i = 0; i < n && in->left > 0; i++, in->left--)
        v |= (uint64_t)*in->data++ << (8 * i);
    return v;
}

/* The next n bytes, or what is left: *n tells. */
static inline const uint8_t *fuzz_bytes(struct fuzz_input *in, size_t *n)
{
    const uint8_t *at = in->data;
    *n = *n < in->left ? *n : in->left;
    in->data += *n;
    in->left -= *n;
    return at;
}

/* The bytes up to the next `end`, which goes with them, or all that are left; with a NUL behind, on
 * memory of their exact size. */
static inline char *fuzz_text(struct fuzz_input *in, char end)
{
    const uint8_t *stop = in->left ? memchr(in->data, end, in->left) : NULL;
    size_t n = stop ? (size_t)(stop - in->data) : in->left;
    const uint8_t *at = fuzz_bytes(in, &n);
    char *text = malloc(n + 1);
    fuzz_demand(text);
    memcpy(text, at, n);
    text[n] = '\0';
    if (stop)
        (void)fuzz_take(in, 1);
    return text;
}

/* A file in memory with these bytes, the caller's; it can be opened again by *path. */
static inline int fuzz_file(const void *data, size_t size, char path[32])
{
    int fd = memfd_create("fuzz", MFD_CLOEXEC);
    fuzz_demand(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

/* The lowest number that is free: the same before and after what must not leave a descriptor
 * behind. */
static inline int fuzz_next_fd(void)
{
    int fd = dup(0);
    close(fd);
    return fd;
}

#endif
