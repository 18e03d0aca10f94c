/* Images without a manifest. See legacy.h; format: docker's image specification v1. */
#include "builder/legacy.h"

#include <stdio.h>
#include <string.h>

#include "builder/digest.h"
#include "image/json.h"
#include "util/bytes.h"
#include "util/error.h"

enum {
    MAX_READ = 10000,         /* layers of all images, each as often as an image has it */
    MAX_READ_SIZE = 16 << 20, /* their JSONs, 1 or 2 KiB each */
    MAX_ID = 128,
    READ_SIZE = 128 << 10,
};

static int no_memory(sm_error *err)
{
    return sm_error_set(err, SM_ENOMEM, "out of memory");
}

static int read_json(
    struct sm_source *source, const char *name, json_t **object, size_t *size, sm_error *err)
{
    auto_free char *data = NULL;
    const struct sm_descriptor none = {0};
    int rc = sm_source_read(source, &none, name, name, &data, size, err);
    return rc ? rc : sm_json_parse_config(data, *size, object, err);
}

static bool id_is_valid(const char *id)
{
    return id && *id && strlen(id) <= MAX_ID && !strchr(id, '/');
}

/* What is made of an archive. */
struct legacy {
    struct sm_source *source;
    json_t *images;
    size_t read, read_size; /* JSONs of layers */
    sm_error *err;
};

/* Puts the layers into the list, the lowest first. A chain that closes to a ring is too long. */
static int list_layers(struct legacy *l, const char *top, json_t *layers)
{
    sm_error *err = l->err;
    char id[MAX_ID + 1], name[MAX_ID + 16];
    snprintf(id, sizeof(id), "%s", top);
    while (*id) {
        auto_json *layer = NULL;
        if (json_array_size(layers) == SM_MAX_LAYERS || ++l->read > MAX_READ)
            return sm_error_set(err, SM_ELIMIT,
                "an image of the archive has more than %d layers, or all of them more than %d",
                SM_MAX_LAYERS, MAX_READ);
        snprintf(name, sizeof(name), "%s/json", id);
        size_t size;
        int rc = read_json(l->source, name, &layer, &size, err);
        if (rc)
            return rc;
        l->read_size += size;
        if (l->read_size > MAX_READ_SIZE)
            return sm_error_set(err, SM_ELIMIT, "the JSONs of the layers have more than %d MiB",
                MAX_READ_SIZE >> 20);
        snprintf(name, sizeof(name), "%s/layer.tar", id);
        if (json_array_insert_new(layers, 0, json_string(name)) != 0)
            return no_memory(err);
        const char *parent = sm_json_string(layer, "parent");
        if (parent && *parent && !id_is_valid(parent))
            return sm_error_set(err, SM_ECORRUPT, "%.64s/json names no valid parent", id);
        snprintf(id, sizeof(id), "%s", parent ? parent : "");
    }
    return 0;
}

static json_t *find_image(json_t *images, const char *config)
{
    size_t i;
    json_t *image;
    json_array_foreach(images, i,
        image) if (strcmp(sm_json_string(image, SM_LEGACY_CONFIG), config) == 0) return image;
    return NULL;
}

/* The image of a topmost layer, which may be there already. */
static int add_image(struct legacy *l, const char *id, json_t **image)
{
    char config[MAX_ID + 8];
    snprintf(config, sizeof(config), "%s/json", id);
    *image = find_image(l->images, config);
    if (*image)
        return 0;
    if (json_array_size(l->images) == SM_MAX_IMAGES)
        return sm_error_set(
            l->err, SM_ELIMIT, "the archive has more than %d images", SM_MAX_IMAGES);
    auto_json *layers = json_array();
    int rc = layers ? list_layers(l, id, layers) : no_memory(l->err);
    if (rc)
        return rc;
    *image = json_pack("{s:s, s:[], s:O}", SM_LEGACY_CONFIG, config, "RepoTags", "Layers", layers);
    return json_array_append_new(l->images, *image) == 0 ? 0 : no_memory(l->err);
}

