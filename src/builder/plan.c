/* Manifests and configs. See plan.h; formats: OCI image spec manifest.md and config.md, docker's
 * "image manifest version 2, schema 2" and its image specification v1.2. */
#include "builder/plan.h"

#include <stdio.h>
#include <string.h>

#include "builder/digest.h"
#include "builder/legacy.h"
#include "image/json.h"
#include "image/reference.h"
#include "util/bytes.h"
#include "util/error.h"

enum { MAX_INDEX_DEPTH = 4 };

void sm_plan_clear(struct sm_plan *plan)
{
    for (size_t i = 0; i < plan->layer_count; i++)
        free(plan->layers[i].name);
    free(plan->layers);
    free(plan->config);
    *plan = (struct sm_plan){0};
}

/* ---- manifest -------------------------------------------------------------------------------- */

static bool layer_type_known(const char *type)
{
    static const char *const known[] = {
        "",
        "application/vnd.oci.image.layer.v1.tar",
        "application/vnd.oci.image.layer.v1.tar+gzip",
        "application/vnd.oci.image.layer.v1.tar+zstd",
        "application/vnd.oci.image.layer.nondistributable.v1.tar",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        "application/vnd.oci.image.layer.nondistributable.v1.tar+zstd",
        "application/vnd.docker.image.rootfs.diff.tar",
        "application/vnd.docker.image.rootfs.diff.tar.gzip",
        "application/vnd.docker.image.rootfs.diff.tar.zstd",
        "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip",
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(known); i++)
        if (strcmp(type, known[i]) == 0)
            return true;
    return false;
}

static int alloc_layers(struct sm_plan *plan, size_t count, sm_error *err)
{
    if (count > SM_MAX_LAYERS)
        return sm_error_set(
            err, SM_ELIMIT, "the image has %zu layers, more than %d", count, SM_MAX_LAYERS);
    plan->layers = calloc(count ? count : 1, sizeof(*plan->layers));
    if (!plan->layers)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    plan->layer_count = count;
    return 0;
}

static int check_schema(const json_t *root, sm_error *err)
{
    uint64_t version = 0;
    if (sm_json_size(root, "schemaVersion", &version) && version == 1)
        return sm_error_set(err, SM_EUNSUPPORTED,
            "the image has a manifest of docker's schema 1, "
            "which is obsolete and not supported: push the image again with a current tool");
    if (version != 2 && version != 0)
        return sm_error_set(err, SM_EUNSUPPORTED, "the manifest is of schema version %llu, not 2",
            (unsigned long long)version);
    if (json_object_get(root, "manifests") && json_object_get(root, "layers"))
        return sm_error_set(err, SM_ECORRUPT, "the manifest is both an index and an image");
    return 0;
}

static int take_manifest(
    const json_t *root, struct sm_descriptor *config, struct sm_plan *plan, sm_error *err)
{
    int rc = check_schema(root, err);
    const json_t *layers = json_object_get(root, "layers");
    if (rc == 0 && !json_is_array(layers))
        rc = sm_error_set(err, SM_ECORRUPT, "the manifest has no list of layers");
    if (rc == 0)
        rc = sm_descriptor_parse(
            json_object_get(root, "config"), "the manifest's config", config, err);
    if (rc == 0)
        rc = alloc_layers(plan, json_array_size(layers), err);
    if (rc)
        return rc;
    if (*config->media_type && strcmp(config->media_type, SM_MT_OCI_CONFIG) != 0 &&
        strcmp(config->media_type, SM_MT_DOCKER_CONFIG) != 0)
        return sm_error_set(err, SM_EUNSUPPORTED,
            "this is not a container image: its config is of type %s", config->media_type);
    size_t i;
    json_t *layer;
    json_array_foreach(layers, i, layer)
    {
        char what[64];
        snprintf(what, sizeof(what), "layer %zu of the manifest", i + 1);
        struct sm_descriptor *d = &plan->layers[i].blob;
        rc = sm_descriptor_parse(layer, what, d, err);
        if (rc)
            return rc;
        if (!layer_type_known(d->media_type))
            return sm_error_set(err, SM_EUNSUPPORTED, "%s is of type %s, which is not supported",
                what, d->media_type);
    }
    return 0;
}

int sm_plan_manifest(const char *data, size_t size, struct sm_descriptor *config,
    struct sm_plan *plan, sm_error *err)
{
    auto_json *root = NULL;
    int rc = sm_json_parse(data, size, "the manifest", &root, err);
    return rc ? rc : take_manifest(root, config, plan, err);
}

/* ---- config ---------------------------------------------------------------------------------- */

