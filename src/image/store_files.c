/* The store's files: written whole or not at all, read back with suspicion. See store_internal.h. */
#include "image/store_internal.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>

#include "image/json.h"
#include "image/seal.h"
#include "util/bytes.h"
#include "util/error.h"

enum { LOCK_POLL_MS = 5 };

/* Makes the directories above `name`. */
static int make_parents(int dirfd, const char *name, sm_error *err)
{
    char path[SM_STORE_NAME_MAX];
    if (snprintf(path, sizeof(path), "%s", name) >= (int)sizeof(path))
        return sm_error_set(err, SM_EINVAL, "the name %.100s... is too long for the store", name);
    char *slash = strrchr(path, '/');
    if (!slash)
        return 0;
    *slash = '\0';
    return sm_make_dirs(dirfd, path) == 0
               ? 0
               : sm_error_errno(err, errno, "cannot make the directory %s in the store", path);
}

/* A file of tmp/ that is to become `name`. */
static int open_tmp(
    struct sm_imgstore *store, const char *name, struct sm_partial *file, sm_error *err)
{
    uint64_t random;
    char tmp[64];
    *file = SM_PARTIAL_NONE;
    if (getrandom(&random, sizeof(random), 0) != sizeof(random))
        return sm_error_errno(err, errno, "cannot get random bytes");
    snprintf(tmp, sizeof(tmp), "tmp/%016" PRIx64 ".partial", random);
    int rc = make_parents(store->fd, tmp, err);
    if (rc == 0)
        rc = sm_partial_open(
            file, store->fd, name, &(struct sm_partial_options){.partial = tmp}, err);
    return rc ? sm_error_prefix(err, rc, "the image store %s", store->path) : 0;
}

int sm_store_open_tmp(struct sm_imgstore *store, struct sm_partial *file, sm_error *err)
{
    return open_tmp(store, "tmp/unnamed", file, err);
}

int sm_store_write(
    struct sm_imgstore *store, const char *name, const char *data, size_t size, sm_error *err)
{
    auto_partial file = SM_PARTIAL_NONE;
    int rc = make_parents(store->fd, name, err);
    if (rc == 0)
        rc = open_tmp(store, name, &file, err);
    if (rc)
        return rc;
    if (sm_write_all(file.fd, data, size) != 0)
        rc = sm_error_errno(err, errno, "cannot write %s", name);
    else
        rc = sm_partial_commit(&file, SM_PARTIAL_SYNC_ALL, err);
    return rc ? sm_error_prefix(err, rc, "the image store %s", store->path) : 0;
}

int sm_store_flock(int fd, int operation, int timeout_ms, sm_error *err)
{
    for (int waited = 0;; waited += LOCK_POLL_MS) {
        if (flock(fd, operation | LOCK_NB) == 0)
            return 0;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return sm_error_errno(err, errno, "cannot lock a file of the store");
        if (timeout_ms >= 0 && waited >= timeout_ms)
            return sm_error_set(err, SM_EBUSY, "the image is in use by somebody else");
        nanosleep(&(struct timespec){.tv_nsec = LOCK_POLL_MS * 1000000L}, NULL);
    }
}

/* ---- images ---------------------------------------------------------------------------------- */

void sm_store_image_name(const char *digest, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "images/sha256/%s.json", digest + 7);
}

void sm_store_blob_name(const char *digest, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "blobs/sha256/%s", digest + 7);
}

int sm_store_open_blob(struct sm_imgstore *store, const struct sm_descriptor *d)
{
    char name[SM_STORE_NAME_MAX];
    struct stat st;
    sm_store_blob_name(d->digest, name);
    auto_fd fd = openat(store->fd, name, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) != 0 || (uint64_t)st.st_size != d->size)
        return -1;
    return sm_steal_fd(&fd);
}

int sm_store_claim_blob(struct sm_imgstore *store, const struct sm_descriptor *d, int wait_ms,
    struct sm_partial *file, int *fd, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    sm_store_blob_name(d->digest, name);
    *file = SM_PARTIAL_NONE;
    *fd = sm_store_open_blob(store, d);
    if (*fd >= 0)
        return 0;
    int rc = sm_partial_open(file, store->fd, name,
        &(struct sm_partial_options){.wait_ms = wait_ms, .resume = true}, err);
    if (rc)
        return sm_error_prefix(err, rc, "the image store %s", store->path);
    /* Whoever was waited for may have finished it. */
    *fd = sm_store_open_blob(store, d);
    if (*fd >= 0)
        sm_partial_close(file);
    return 0;
}

