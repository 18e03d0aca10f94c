/* SHA-256 over what streams by. */
#ifndef SM_BUILDER_DIGEST_H
#define SM_BUILDER_DIGEST_H

#include "image/reference.h"

struct sm_sha256; /* one thread at a time */

struct sm_sha256 *sm_sha256_new(void); /* NULL: no memory */
void sm_sha256_free(struct sm_sha256 *sha);
void sm_sha256_update(struct sm_sha256 *sha, const void *data, size_t size);
/* Ends the sum; update may not follow. */
void sm_sha256_finish(struct sm_sha256 *sha, char digest[SM_DIGEST_LEN + 1]);
/* The same of the blob that `wanted` is the digest of. SM_ECORRUPT: it has another. */
int sm_sha256_check(struct sm_sha256 *sha, const char *wanted, sm_error *err);

void sm_digest_sum(const char *digest, unsigned char sum[32]); /* of a valid digest */
int sm_digest_of(const void *data, size_t size, char text[SM_DIGEST_LEN + 1], sm_error *err);

#endif
