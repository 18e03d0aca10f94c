/* Layers by libarchive, images by src/rootfs, and what is in them by e2fsck and ext4_dump: an image
 * that e2fsck complains of has no other text than that. See layer_util.h. */
#include "layer_util.h"

#include <archive.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "../tools/ext4_dump.h"

static la_ssize_t grow(struct archive *a, void *arg, const void *data, size_t size)
{
    struct tar *tar = arg;
    tar->data = realloc(tar->data, tar->size + size);
    memcpy(tar->data + tar->size, data, size);
    tar->size += size;
    return (la_ssize_t)size;
}

struct tar *tar_new(void)
{
    struct tar *tar = calloc(1, sizeof(*tar));
    tar->writer = archive_write_new();
    archive_write_set_format_pax_restricted(tar->writer);
    archive_write_set_bytes_in_last_block(tar->writer, 1);
    if (archive_write_open(tar->writer, tar, NULL, grow, NULL) != ARCHIVE_OK)
        abort();
    return tar;
}

void tar_end(struct tar *tar)
{
    if (tar->writer)
        archive_write_free(tar->writer);
    tar->writer = NULL;
}

void tar_free(struct tar *tar)
{
    tar_end(tar);
    free(tar->data);
    free(tar);
}

struct archive_entry *tar_entry(const char *path, unsigned mode, size_t size)
{
    struct archive_entry *e = archive_entry_new();
    archive_entry_set_pathname(e, path);
    archive_entry_set_mode(e, mode);
    archive_entry_set_size(e, (la_int64_t)size);
    archive_entry_set_mtime(e, 1000, 0);
    archive_entry_set_uid(e, 0);
    archive_entry_set_gid(e, 0);
    return e;
}

void tar_add_entry(struct tar *tar, struct archive_entry *entry, const void *contents, size_t size)
{
    if (archive_write_header(tar->writer, entry) < ARCHIVE_WARN) {
        fprintf(stderr, "%s\n", archive_error_string(tar->writer));
        abort();
    }
    if (size && archive_write_data(tar->writer, contents, size) < 0)
        abort();
    archive_entry_free(entry);
}

void tar_add(struct tar *tar, char type, const char *path, const char *text)
{
    size_t size = type == 'f' && text ? strlen(text) : 0;
    unsigned mode = type == 'd'   ? S_IFDIR | 0755
                    : type == 'l' ? S_IFLNK | 0777
                    : type == 'p' ? S_IFIFO | 0644
                                  : S_IFREG | 0644;
    struct archive_entry *e = tar_entry(path, mode, size);
    if (type == 'l')
        archive_entry_set_symlink(e, text);
    if (type == 'h')
        archive_entry_set_hardlink(e, text);
    tar_add_entry(tar, e, text, size);
}

struct bytes {
    const unsigned char *data;
    size_t size, chunk;
};

static ssize_t next_bytes(void *arg, const void **data, sm_error *err)
{
    struct bytes *b = arg;
    size_t n = b->size < b->chunk ? b->size : b->chunk;
    *data = b->data;
    b->data += n;
    b->size -= n;
    return (ssize_t)n;
}

static int finish(struct sm_rootfs *rootfs, sm_error *err)
{
    static const unsigned char id[32] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17};
    return sm_rootfs_finish(rootfs, id, err);
}

int image_build(const char *path, struct tar *const *layers, size_t count,
    const struct sm_rootfs_limits *limits, sm_error *err)
{
    auto_fd fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    auto_rootfs rootfs = NULL;
    int rc = sm_rootfs_new(fd, limits, &rootfs, err);
    for (size_t i = 0; rc == 0 && i < count; i++) {
        tar_end(layers[i]);
        struct bytes b = {layers[i]->data, layers[i]->size, 10240};
        rc = sm_rootfs_add_layer(rootfs, next_bytes, &b, err);
    }
    return rc ? rc : finish(rootfs, err);
}

int image_build_raw(const char *path, const void *data, size_t size, size_t chunk, sm_error *err)
{
    auto_fd fd = open(path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    auto_rootfs rootfs = NULL;
    struct bytes b = {data, size, chunk};
    struct sm_rootfs_limits limits = {.bytes = 64 << 20, .files = 10000};
    int rc = sm_rootfs_new(fd, &limits, &rootfs, err);
    if (rc == 0)
        rc = sm_rootfs_add_layer(rootfs, next_bytes, &b, err);
    return rc ? rc : finish(rootfs, err);
}

char *image_text(const char *path)
{
    char *command, *text = NULL;
    size_t size;
    if (asprintf(
            &command, "PATH=$PATH:/sbin:/usr/sbin e2fsck -fn '%s' >'%s.fsck' 2>&1", path, path) < 0)
        abort();
    if (system(command) != 0) {
        snprintf(command, strlen(command), "cat '%s.fsck' >&2", path);
        if (system(command) != 0)
            fprintf(stderr, "no output of e2fsck\n");
        free(command);
        return strdup("e2fsck is not content\n");
    }
    free(command);
    FILE *out = open_memstream(&text, &size);
    if (ext4_dump(path, out) != 0)
        fputs("ext4_dump failed\n", out);
    fclose(out);
    return text;
}
