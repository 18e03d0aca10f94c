/* See verify.h. What is found damaged loses its seal, so that nobody uses it until it is made
 * anew. */
#include "image/verify.h"

#include "image/find.h"
#include "image/seal.h"
#include "util/error.h"

int sm_imgstore_verify(struct sm_imgstore *store, const struct sm_image_info *info, sm_error *err)
{
    int rc = sm_seal_check(store, info->rootfs_path, info->rootfs_fd, SM_SEAL_WHOLE, err);
    if (rc != -SM_ECORRUPT)
        return rc;
    sm_seal_break(store, info->rootfs_path);
    return sm_error_prefix(
        err, rc, "the image %.19s is made anew when it is used next", info->digest);
}

int sm_imgstore_verify_named(struct sm_imgstore *store, const char *reference, sm_error *err)
{
    struct sm_image_info info = {.rootfs_fd = -1};
    auto_reference ref = NULL;
    struct sm_platform plat;
    int rc = sm_reference_parse(reference, &ref, err);
    if (rc == 0)
        rc = sm_platform_parse(NULL, &plat, err);
    if (rc == 0)
        rc = sm_store_resolve(store, ref, &plat, false, &info, err);
    if (rc == 0)
        rc = sm_store_hold_rootfs(&info, err);
    if (rc == 0)
        rc = sm_imgstore_verify(store, &info, err);
    sm_image_info_clear(&info);
    return rc;
}
