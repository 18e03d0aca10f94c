/* Descriptors and indexes (OCI image index, docker manifest list): which manifest is meant. */
#ifndef SM_IMAGE_INDEX_H
#define SM_IMAGE_INDEX_H

#include <jansson.h>

#include "image/reference.h"

#define SM_MT_OCI_INDEX       "application/vnd.oci.image.index.v1+json"
#define SM_MT_OCI_MANIFEST    "application/vnd.oci.image.manifest.v1+json"
#define SM_MT_OCI_CONFIG      "application/vnd.oci.image.config.v1+json"
#define SM_MT_DOCKER_LIST     "application/vnd.docker.distribution.manifest.list.v2+json"
#define SM_MT_DOCKER_MANIFEST "application/vnd.docker.distribution.manifest.v2+json"
#define SM_MT_DOCKER_CONFIG   "application/vnd.docker.container.image.v1+json"

enum {
    SM_MAX_LAYERS = 1000, /* of an image */
    SM_MAX_IMAGES = 1000, /* of an archive: each is another reading of it */
};

struct sm_descriptor {
    char digest[SM_DIGEST_LEN + 1];
    uint64_t size;
    char media_type[128]; /* "" where it is not told */
    bool is_manifest;     /* a manifest or index, whatever its type says */
    bool has_platform;
    bool wants_features; /* "os.features": what must be there, whatever it is */
    struct sm_platform platform;
};

/* Checks digest and size; `what` names it in errors. */
int sm_descriptor_parse(
    const json_t *object, const char *what, struct sm_descriptor *d, sm_error *err);

/* The name of an entry of a layout's index.json (org.opencontainers.image.ref.name), or NULL. */
const char *sm_descriptor_name(const json_t *entry);

/* The entry of an index that fits the platform best: its variant, too, and no feature of an
 * operating system that is asked for. Where none fits, the only one that tells no platform, whose
 * config must. SM_ENOTFOUND lists those that there are. */
int sm_index_choose_platform(const json_t *index, const struct sm_platform *platform,
    struct sm_descriptor *d, sm_error *err);

/* What BuildKit puts beside an image (attestations): its platform is "unknown". */
bool sm_descriptor_is_no_image(const struct sm_descriptor *d);

/* Whether the entries of a layout's index.json are one image, as those of an index are: without
 * names, and with platforms, unless one has only attestations beside it. */
bool sm_layout_is_one_image(const json_t *index);

/* The entry of a layout's index.json that is meant by `name` (org.opencontainers.image.ref.name, or
 * "@N" for the Nth); NULL: the only one, or, when all entries are one image, the platform's. */
int sm_layout_choose(const json_t *index, const char *name, const struct sm_platform *platform,
    struct sm_descriptor *d, sm_error *err);

/* Whether what is offered runs where `wanted` is asked for; an empty variant fits all. */
bool sm_platform_fits(const struct sm_platform *wanted, const struct sm_platform *offered);

#endif
