/*
 * The snapshot reader. Input: the metadata without its padding, which is put back, and RAM of a
 * believable size; so seeds are small and mutations land where something is. A checksum of the
 * metadata is made right, as whoever forges a file would. What is decoded must encode, and decode
 * again to the same bytes.
 */
#include <stdlib.h>
#include <string.h>

#include "snapshot/codec.h"
#include "util/bytes.h"
#include "util/crc32c.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void must(int ok)
{
    if (!ok)
        abort();
}

/* A block before it may hold its words: that one is then no checksum, and its bytes are others. */
static void sum_up(uint8_t *meta, size_t size)
{
    static const uint8_t head[16] = {'S', 'M', 'X', 'B', 6, 0, 1, 0, 8};
    uint8_t *block = memmem(meta, size, head, sizeof(head));
    if (!block || (size_t)(meta + size - block) < sizeof(head) + 8)
        return;
    memset(block + sizeof(head), 0, 8);
    sm_store_le32(block + sizeof(head), sm_crc32c(0, meta, size));
}

static void round_trip(const struct sm_snapshot *s)
{
    uint8_t *once = NULL, *twice = NULL;
    uint64_t n1 = 0, n2 = 0;
    must(sm_snapshot_encode(s, s->ram_offset, &once, &n1, NULL) == 0 && n1 == s->ram_offset);
    struct sm_snapshot *again = NULL;
    must(sm_snapshot_decode(once, n1, n1 + s->memory_bytes, &again, NULL) == 0);
    must(sm_snapshot_encode(again, n1, &twice, &n2, NULL) == 0 && n2 == n1);
    must(memcmp(once, twice, n1) == 0);
    sm_snapshot_free(again);
    free(once);
    free(twice);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint64_t ram_offset = 0;
    struct sm_snapshot *s = NULL;
    sm_error err;
    /* as a whole file: most ends are truncations */
    if (sm_snapshot_decode_header(data, size, size, &ram_offset, &err) == 0)
        must(sm_snapshot_decode(data, SM_MIN(size, ram_offset), size, &s, &err) != 0 || s);
    sm_snapshot_free(s);
    s = NULL;
    if (sm_snapshot_decode_header(data, size, UINT64_MAX, &ram_offset, &err) || size > ram_offset ||
        ram_offset > 1 << 20)
        return 0;
    uint8_t *meta = calloc(1, ram_offset);
    must(meta != NULL);
    memcpy(meta, data, size);
    sum_up(meta, ram_offset);
    if (sm_snapshot_decode(meta, ram_offset, UINT64_MAX, &s, &err) == 0)
        round_trip(s);
    sm_snapshot_free(s);
    free(meta);
    return 0;
}
