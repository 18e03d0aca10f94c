/*
 * What leads to an image, besides registries' names (tags.h): an index and a platform (indexes/),
 * and a local archive while it is the file that was read (archives/).
 */
#ifndef SM_IMAGE_LEADS_H
#define SM_IMAGE_LEADS_H

#include "image/reference.h"
#include "image/store.h"

/* Which manifest an index means for a platform. */
int sm_store_put_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, const char *digest, sm_error *err);
int sm_store_get_choice(struct sm_imgstore *store, const char *index_digest,
    const struct sm_platform *platform, char digest[SM_DIGEST_LEN + 1], sm_error *err);

/* What of a local archive decides whether it is still the file that was read. */
struct sm_file_stamp {
    uint64_t dev, ino, size;
    int64_t mtime_ns, ctime_ns;
};
int sm_store_stamp(const char *path, struct sm_file_stamp *fp, sm_error *err);

/* What a local archive and a name in it led to. `path` is absolute. */
int sm_store_put_archive(struct sm_imgstore *store, const struct sm_reference *ref,
    const char *path, const struct sm_platform *platform, const struct sm_file_stamp *fp,
    const char *digest, sm_error *err);
int sm_store_get_archive(struct sm_imgstore *store, const struct sm_reference *ref,
    const char *path, const struct sm_platform *platform, char digest[SM_DIGEST_LEN + 1],
    sm_error *err);

#endif