static int add_tags(struct legacy *l, const char *repository, json_t *tags)
{
    const char *tag;
    json_t *id, *image;
    json_object_foreach(tags, tag, id)
    {
        char name[600];
        if (!id_is_valid(json_string_value(id)))
            return sm_error_set(
                l->err, SM_ECORRUPT, "repositories names no valid layer for %.200s", repository);
        int rc = add_image(l, json_string_value(id), &image);
        if (rc)
            return rc;
        if (snprintf(name, sizeof(name), "%s:%s", repository, tag) >= (int)sizeof(name))
            return sm_error_set(l->err, SM_ECORRUPT,
                "repositories has a name of more than %zu bytes", sizeof(name) - 1);
        if (json_array_append_new(json_object_get(image, "RepoTags"), json_string(name)) != 0)
            return no_memory(l->err);
    }
    return 0;
}

int sm_legacy_manifest(
    struct sm_source *source, json_t *repositories, json_t **manifest, sm_error *err)
{
    auto_json *images = json_array();
    struct legacy l = {.source = source, .images = images, .err = err};
    const char *repository;
    json_t *tags;
    json_object_foreach(repositories, repository, tags)
    {
        int rc = add_tags(&l, repository, tags);
        if (rc)
            return rc;
    }
    if (json_array_size(images) == 0)
        return sm_error_set(err, SM_ECORRUPT, "repositories names no image");
    *manifest = json_pack("{s:O}", "manifest", images);
    return *manifest ? 0 : no_memory(err);
}

/* The digest of a layer as it is: these archives have no compressed ones. */
static int sum_layer(
    struct sm_source *source, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    auto_blob blob = {.fd = -1};
    auto_free unsigned char *buf = malloc(READ_SIZE);
    const struct sm_descriptor none = {0};
    if (!buf)
        return no_memory(err);
    int rc = source->open(source, &none, name, &blob, err);
    if (rc)
        return rc;
    struct sm_sha256 *sum = sm_sha256_new();
    if (!sum)
        return no_memory(err);
    for (uint64_t pos = 0; rc == 0 && pos < blob.size;) {
        ssize_t n = sm_blob_read(&blob, pos, buf, READ_SIZE, err);
        if (n <= 0)
            rc = n < 0 ? (int)n : sm_error_set(err, SM_ECORRUPT, "%.200s is cut off", name);
        else
            sm_sha256_update(sum, buf, (size_t)n);
        pos += n > 0 ? (uint64_t)n : 0;
    }
    sm_sha256_finish(sum, digest);
    sm_sha256_free(sum);
    return rc;
}

int sm_legacy_config(
    struct sm_source *source, const char *name, struct sm_plan *plan, sm_error *err)
{
    static const char *const taken[] = {"architecture", "os", "created", "author", "config"};
    auto_json *top = NULL;
    auto_json *ids = json_array();
    auto_json *made = json_object();
    size_t size;
    int rc = read_json(source, name, &top, &size, err);
    for (size_t i = 0; rc == 0 && i < plan->layer_count; i++) {
        char digest[SM_DIGEST_LEN + 1];
        rc = sum_layer(source, plan->layers[i].name, digest, err);
        if (rc == 0)
            json_array_append_new(ids, json_string(digest));
    }
    if (rc)
        return rc;
    for (size_t i = 0; i < SM_ARRAY_LEN(taken); i++)
        json_object_set(made, taken[i], json_object_get(top, taken[i])); /* or nothing */
    json_object_set_new(made, "rootfs", json_pack("{s:s, s:O}", "type", "layers", "diff_ids", ids));
    plan->config = json_dumps(made, JSON_COMPACT | JSON_SORT_KEYS);
    return plan->config ? 0 : no_memory(err);
}
