/* Records of images: JSON that names all that a run needs. See record.h. */
#include "image/record.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

#include "image/index.h"
#include "image/json.h"
#include "image/seal.h"
#include "image/store_files.h"
#include "util/bytes.h"
#include "util/error.h"

void sm_image_info_clear(struct sm_image_info *info)
{
    free(info->digest);
    free(info->platform);
    free(info->config);
    free(info->source);
    free(info->rootfs_path);
    sm_close(info->rootfs_fd);
    *info = (struct sm_image_info){.rootfs_fd = -1};
}

int sm_store_put_image(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err)
{
    const char *rootfs = strstr(info->rootfs_path, "rootfs/sha256-");
    json_error_t why;
    auto_json *record = json_pack_ex(&why, 0, "{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "version",
        1, "digest", info->digest, "platform", info->platform, "config", info->config, "source",
        info->source, "rootfs", rootfs ? rootfs : "", "rootfs_size", (json_int_t)info->rootfs_size,
        "created", (json_int_t)info->created);
    if (!record && json_error_code(&why) == json_error_invalid_utf8)
        return sm_error_set(err, SM_EINVAL,
            "the store cannot record that the image came from a path that is not UTF-8: rename it");
    char name[SM_STORE_NAME_MAX];
    sm_store_image_name(info->digest, name);
    return sm_store_write_json(store, name, record, err);
}

/* Fills *info from the record; nothing is locked. */
static int read_record(
    struct sm_imgstore *store, const char *digest, struct sm_image_info *info, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    sm_store_image_name(digest, name);
    auto_json *record = NULL;
    int rc = sm_json_load_record_at(store->fd, name, &record, err);
    if (rc == -SM_ENOTFOUND)
        return sm_error_set(err, SM_ENOTFOUND, "the store has no image %s", digest);
    if (rc)
        return rc;
    const char *texts[] = {sm_json_string(record, "digest"), sm_json_string(record, "platform"),
        sm_json_string(record, "config"), sm_json_string(record, "source"),
        sm_json_string(record, "rootfs")};
    uint64_t created = 0;
    bool ok = sm_json_size(record, "rootfs_size", &info->rootfs_size) &&
              sm_json_size(record, "created", &created);
    for (size_t i = 0; i < SM_ARRAY_LEN(texts); i++)
        ok = ok && texts[i];
    if (!ok || strncmp(texts[4], "rootfs/", 7) != 0 || strchr(texts[4] + 7, '/'))
        return sm_error_set(
            err, SM_ECORRUPT, "%s in the store %s is damaged, remove it", name, store->path);
    info->created = (int64_t)created;
    info->digest = strdup(texts[0]);
    info->platform = strdup(texts[1]);
    info->config = strdup(texts[2]);
    info->source = strdup(texts[3]);
    if (asprintf(&info->rootfs_path, "%s/%s", store->path, texts[4]) < 0)
        info->rootfs_path = NULL;
    if (!info->digest || !info->platform || !info->config || !info->source || !info->rootfs_path)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    return 0;
}

int sm_store_hold_rootfs(struct sm_image_info *info, sm_error *err)
{
    auto_fd fd = open(info->rootfs_path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot open the root filesystem %s", info->rootfs_path);
    int rc = sm_store_flock(fd, LOCK_SH, 2000, err);
    if (rc)
        return rc;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return sm_error_errno(err, errno, "cannot read %s", info->rootfs_path);
    if (st.st_nlink == 0)
        return sm_error_set(err, SM_ENOTFOUND, "the root filesystem %s is gone", info->rootfs_path);
    info->rootfs_fd = sm_steal_fd(&fd);
    return 0;
}

int sm_store_get_image(struct sm_imgstore *store, const char *digest,
    const struct sm_platform *platform, bool lock, struct sm_image_info *out, sm_error *err)
{
    struct sm_image_info info = {.rootfs_fd = -1};
    int rc = read_record(store, digest, &info, err);
    if (rc == 0 && platform) {
        struct sm_platform has;
        rc = sm_platform_parse(info.platform, &has, err);
        if (rc == 0 && !sm_platform_fits(platform, &has)) {
            char want[SM_PLATFORM_TEXT];
            sm_platform_format(platform, want);
            rc = sm_error_set(err, SM_EUNSUPPORTED, "the image %.19s is for %s, not for %s", digest,
                info.platform, want);
        }
    }
    if (rc == 0 && lock)
        rc = sm_store_hold_rootfs(&info, err);
    if (rc == 0 && lock)
        rc = sm_seal_check(store, info.rootfs_path, info.rootfs_fd, SM_SEAL_GLANCE, err);
    if (rc)
        sm_image_info_clear(&info);
    else
        *out = info;
    return rc;
}
