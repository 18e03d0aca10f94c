/* Layers made in memory and images made of them, for the tests of src/rootfs. */
#ifndef SM_TESTS_LAYER_UTIL_H
#define SM_TESTS_LAYER_UTIL_H

#include <archive_entry.h>
#include <supermachine.h>

#include "rootfs/rootfs.h"

/* A tar archive that grows. */
struct tar {
    struct archive *writer;
    unsigned char *data;
    size_t size;
};

struct tar *tar_new(void);
void tar_free(struct tar *tar);
/* type: 'f' with contents, 'd', 'l' symbolic link, 'h' hard link, 'p' fifo. */
void tar_add(struct tar *tar, char type, const char *path, const char *text);
/* As tar_add but the caller has filled the entry; contents may be NULL. */
void tar_add_entry(struct tar *tar, struct archive_entry *entry, const void *contents, size_t size);
/* An entry to fill: mode with type, root's, mtime 1000. */
struct archive_entry *tar_entry(const char *path, unsigned mode, size_t size);
void tar_end(struct tar *tar);

/* Builds an image of the layers at `path`. */
int image_build(const char *path, struct tar *const *layers, size_t count,
    const struct sm_rootfs_limits *limits, sm_error *err);
/* The same of raw bytes, in chunks of `chunk` bytes. */
int image_build_raw(const char *path, const void *data, size_t size, size_t chunk, sm_error *err);

/* What ext4_dump prints, malloc'ed; the test fails when e2fsck finds anything to say. */
char *image_text(const char *path);

#endif
