/*
 * What `docker save` wrote before 1.10: no manifest.json, but a directory for each layer, with its
 * tar and a JSON that names the layer below, and `repositories`, which says what the topmost ones
 * are called. There are no digests in it: the layers are summed, and the configuration is the
 * topmost layer's. containers-image does not read these, docker load does.
 */
#ifndef SM_BUILDER_LEGACY_H
#define SM_BUILDER_LEGACY_H

#include "builder/plan.h"

/* Where a manifest.json has Config: the name of the topmost layer's JSON. */
#define SM_LEGACY_CONFIG "LegacyConfig"

/* Makes of `repositories` what manifest.json would be, {"manifest": [...]}, for the caller to
 * release: an image for each topmost layer, SM_MAX_IMAGES at most (SM_ELIMIT), with its names in
 * RepoTags, its layers in Layers, and SM_LEGACY_CONFIG. */
int sm_legacy_manifest(
    struct sm_source *source, json_t *repositories, json_t **manifest, sm_error *err);

/* Makes plan->config of the JSON that LegacyConfig names. The layers, whose names the plan has, are
 * read for it. */
int sm_legacy_config(
    struct sm_source *source, const char *name, struct sm_plan *plan, sm_error *err);

#endif