int sm_store_hold_blobs(struct sm_imgstore *store, int *fd, sm_error *err)
{
    int rc = make_parents(store->fd, "blobs/sha256/", err);
    if (rc)
        return rc;
    auto_fd dir = openat(store->fd, "blobs", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return sm_error_errno(err, errno, "cannot open the blobs of the store %s", store->path);
    rc = sm_store_flock(dir, LOCK_SH, -1, err); /* of a prune, which waits for nobody */
    if (rc == 0)
        *fd = sm_steal_fd(&dir);
    return rc;
}

void sm_store_rootfs_name(const char *chain_id, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "rootfs/sha256-%s.v%d" SM_ROOTFS_SUFFIX, chain_id + 7,
        SM_ROOTFS_FORMAT);
}

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
    auto_json *record = json_pack("{s:i, s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "version", 1,
        "digest", info->digest, "platform", info->platform, "config", info->config, "source",
        info->source, "rootfs", rootfs ? rootfs : "", "rootfs_size", (json_int_t)info->rootfs_size,
        "created", (json_int_t)info->created);
    auto_free char *text = record ? json_dumps(record, JSON_COMPACT) : NULL;
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    char name[SM_STORE_NAME_MAX];
    sm_store_image_name(info->digest, name);
    return sm_store_write(store, name, text, strlen(text), err);
}

/* Fills *info from the record; nothing is locked. */
static int read_record(
    struct sm_imgstore *store, const char *digest, struct sm_image_info *info, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    sm_store_image_name(digest, name);
    auto_json *record = NULL;
    int rc = sm_json_load_at(store->fd, name, &record, err);
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

int sm_imgstore_verify(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err)
{
    int rc = sm_seal_check(store, info->rootfs_path, info->rootfs_fd, SM_SEAL_WHOLE, err);
    if (rc != -SM_ECORRUPT)
        return rc;
    sm_seal_break(store, info->rootfs_path);
    return sm_error_prefix(
        err, rc, "the image %.19s is made anew when it is used next", info->digest);
}

/* ---- choices of an index ---------------------------------------------------------------------- */

static void choice_name(
    const char *digest, const struct sm_platform *p, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "indexes/sha256/%s@%s-%s%s%s", digest + 7, p->os, p->arch,
        *p->variant ? "-" : "", p->variant);
}

/* Reads a file that holds nothing but a digest and a newline. */
static int read_digest(
    struct sm_imgstore *store, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    auto_free char *text = NULL;
    size_t size;
    int rc = sm_read_file_at(store->fd, name, SM_DIGEST_LEN + 1, &text, &size, err);
    if (rc)
        return rc;
    if (size == SM_DIGEST_LEN + 1)
        text[SM_DIGEST_LEN] = '\0';
    if (!sm_digest_valid(text))
        return sm_error_set(
            err, SM_ECORRUPT, "%s in the store %s is damaged, remove it", name, store->path);
    memcpy(digest, text, SM_DIGEST_LEN + 1);
    return 0;
}

static int write_digest(
    struct sm_imgstore *store, const char *name, const char *digest, sm_error *err)
{
    char text[SM_DIGEST_LEN + 2];
    snprintf(text, sizeof(text), "%s\n", digest);
    return sm_store_write(store, name, text, strlen(text), err);
}

int sm_store_put_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, const char *digest, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    choice_name(index_digest, platform, name);
    return write_digest(store, name, digest, err);
}

int sm_store_get_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    choice_name(index_digest, platform, name);
    return read_digest(store, name, digest, err);
}

/* ---- local archives ---------------------------------------------------------------------------- */

static uint64_t fnv1a(uint64_t h, const char *text)
{
    for (const unsigned char *p = (const unsigned char *)text; *p; p++)
        h = (h ^ *p) * 0x100000001b3ull;
    return (h ^ 0xff) * 0x100000001b3ull;
}

int sm_store_stamp(const char *path, struct sm_file_stamp *fp, sm_error *err)
{
    struct stat st;
    if (stat(path, &st) != 0)
        return sm_error_errno(err, errno, "cannot open the archive %s", path);
    if (!S_ISREG(st.st_mode))
        return sm_error_set(err, SM_EINVAL, "the archive %s is not a regular file", path);
    *fp = (struct sm_file_stamp){
        .dev = st.st_dev,
        .ino = st.st_ino,
        .size = (uint64_t)st.st_size,
        .mtime_ns = st.st_mtim.tv_sec * 1000000000ll + st.st_mtim.tv_nsec,
        .ctime_ns = st.st_ctim.tv_sec * 1000000000ll + st.st_ctim.tv_nsec,
    };
    return 0;
}

