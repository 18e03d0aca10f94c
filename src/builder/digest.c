/* SHA-256 by libcrypto. See digest.h. */
#include "builder/digest.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "util/error.h"

/* The context is libcrypto's own type under our name. */
static EVP_MD_CTX *ctx(struct sm_sha256 *sha)
{
    return (EVP_MD_CTX *)(void *)sha;
}

struct sm_sha256 *sm_sha256_new(void)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();
    if (c && EVP_DigestInit_ex(c, EVP_sha256(), NULL) != 1) {
        EVP_MD_CTX_free(c);
        c = NULL;
    }
    return (struct sm_sha256 *)(void *)c;
}

void sm_sha256_free(struct sm_sha256 *sha)
{
    EVP_MD_CTX_free(ctx(sha));
}

void sm_sha256_update(struct sm_sha256 *sha, const void *data, size_t size)
{
    EVP_DigestUpdate(ctx(sha), data, size);
}

static void format(const unsigned char sum[32], char text[SM_DIGEST_LEN + 1])
{
    int n = snprintf(text, SM_DIGEST_LEN + 1, "sha256:");
    for (int i = 0; i < 32; i++)
        n += snprintf(text + n, 3, "%02x", sum[i]);
}

void sm_sha256_finish(struct sm_sha256 *sha, char digest[SM_DIGEST_LEN + 1])
{
    unsigned char sum[32];
    EVP_DigestFinal_ex(ctx(sha), sum, NULL);
    format(sum, digest);
}

int sm_sha256_check(struct sm_sha256 *sha, const char *wanted, sm_error *err)
{
    char digest[SM_DIGEST_LEN + 1];
    sm_sha256_finish(sha, digest);
    return strcmp(digest, wanted) == 0
               ? 0
               : sm_error_set(err, SM_ECORRUPT, "the blob %s has the digest %s: it is damaged",
                     wanted, digest);
}

void sm_digest_sum(const char *digest, unsigned char sum[32])
{
    for (int i = 0; i < 32; i++) {
        unsigned byte = 0;
        for (int j = 0; j < 2; j++) {
            char c = digest[7 + 2 * i + j];
            byte = byte << 4 | (unsigned)(c <= '9' ? c - '0' : c - 'a' + 10);
        }
        sum[i] = (unsigned char)byte;
    }
}

int sm_digest_of(const void *data, size_t size, char text[SM_DIGEST_LEN + 1], sm_error *err)
{
    unsigned char sum[32];
    if (EVP_Digest(data, size, sum, NULL, EVP_sha256(), NULL) != 1)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    format(sum, text);
    return 0;
}
