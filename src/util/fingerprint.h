/*
 * A 128-bit fingerprint of bytes: equal bytes have equal ones, and others differ but for accidents.
 * It tells builds apart; against somebody who makes two files collide on purpose it is no help
 * (they would have to write into our own directories).
 */
#ifndef SM_UTIL_FINGERPRINT_H
#define SM_UTIL_FINGERPRINT_H

#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

struct sm_fingerprint {
    uint64_t a, b;
};

void sm_fingerprint_init(struct sm_fingerprint *f);
/* Adds the bytes and their number: two calls with "ab" and "c" differ from "a" and "bc". */
void sm_fingerprint_add(struct sm_fingerprint *f, const void *data, size_t len);
void sm_fingerprint_bytes(const struct sm_fingerprint *f, uint8_t bytes[16]);

/* Identity of a file: the GNU build id of an ELF file that has one, else the fingerprint of all its
 * bytes; padded with zeros. */
#define SM_FILE_ID_BYTES 32
int sm_file_id(const char *path, uint8_t id[SM_FILE_ID_BYTES], sm_error *err);

#endif