/* The chain ID of the OCI image spec: SHA-256 over "CHAIN-BELOW DIFFID", from the bottom up. */
static int chain(struct sm_plan *plan, sm_error *err)
{
    int rc = plan->layer_count ? 0 : sm_digest_of("", 0, plan->chain_id, err);
    for (size_t i = 0; rc == 0 && i < plan->layer_count; i++) {
        const char *diff_id = plan->layers[i].diff_id;
        if (i == 0) {
            memcpy(plan->chain_id, diff_id, SM_DIGEST_LEN + 1);
            continue;
        }
        char pair[2 * SM_DIGEST_LEN + 2];
        snprintf(pair, sizeof(pair), "%s %s", plan->chain_id, diff_id);
        rc = sm_digest_of(pair, strlen(pair), plan->chain_id, err);
    }
    return rc;
}

int sm_plan_config(const char *data, size_t size, struct sm_plan *plan, sm_error *err)
{
    auto_json *root = NULL;
    int rc = sm_json_parse_config(data, size, &root, err);
    if (rc)
        return rc;
    const char *os = sm_json_string(root, "os"), *arch = sm_json_string(root, "architecture"),
               *variant = sm_json_string(root, "variant");
    char text[SM_PLATFORM_TEXT];
    snprintf(text, sizeof(text), "%.15s/%.15s%s%.15s", os && *os ? os : "linux",
        arch && *arch ? arch : "amd64", variant && *variant ? "/" : "", variant ? variant : "");
    rc = sm_platform_parse(text, &plan->platform, err);
    if (rc)
        return sm_error_prefix(err, rc, "the image's config");
    const json_t *ids = json_object_get(json_object_get(root, "rootfs"), "diff_ids");
    if (json_array_size(ids) != plan->layer_count)
        return sm_error_set(err, SM_ECORRUPT,
            "the image's config tells of %zu layers, its manifest of %zu", json_array_size(ids),
            plan->layer_count);
    for (size_t i = 0; i < plan->layer_count; i++) {
        const char *id = json_string_value(json_array_get(ids, i));
        if (!sm_digest_valid(id))
            return sm_error_set(err, SM_ECORRUPT,
                "diff_ids of the image's config has no valid digest for layer %zu", i + 1);
        memcpy(plan->layers[i].diff_id, id, SM_DIGEST_LEN + 1);
    }
    return chain(plan, err);
}

/* Whether the config that the plan has is of an image for the platform. */
static int check_config(
    size_t size, const struct sm_platform *wanted, struct sm_plan *plan, sm_error *err)
{
    int rc = sm_plan_config(plan->config, size, plan, err);
    if (rc || sm_platform_fits(wanted, &plan->platform))
        return rc;
    char want[SM_PLATFORM_TEXT], have[SM_PLATFORM_TEXT];
    sm_platform_format(wanted, want);
    sm_platform_format(&plan->platform, have);
    return sm_error_set(err, SM_EUNSUPPORTED, "the image is for %s, not for %s", have, want);
}

static int take_config(struct sm_source *source, const struct sm_descriptor *d, const char *name,
    const struct sm_platform *wanted, struct sm_plan *plan, sm_error *err)
{
    size_t size;
    int rc = sm_source_read(source, d, name, "the image's config", &plan->config, &size, err);
    return rc ? rc : check_config(size, wanted, plan, err);
}

/* ---- from the top down ----------------------------------------------------------------------- */

static int plan_oci(struct sm_source *source, const struct sm_descriptor *top,
    const struct sm_platform *platform, struct sm_plan *plan, sm_error *err)
{
    struct sm_descriptor d = *top;
    memcpy(plan->top, top->digest, sizeof(plan->top));
    for (int depth = 0; depth < MAX_INDEX_DEPTH; depth++) {
        auto_free char *data = NULL;
        auto_json *root = NULL;
        size_t size;
        char what[120];
        snprintf(what, sizeof(what), "the manifest %s", d.digest);
        d.is_manifest = true;
        int rc = sm_source_read(source, &d, NULL, what, &data, &size, err);
        if (rc == 0)
            rc = sm_json_parse(data, size, what, &root, err);
        if (rc == 0)
            rc = check_schema(root, err);
        if (rc)
            return rc;
        if (json_object_get(root, "manifests")) {
            rc = sm_index_choose_platform(root, platform, &d, err);
            if (rc)
                return rc;
            continue;
        }
        memcpy(plan->digest, d.digest, sizeof(plan->digest));
        plan->manifest_blob = d;
        const char *type = sm_json_string(root, "mediaType");
        if (!*d.media_type)
            snprintf(plan->manifest_blob.media_type, sizeof(d.media_type), "%s",
                type ? type : SM_MT_OCI_MANIFEST);
        rc = take_manifest(root, &plan->config_blob, plan, err);
        return rc ? rc : take_config(source, &plan->config_blob, NULL, platform, plan, err);
    }
    return sm_error_set(
        err, SM_ELIMIT, "indexes lead to indexes, more than %d deep", MAX_INDEX_DEPTH);
}

