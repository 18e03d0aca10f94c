/* Descriptors and indexes. See index.h; the formats are those of the OCI image spec
 * (image-index.md, descriptor.md, image-layout.md) and docker's manifest list, which differ in
 * media types only. */
#include "image/index.h"

#include <stdio.h>
#include <string.h>

#include "image/json.h"
#include "util/bytes.h"
#include "util/error.h"

enum { MAX_MANIFESTS = 1000 };

static void copy_part(char out[16], const char *text)
{
    snprintf(out, 16, "%s", text ? text : "");
}

int sm_descriptor_parse(
    const json_t *object, const char *what, struct sm_descriptor *d, sm_error *err)
{
    *d = (struct sm_descriptor){0};
    const char *digest = sm_json_string(object, "digest");
    if (!digest)
        return sm_error_set(err, SM_ECORRUPT, "%s has no digest", what);
    if (!sm_digest_valid(digest))
        return sm_error_set(err, SM_EUNSUPPORTED,
            "%s has the digest \"%.100s\", which is not SHA-256", what, digest);
    memcpy(d->digest, digest, SM_DIGEST_LEN + 1);
    if (!sm_json_size(object, "size", &d->size))
        return sm_error_set(err, SM_ECORRUPT, "%s has no valid size", what);
    const char *type = sm_json_string(object, "mediaType");
    snprintf(d->media_type, sizeof(d->media_type), "%s", type ? type : "");
    const json_t *platform = json_object_get(object, "platform");
    if (json_is_object(platform)) {
        d->has_platform = true;
        copy_part(d->platform.os, sm_json_string(platform, "os"));
        copy_part(d->platform.arch, sm_json_string(platform, "architecture"));
        copy_part(d->platform.variant, sm_json_string(platform, "variant"));
        d->wants_features = json_array_size(json_object_get(platform, "os.features")) > 0;
    }
    return 0;
}

/* arm64 has been v8 from the start, and says so or not. */
static const char *variant_of(const struct sm_platform *p)
{
    return strcmp(p->arch, "arm64") == 0 && strcmp(p->variant, "v8") == 0 ? "" : p->variant;
}

bool sm_platform_fits(const struct sm_platform *wanted, const struct sm_platform *offered)
{
    if (strcmp(wanted->os, offered->os) != 0 || strcmp(wanted->arch, offered->arch) != 0)
        return false;
    const char *want = variant_of(wanted), *have = variant_of(offered);
    return !*want || !*have || strcmp(want, have) == 0;
}

static const json_t *manifests_of(const json_t *index, sm_error *err)
{
    const json_t *list = json_object_get(index, "manifests");
    if (!json_is_array(list)) {
        sm_error_set(err, SM_ECORRUPT, "the index has no list of manifests");
        return NULL;
    }
    if (json_array_size(list) > MAX_MANIFESTS) {
        sm_error_set(err, SM_ELIMIT, "the index has %zu manifests, more than %d",
            json_array_size(list), MAX_MANIFESTS);
        return NULL;
    }
    return list;
}

static void append(char *text, size_t size, const char *word)
{
    size_t n = strlen(text);
    if (n < size)
        snprintf(text + n, size - n, "%s%s", n ? ", " : "", word);
}

/* What is known of an index when all of its entries were looked at. */
struct choice {
    const struct sm_platform *wanted;
    struct sm_descriptor best, nameless; /* nameless: tells no platform */
    unsigned fits;                       /* how well best does; 0: nothing does */
    unsigned n_nameless;                 /* 2: several */
    char have[200];
};

bool sm_descriptor_is_no_image(const struct sm_descriptor *d)
{
    return d->has_platform && strcmp(d->platform.os, "unknown") == 0;
}

