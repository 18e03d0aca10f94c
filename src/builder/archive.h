/* Images in tar files: oci-archive (a layout in a tar) and docker-archive (what `docker save`
 * writes). The tar is indexed once; its members are then slices of the file. A compressed file is
 * unpacked into the store's tmp/ first. */
#ifndef SM_BUILDER_ARCHIVE_H
#define SM_BUILDER_ARCHIVE_H

#include "builder/source.h"
#include "image/store.h"

/* libarchive's filter for what begins so (gzip, zstd, xz, bzip2), ARCHIVE_FILTER_NONE for anything
 * else. The bytes count, not a media type or a file's name: they disagree often enough. */
#define SM_MAGIC_BYTES 6
int sm_compression_of(const unsigned char magic[SM_MAGIC_BYTES]);

/* *index is the layout's index.json. What these make is the caller's, also *manifest and *root. */
int sm_oci_archive_open(struct sm_imgstore *store, const char *path, struct sm_source **source,
    json_t **index, sm_error *err);

/* *manifest is the object of manifest.json: {"manifest": [...]}; of an archive that is older than
 * those, what it would be (legacy.h). */
int sm_docker_archive_open(struct sm_imgstore *store, const char *path, struct sm_source **source,
    json_t **manifest, sm_error *err);

/* What it is; *root is then as for that one. What has both (docker's of today) is a layout. */
int sm_any_archive_open(struct sm_imgstore *store, const char *path, struct sm_source **source,
    json_t **root, bool *is_oci, sm_error *err);

#endif
