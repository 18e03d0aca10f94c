/* From reference to image, whatever it takes. See ensure.h. */
#include "image/ensure.h"

#include "image/find.h"
#include "util/error.h"

/* What is asked for, handed down the steps. */
struct wish {
    struct sm_imgstore *store;
    const struct sm_reference *ref;
    const struct sm_platform *platform;
    const struct sm_ensure_options *options;
    struct sm_image_info *info;
};

static bool of_registry(const struct sm_reference *ref)
{
    return ref->kind == SM_REF_REGISTRY;
}

/* Whether it may not be asked for where it came from. */
static bool origin_is_off_limits(const struct wish *w, const char *source)
{
    auto_reference origin = NULL;
    return w->options->pull == SM_PULL_NEVER &&
           (sm_reference_parse(source, &origin, NULL) != 0 || of_registry(origin));
}

/* Has what the store has a record of made anew; *err says what is wrong with it, and after a
 * failure that, too. */
static int heal(const struct wish *w, sm_error *err)
{
    const sm_error damage = *err;
    struct sm_image_info bad;
    char digest[SM_DIGEST_LEN + 1];
    int rc = sm_store_resolve(w->store, w->ref, w->platform, false, &bad, err);
    if (rc)
        return rc;
    if (origin_is_off_limits(w, bad.source)) {
        rc = sm_error_set(err, damage.code, "%.600s; pull it again", damage.message);
    } else {
        rc = sm_builder_build(w->store, bad.digest, &w->options->builder, digest, err);
        rc = rc ? sm_error_prefix(err, rc, "%.300s; making it anew", damage.message)
                : sm_store_get_image(w->store, bad.digest, w->platform, true, w->info, err);
    }
    sm_image_info_clear(&bad);
    return rc;
}

/* What the store has, healed where that is needed. *build: it may be made from what the reference
 * names. */
static int find(const struct wish *w, bool *build, sm_error *err)
{
    bool digest = w->ref->kind == SM_REF_DIGEST;
    int rc = sm_store_resolve(w->store, w->ref, w->platform, true, w->info, err);
    bool missing = rc == -SM_ENOTFOUND, damaged = rc == -SM_ECORRUPT;
    *build = (missing || damaged) && !digest &&
             !(of_registry(w->ref) && w->options->pull == SM_PULL_NEVER);
    return damaged || (missing && digest) ? heal(w, err) : rc;
}

int sm_imgstore_ensure(struct sm_imgstore *store, const char *reference,
    const struct sm_ensure_options *options, struct sm_image_info *info, sm_error *err)
{
    static const struct sm_ensure_options defaults = {0};
    if (!options)
        options = &defaults;
    auto_reference ref = NULL;
    struct sm_platform platform;
    int rc = sm_reference_parse(reference, &ref, err);
    if (rc == 0)
        rc = sm_platform_parse(options->builder.fetch.platform, &platform, err);
    if (rc)
        return rc;
    const struct wish wish = {store, ref, &platform, options, info};
    if (!of_registry(ref) || ref->digest || options->pull != SM_PULL_ALWAYS) {
        sm_error why = {0};
        bool build;
        rc = find(&wish, &build, &why);
        if (rc && !build && err)
            *err = why;
        if (rc == 0 || !build)
            return rc;
    }
    char digest[SM_DIGEST_LEN + 1];
    rc = sm_builder_build(store, reference, &options->builder, digest, err);
    return rc ? rc : sm_store_get_image(store, digest, &platform, true, info, err);
}