static void weigh(struct choice *c, const struct sm_descriptor *d)
{
    char text[SM_PLATFORM_TEXT];
    if (!d->has_platform) {
        if (c->n_nameless == 0 || strcmp(c->nameless.digest, d->digest) != 0)
            c->n_nameless = c->n_nameless ? 2 : 1;
        c->nameless = *d;
        return;
    }
    sm_platform_format(&d->platform, text);
    if (!sm_descriptor_is_no_image(d))
        append(c->have, sizeof(c->have), text);
    if (!sm_platform_fits(c->wanted, &d->platform))
        return;
    /* A feature that is asked for is one that we may not have. */
    bool exact = strcmp(variant_of(c->wanted), variant_of(&d->platform)) == 0;
    unsigned fits = d->wants_features ? 1U + exact : 3U + exact;
    if (fits > c->fits)
        c->best = *d;
    c->fits = SM_MAX(c->fits, fits);
}

int sm_index_choose_platform(const json_t *index, const struct sm_platform *platform,
    struct sm_descriptor *out, sm_error *err)
{
    const json_t *list = manifests_of(index, err);
    if (!list)
        return err ? -(int)err->code : -SM_ECORRUPT;
    struct choice c = {.wanted = platform};
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        struct sm_descriptor d;
        int rc = sm_descriptor_parse(entry, "a manifest of the index", &d, err);
        if (rc)
            return rc;
        weigh(&c, &d);
    }
    if (c.fits || c.n_nameless == 1) {
        *out = c.fits ? c.best : c.nameless; /* whose config tells whether it fits */
        return 0;
    }
    char text[SM_PLATFORM_TEXT];
    sm_platform_format(platform, text);
    if (c.n_nameless)
        return sm_error_set(err, SM_EINVAL,
            "the index has none for %s, and several that tell no platform: name one by its digest",
            text);
    return sm_error_set(err, SM_ENOTFOUND, "the image is not there for %s, but for: %s", text,
        *c.have ? c.have : "no platform at all");
}

const char *sm_descriptor_name(const json_t *entry)
{
    return sm_json_string(
        json_object_get(entry, "annotations"), "org.opencontainers.image.ref.name");
}

bool sm_layout_is_one_image(const json_t *index)
{
    size_t i, images = 0, nameless = 0;
    json_t *entry;
    json_array_foreach(json_object_get(index, "manifests"), i, entry)
    {
        struct sm_descriptor d;
        if (sm_descriptor_name(entry) || sm_descriptor_parse(entry, "", &d, NULL) != 0)
            return false;
        images += !sm_descriptor_is_no_image(&d);
        nameless += !d.has_platform;
    }
    return images > 0 && (nameless == 0 || images == 1);
}

int sm_layout_choose(const json_t *index, const char *name, const struct sm_platform *platform,
    struct sm_descriptor *d, sm_error *err)
{
    const json_t *list = manifests_of(index, err);
    if (!list)
        return err ? -(int)err->code : -SM_ECORRUPT;
    size_t count = json_array_size(list);
    if (count == 0)
        return sm_error_set(err, SM_ENOTFOUND, "the layout holds no image");
    const json_t *match = NULL;
    if (name && *name == '@') {
        char *end;
        unsigned long n = strtoul(name + 1, &end, 10);
        if (!*end && end > name + 1 && n < count)
            match = json_array_get(list, n);
    } else if (!name && count == 1) {
        match = json_array_get(list, 0);
    } else if (!name && sm_layout_is_one_image(index)) {
        return sm_index_choose_platform(index, platform, d, err);
    }
    char have[300] = "";
    size_t i;
    json_t *entry;
    json_array_foreach(list, i, entry)
    {
        const char *its = sm_descriptor_name(entry);
        if (!match && name && its && strcmp(its, name) == 0)
            match = entry;
        append(have, sizeof(have), its ? its : "(no name)");
    }
    if (match)
        return sm_descriptor_parse(match, "the image's entry in index.json", d, err);
    if (!name)
        return sm_error_set(err, SM_EINVAL,
            "the layout holds %zu images, say which one with ':NAME': %s", count, have);
    return sm_error_set(
        err, SM_ENOTFOUND, "the layout holds no image \"%.100s\", but: %s", name, have);
}
