/* What a registry's name points to: a manifest's or an index's digest, in
 * refs/HOST/REPOSITORY/:TAG. */
#ifndef SM_IMAGE_TAGS_H
#define SM_IMAGE_TAGS_H

#include "image/reference.h"
#include "image/store_files.h"

int sm_store_tag_name(const struct sm_reference *ref, char name[SM_STORE_NAME_MAX], sm_error *err);
int sm_store_put_tag(
    struct sm_imgstore *store, const struct sm_reference *ref, const char *digest, sm_error *err);
int sm_store_get_tag(
    struct sm_imgstore *store, const char *name, char digest[SM_DIGEST_LEN + 1], sm_error *err);

/* Calls fn for every name; stops when it returns non-zero, and returns that. `full` is as the user
 * would write it ("docker.io/library/alpine:latest"), `file` is its file in the store. */
typedef int sm_store_tag_fn(void *arg, const char *full, const char *file, const char *digest);
int sm_store_each_tag(struct sm_imgstore *store, sm_store_tag_fn *fn, void *arg, sm_error *err);

#endif
