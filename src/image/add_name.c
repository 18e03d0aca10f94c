/* See add_name.h. */
#include "image/add_name.h"

#include <stdio.h>

#include "image/find.h"
#include "image/tags.h"
#include "util/error.h"

int sm_imgstore_tag(
    struct sm_imgstore *store, const char *reference, const char *name, sm_error *err)
{
    auto_reference from = NULL;
    auto_reference to = NULL;
    int rc = sm_reference_parse(reference, &from, err);
    if (rc == 0)
        rc = sm_reference_parse(name, &to, err);
    if (rc)
        return rc;
    if (to->kind != SM_REF_REGISTRY || to->digest)
        return sm_error_set(
            err, SM_EINVAL, "%.200s is not a name to give, as example.com/app:1", name);
    struct sm_platform host;
    struct sm_image_info info;
    rc = sm_platform_parse(NULL, &host, err);
    if (rc == 0)
        rc = sm_store_resolve(store, from, &host, false, &info, err);
    if (rc)
        return rc;
    /* A name of an index stays one of all its platforms. */
    char file[SM_STORE_NAME_MAX], digest[SM_DIGEST_LEN + 1];
    if (from->kind != SM_REF_REGISTRY || !from->tag || sm_store_tag_name(from, file, NULL) != 0 ||
        sm_store_get_tag(store, file, digest, NULL) != 0)
        snprintf(digest, sizeof(digest), "%s", info.digest);
    sm_image_info_clear(&info);
    return sm_store_put_tag(store, to, digest, err);
}