int sm_plan_oci(struct sm_source *source, const struct sm_descriptor *top,
    const struct sm_platform *platform, struct sm_plan *plan, sm_error *err)
{
    int rc = plan_oci(source, top, platform, plan, err);
    if (rc)
        sm_plan_clear(plan);
    return rc;
}

/* "alpine" is in RepoTags as "alpine:latest" or with the host in front, depending on who wrote
 * it. */
static bool tag_is(const char *tag, const char *name)
{
    if (strcmp(tag, name) == 0)
        return true;
    auto_reference a = NULL;
    auto_reference b = NULL;
    if (sm_reference_parse(tag, &a, NULL) != 0 || sm_reference_parse(name, &b, NULL) != 0)
        return false;
    auto_free char *x = sm_reference_format(a);
    auto_free char *y = sm_reference_format(b);
    return x && y && strcmp(x, y) == 0;
}

static const json_t *choose_image(const json_t *list, const char *name, sm_error *err)
{
    size_t count = json_array_size(list), i, j;
    if (!name && count == 1)
        return json_array_get(list, 0);
    if (name && *name == '@') {
        char *end;
        unsigned long n = strtoul(name + 1, &end, 10);
        if (!*end && end > name + 1 && n < count)
            return json_array_get(list, n);
    }
    char have[300] = "";
    json_t *entry, *tag;
    json_array_foreach(list, i, entry)
    {
        json_array_foreach(json_object_get(entry, "RepoTags"), j, tag)
        {
            const char *text = json_string_value(tag);
            if (text && name && tag_is(text, name))
                return entry;
            size_t n = strlen(have);
            snprintf(have + n, sizeof(have) - n, "%s%s", n ? ", " : "", text ? text : "");
        }
    }
    if (name)
        sm_error_set(
            err, SM_ENOTFOUND, "the archive holds no image \"%.100s\", but: %s", name, have);
    else
        sm_error_set(err, SM_EINVAL, "the archive holds %zu images, say which one with ':NAME': %s",
            count, have);
    return NULL;
}

static int plan_docker(struct sm_source *source, const json_t *manifest, const char *name,
    const struct sm_platform *platform, struct sm_plan *plan, sm_error *err)
{
    sm_error why = {0};
    const json_t *image = choose_image(json_object_get(manifest, "manifest"), name, &why);
    if (!image)
        return sm_error_set(err, why.code, "%s", why.message);
    const char *legacy = sm_json_string(image, SM_LEGACY_CONFIG);
    const char *config = legacy ? legacy : sm_json_string(image, "Config");
    const json_t *layers = json_object_get(image, "Layers");
    if (!config || !json_is_array(layers))
        return sm_error_set(err, SM_ECORRUPT, "manifest.json names no config or no layers");
    int rc = alloc_layers(plan, json_array_size(layers), err);
    for (size_t i = 0; rc == 0 && i < plan->layer_count; i++) {
        const char *member = json_string_value(json_array_get(layers, i));
        plan->layers[i].name = member ? strdup(member) : NULL;
        if (!plan->layers[i].name)
            rc = sm_error_set(err, SM_ECORRUPT, "manifest.json does not name layer %zu", i + 1);
    }
    struct sm_descriptor none = {0};
    if (rc == 0 && legacy)
        rc = sm_legacy_config(source, legacy, plan, err);
    if (rc == 0)
        rc = legacy ? check_config(strlen(plan->config), platform, plan, err)
                    : take_config(source, &none, config, platform, plan, err);
    if (rc == 0)
        rc = sm_digest_of(plan->config, strlen(plan->config), plan->digest, err);
    if (rc)
        return rc;
    /* The config's name is its digest, whatever directory and suffix the writer gave it. */
    const char *base = strrchr(config, '/') ? strrchr(config, '/') + 1 : config;
    size_t hex = strspn(base, "0123456789abcdef");
    if (hex == SM_SHA256_HEX_LEN && memcmp(base, plan->digest + 7, hex) != 0)
        return sm_error_set(err, SM_ECORRUPT,
            "the image's config has the digest %s and not sha256:%.64s: it is damaged",
            plan->digest, base);
    memcpy(plan->top, plan->digest, sizeof(plan->top));
    return 0;
}

int sm_plan_docker(struct sm_source *source, const json_t *manifest, const char *name,
    const struct sm_platform *platform, struct sm_plan *plan, sm_error *err)
{
    int rc = plan_docker(source, manifest, name, platform, plan, err);
    if (rc)
        sm_plan_clear(plan);
    return rc;
}
