/* What a VM is made of. See guest_files.h. */
#include "vm/guest_files.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/error.h"
#include "util/fingerprint.h"
#include "util/locate.h"

_Static_assert(SM_SNAPSHOT_ID_BYTES == SM_FILE_ID_BYTES, "ids of files fit into snapshots");

static int find(
    const char *named, const char *name, const char *what, char **path, uint8_t *id, sm_error *err)
{
    int rc = 0;
    if (!named)
        rc = sm_locate(name, "SUPERMACHINE_GUEST_DIR", "guest", path, err);
    else if (access(named, R_OK))
        rc = sm_error_errno(err, errno, "cannot read the %s '%s'", what, named);
    else if (!(*path = strdup(named)))
        rc = sm_error_set(err, SM_ENOMEM, "no memory for a path");
    return rc ? rc : sm_file_id(*path, id, err);
}

/* The file's own name, by which the store knows it: "sha256-<chain of the layers>..." */
static const char *rootfs_name(const sm_image *image)
{
    const char *slash = strrchr(image->info.rootfs_path, '/');
    return slash ? slash + 1 : image->info.rootfs_path;
}

static int identify_rootfs(const sm_image *image, uint8_t *id, sm_error *err)
{
    struct stat st;
    if (fstat(image->info.rootfs_fd, &st))
        return sm_error_errno(err, errno, "cannot look at '%s'", image->info.rootfs_path);
    const uint64_t numbers[] = {
        (uint64_t)st.st_ino,
        (uint64_t)st.st_size,
        (uint64_t)st.st_mtim.tv_sec,
        (uint64_t)st.st_mtim.tv_nsec,
    };
    struct sm_fingerprint f;
    sm_fingerprint_init(&f);
    sm_fingerprint_add(&f, rootfs_name(image), strlen(rootfs_name(image)));
    sm_fingerprint_add(&f, numbers, sizeof(numbers));
    sm_fingerprint_bytes(&f, id);
    return 0;
}

int sm_guest_files_find(struct sm_guest_files *files, const sm_image *image,
    const struct sm_vm_shape *shape, sm_error *err)
{
    *files = (struct sm_guest_files){0};
    int rc = find(shape->kernel, "vmlinux", "guest kernel", &files->kernel, files->kernel_id, err);
    if (!rc)
        rc = find(shape->initramfs, "agent.cpio", "agent's initramfs", &files->initramfs,
            files->agent_id, err);
    if (!rc)
        rc = identify_rootfs(image, files->rootfs_id, err);
    if (rc)
        sm_guest_files_clear(files);
    return rc;
}

void sm_guest_files_clear(struct sm_guest_files *files)
{
    free(files->kernel);
    free(files->initramfs);
    *files = (struct sm_guest_files){0};
}

void sm_bake_key(
    const sm_image *image, const struct sm_fingerprint *made_of, char key[SM_BAKE_KEY_SIZE])
{
    const char *name = rootfs_name(image), *digits = strchr(name, '-');
    uint8_t bytes[16];
    sm_fingerprint_bytes(made_of, bytes);
    int n = snprintf(key, SM_BAKE_KEY_SIZE, "%.12s-", digits ? digits + 1 : name);
    for (int i = 0; i < 8; i++)
        snprintf(key + n + 2 * i, 3, "%02x", bytes[i]);
}

void sm_guest_files_fingerprint(const struct sm_guest_files *files, const struct sm_vm_shape *shape,
    const struct sm_engine *engine, struct sm_fingerprint *f)
{
    const uint64_t numbers[] = {shape->memory_bytes, shape->vcpus};
    const char *cmdline = shape->cmdline ? shape->cmdline : "";
    sm_fingerprint_init(f);
    sm_fingerprint_add(f, numbers, sizeof(numbers));
    sm_fingerprint_add(f, files->rootfs_id, sizeof(files->rootfs_id));
    sm_fingerprint_add(f, files->kernel_id, sizeof(files->kernel_id));
    sm_fingerprint_add(f, files->agent_id, sizeof(files->agent_id));
    sm_engine_fingerprint(engine, f);
    sm_fingerprint_add(f, cmdline, strlen(cmdline));
}