/* The key of an archive's record: all that selects an image, as one text. */
static char *archive_key(
    const struct sm_reference *ref, const char *path, const struct sm_platform *platform)
{
    char plat[SM_PLATFORM_TEXT];
    sm_platform_format(platform, plat);
    char *key = NULL;
    int n = asprintf(&key, "%d:%s:%s:%s", (int)ref->kind, plat, path, ref->name ? ref->name : "");
    return n < 0 ? NULL : key;
}

static void archive_name(const char *key, char name[SM_STORE_NAME_MAX])
{
    snprintf(
        name, SM_STORE_NAME_MAX, "archives/%016" PRIx64 ".json", fnv1a(0xcbf29ce484222325ull, key));
}

int sm_store_put_archive(struct sm_imgstore *store, const struct sm_reference *ref,
    const char *path, const struct sm_platform *platform, const struct sm_file_stamp *fp,
    const char *digest, sm_error *err)
{
    auto_free char *key = archive_key(ref, path, platform);
    auto_json *record =
        key ? json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "key", key, "digest", digest, "dev",
                  (json_int_t)fp->dev, "ino", (json_int_t)fp->ino, "size", (json_int_t)fp->size,
                  "mtime_ns", (json_int_t)fp->mtime_ns, "ctime_ns", (json_int_t)fp->ctime_ns)
            : NULL;
    auto_free char *text = record ? json_dumps(record, JSON_COMPACT) : NULL;
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    char name[SM_STORE_NAME_MAX];
    archive_name(key, name);
    return sm_store_write(store, name, text, strlen(text), err);
}

int sm_store_get_archive(struct sm_imgstore *store, const struct sm_reference *ref,
    const char *path, const struct sm_platform *platform, char digest[SM_DIGEST_LEN + 1],
    sm_error *err)
{
    struct sm_file_stamp fp;
    int rc = sm_store_stamp(path, &fp, err);
    if (rc)
        return rc;
    auto_free char *key = archive_key(ref, path, platform);
    if (!key)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    char name[SM_STORE_NAME_MAX];
    archive_name(key, name);
    auto_json *record = NULL;
    rc = sm_json_load_at(store->fd, name, &record, err);
    if (rc)
        return rc;
    const char *its = sm_json_string(record, "key"), *to = sm_json_string(record, "digest");
    const struct {
        const char *key;
        uint64_t value;
    } numbers[] = {{"dev", fp.dev}, {"ino", fp.ino}, {"size", fp.size},
        {"mtime_ns", (uint64_t)fp.mtime_ns}, {"ctime_ns", (uint64_t)fp.ctime_ns}};
    bool same = its && strcmp(its, key) == 0 && sm_digest_valid(to);
    for (size_t i = 0; same && i < SM_ARRAY_LEN(numbers); i++)
        same = (uint64_t)json_integer_value(json_object_get(record, numbers[i].key)) ==
               numbers[i].value;
    if (!same)
        return sm_error_set(err, SM_ENOTFOUND, "the archive %s has changed", path);
    memcpy(digest, to, SM_DIGEST_LEN + 1);
    return 0;
}

/* ---- names of registries ------------------------------------------------------------------------ */

int sm_store_tag_name(const struct sm_reference *ref, char name[SM_STORE_NAME_MAX], sm_error *err)
{
    int n = snprintf(name, SM_STORE_NAME_MAX, "refs/%s/%s/:%s", ref->host, ref->repository,
        ref->tag ? ref->tag : "");
    if (n >= SM_STORE_NAME_MAX || !ref->tag)
        return sm_error_set(err, SM_EINVAL, "%.100s/%.100s is not a name that can be stored",
            ref->host, ref->repository);
    return 0;
}

int sm_store_put_tag(
    struct sm_imgstore *store, const struct sm_reference *ref, const char *digest, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    int rc = sm_store_tag_name(ref, name, err);
    return rc ? rc : write_digest(store, name, digest, err);
}

int sm_store_get_tag(
    struct sm_imgstore *store, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    return read_digest(store, name, digest, err);
}
