/* Images in tar files: oci-archive (a layout in a tar) and docker-archive (what `docker save`
 * writes). The tar is indexed once; its members are then slices of the file. A compressed file is
 * unpacked into the store's tmp/ first. */
#ifndef SM_BUILDER_ARCHIVE_H
#define SM_BUILDER_ARCHIVE_H

#include "builder/source.h"
#include "image/store.h"

struct sm_parsers;

/* *index is the layout's index.json. What these make is the caller's, also *manifest and *root.
 * `parsers` NULL: the tar is read in this process; for fuzzing it. */
int sm_oci_archive_open(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    struct sm_source **source, json_t **index, sm_error *err);

/* *manifest is the object of manifest.json: {"manifest": [...]}; of an archive that is older than
 * those, what it would be (legacy.h). */
int sm_docker_archive_open(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    struct sm_source **source, json_t **manifest, sm_error *err);

/* What it is; *root is then as for that one. What has both (docker's of today) is a layout. */
int sm_any_archive_open(struct sm_imgstore *store, struct sm_parsers *parsers, const char *path,
    struct sm_source **source, json_t **root, bool *is_oci, sm_error *err);

#endif
