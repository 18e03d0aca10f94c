/* What the store takes on the disk, by the directory that it is in. Files that other processes make
 * or remove meanwhile are counted or not. */
#include "image/usage.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "image/store_files.h"
#include "util/cleanup.h"

enum { MAX_DEPTH = 130 }; /* refs/ is as deep as a name is long */

static void add_dir(int parent, const char *name, int depth, sm_disk_usage *part);

/* An entry of a directory: a file counts, a directory by what is in it. */
static void add_entry(int parent, const char *name, int depth, sm_disk_usage *part)
{
    struct stat st;
    if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (S_ISDIR(st.st_mode)) {
        add_dir(parent, name, depth + 1, part);
    } else if (S_ISREG(st.st_mode)) {
        part->files++;
        part->bytes += (uint64_t)st.st_blocks * 512;
    }
}

static void add_dir(int parent, const char *name, int depth, sm_disk_usage *part)
{
    if (depth > MAX_DEPTH)
        return;
    auto_dir dir = sm_open_dir(parent, name, O_NOFOLLOW);
    if (!dir)
        return;
    struct dirent *entry;
    while ((entry = readdir(dir)))
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            add_entry(dirfd(dir), entry->d_name, depth, part);
}

void sm_imgstore_usage(struct sm_imgstore *store, struct sm_store_usage *usage)
{
    static const char *const records[] = {"images", "indexes", "archives", "refs", "seals", "tmp"};
    *usage = (struct sm_store_usage){0};
    add_dir(store->fd, "blobs", 0, &usage->blobs);
    add_dir(store->fd, "rootfs", 0, &usage->rootfs);
    add_dir(store->fd, "snapshots", 0, &usage->snapshots);
    for (size_t i = 0; i < sizeof(records) / sizeof(records[0]); i++)
        add_dir(store->fd, records[i], 0, &usage->other);
}
