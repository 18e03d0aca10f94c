/* Indexes and archives, and the manifests that they mean. See leads.h. */
#include "image/leads.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "image/json.h"
#include "image/store_files.h"
#include "util/bytes.h"
#include "util/error.h"

/* ---- choices of an index --------------------------------------------------------------------- */

static void choice_name(
    const char *digest, const struct sm_platform *p, char name[SM_STORE_NAME_MAX])
{
    snprintf(name, SM_STORE_NAME_MAX, "indexes/sha256/%s@%s-%s%s%s", digest + 7, p->os, p->arch,
        *p->variant ? "-" : "", p->variant);
}

int sm_store_put_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, const char *digest, sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    choice_name(index_digest, platform, name);
    return sm_store_write_digest(store, name, digest, err);
}

int sm_store_get_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    char name[SM_STORE_NAME_MAX];
    choice_name(index_digest, platform, name);
    return sm_store_read_digest(store, name, digest, err);
}

/* ---- local archives -------------------------------------------------------------------------- */

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
    if (!key)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    auto_json *record =
        json_pack("{s:s, s:s, s:I, s:I, s:I, s:I, s:I}", "key", key, "digest", digest, "dev",
            (json_int_t)fp->dev, "ino", (json_int_t)fp->ino, "size", (json_int_t)fp->size,
            "mtime_ns", (json_int_t)fp->mtime_ns, "ctime_ns", (json_int_t)fp->ctime_ns);
    char name[SM_STORE_NAME_MAX];
    archive_name(key, name);
    return sm_store_write_json(store, name, record, err);
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
