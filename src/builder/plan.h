/* What an image consists of, checked and ready to be unpacked: config, layers bottom-up,
 * identities. */
#ifndef SM_BUILDER_PLAN_H
#define SM_BUILDER_PLAN_H

#include "builder/source.h"

struct sm_layer {
    struct sm_descriptor blob; /* of a docker archive: digest "" and size 0 */
    char *name;                /* member of a docker archive, or NULL */
    char diff_id[SM_DIGEST_LEN + 1];
};

struct sm_plan {
    char top[SM_DIGEST_LEN + 1];      /* what the reference led to: an index or the manifest */
    char digest[SM_DIGEST_LEN + 1];   /* of the manifest; of the config in a docker archive */
    char chain_id[SM_DIGEST_LEN + 1]; /* names the file system that all layers make */
    struct sm_platform platform;      /* as the config has it */
    char *config;
    struct sm_descriptor manifest_blob, config_blob; /* digest "" in a docker archive */
    struct sm_layer *layers;
    size_t layer_count;
};

void sm_plan_clear(struct sm_plan *plan);

/* From what a reference led to, down over at most a few levels of indexes, to the plan. */
int sm_plan_oci(struct sm_source *source, const struct sm_descriptor *top,
    const struct sm_platform *platform, struct sm_plan *plan, sm_error *err);

/* From the manifest.json of a docker archive; `name` is one of its RepoTags, "@N", or NULL. */
int sm_plan_docker(struct sm_source *source, const json_t *manifest, const char *name,
    const struct sm_platform *platform, struct sm_plan *plan, sm_error *err);

/* Parts of the above, for the fuzzer: fill plan from the text of a manifest, of a config. */
int sm_plan_manifest(const char *data, size_t size, struct sm_descriptor *config,
    struct sm_plan *plan, sm_error *err);
int sm_plan_config(const char *data, size_t size, struct sm_plan *plan, sm_error *err);

#endif
