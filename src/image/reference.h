/*
 * References: the text by which a user names an image.
 *
 *   oci:DIR[:REF]             OCI layout directory; REF is its org.opencontainers.image.ref.name
 *   oci-archive:FILE[:REF]    the same in a tar file
 *   docker-archive:FILE[:REF] what `docker save` writes; REF is one of its RepoTags, or @INDEX
 *                             FILE of both may be "-", the standard input
 *   sha256:HEX                digest of an image in the store
 *   [docker://]NAME[:TAG][@sha256:HEX]  a registry's, read as container tools read it: without a
 *                             host it is docker.io's, without a namespace there it is library/
 *
 * As in other container tools the first ':' after the transport ends the path.
 */
#ifndef SM_IMAGE_REFERENCE_H
#define SM_IMAGE_REFERENCE_H

#include <supermachine.h>

#include "util/cleanup.h"

enum sm_ref_kind {
    SM_REF_OCI_DIR,
    SM_REF_OCI_ARCHIVE,
    SM_REF_DOCKER_ARCHIVE,
    SM_REF_DIGEST,
    SM_REF_REGISTRY,
};

struct sm_reference {
    enum sm_ref_kind kind;
    char *path;       /* local kinds: as given */
    char *name;       /* local kinds: REF, or NULL */
    char *host;       /* registry: "docker.io", "localhost:5000", "[::1]:5000" */
    char *repository; /* registry: "library/alpine" */
    char *tag;        /* registry: NULL when only a digest was given; "latest" when neither was */
    char *digest;     /* registry: or NULL; SM_REF_DIGEST: always */
    bool short_name;  /* registry: the host was not given */
    char *id_prefix;  /* registry: the text could also be the start of a digest; or NULL */
};

#define SM_SHA256_HEX_LEN 64
#define SM_DIGEST_LEN     (7 + SM_SHA256_HEX_LEN) /* "sha256:" and the hex digits */

/* Whether text is "sha256:" and 64 lower-case hex digits (the only algorithm that we accept). */
bool sm_digest_valid(const char *text);

int sm_reference_parse(const char *text, struct sm_reference **ref, sm_error *err);
void sm_reference_free(struct sm_reference *ref);
SM_DEFINE_CLEANUP(struct sm_reference *, sm_reference_free)
#define auto_reference SM_CLEANUP(sm_reference_free_cleanup) struct sm_reference *

/* Whether the archive comes over the standard input: its path is "-". */
bool sm_reference_is_stream(const struct sm_reference *ref);

/* The full name without transport: "docker.io/library/alpine:latest", "oci:/dir:ref" with the path
 * as given. Malloc'ed; NULL when out of memory. */
char *sm_reference_format(const struct sm_reference *ref);

/* Platforms: "os/arch[/variant]". */
struct sm_platform {
    char os[16];
    char arch[16];
    char variant[16]; /* "" where there is none */
};

/* text NULL: the platform of the host. */
int sm_platform_parse(const char *text, struct sm_platform *platform, sm_error *err);

/* "linux/amd64", "linux/arm64/v8". */
#define SM_PLATFORM_TEXT 48
void sm_platform_format(const struct sm_platform *platform, char text[SM_PLATFORM_TEXT]);

#endif
