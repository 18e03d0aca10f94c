/*
 * SMSNAP v8 metadata: structure <-> bytes. Pure functions on memory; reader.h and the writers do
 * the files.
 *
 * The decoder trusts nothing: every count is bounded by a constant and by the bytes that are left
 * before it sizes an allocation, so a file makes us allocate a small multiple of its own metadata
 * at most. What the encoder writes the decoder reads, and the other way round, byte for byte.
 */
#ifndef SM_SNAPSHOT_CODEC_H
#define SM_SNAPSHOT_CODEC_H

#include "snapshot/snapshot.h"

#define SM_SNAPSHOT_HEADER_BYTES 72u

/* Makes the bytes [0, ram_offset) of a file. ram_offset 0: as small as can be; otherwise that much
 * is made, padded with zeros, and -SM_EUNSUPPORTED returned when the metadata does not fit (the
 * diff writer must keep its base's offset). *buf is malloc'ed, *bytes the ram_offset. */
int sm_snapshot_encode(const struct sm_snapshot *snapshot, uint64_t ram_offset, uint8_t **buf,
    uint64_t *bytes, sm_error *err);

/* Checks magic, version and ram_offset of the first bytes of a file; *ram_offset tells how many
 * bytes the decoder wants. `len` bytes of a file of file_bytes are in buf. */
int sm_snapshot_decode_header(
    const uint8_t *buf, size_t len, uint64_t file_bytes, uint64_t *ram_offset, sm_error *err);

/* buf holds the first `len` = min(ram_offset, file_bytes) bytes. */
int sm_snapshot_decode(const uint8_t *buf, size_t len, uint64_t file_bytes,
    struct sm_snapshot **snapshot, sm_error *err);

#endif
