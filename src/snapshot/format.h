/* Numbers of the file format that encoder and decoder share; see docs/snapshot-format.md. */
#ifndef SM_SNAPSHOT_FORMAT_H
#define SM_SNAPSHOT_FORMAT_H

#include "snapshot/snapshot.h"

#define SM_SNAPSHOT_MAGIC "SMSNAP\x08" /* the eighth byte is the string's NUL */

/* Bytes in the file of one ... */
enum {
    SM_FMT_REG = 12,
    SM_FMT_REG128 = 20,
    SM_FMT_VCPU = 8 + 5 * 4, /* and its registers */
    SM_FMT_DEVICE = 20,      /* and its queues */
    SM_FMT_QUEUE = 32,
    SM_FMT_LISTENER = 20,
    SM_FMT_BLOCK = 16, /* header of an extension block, and its payload */
    SM_FMT_BLOCK_ALIGN = 8,
    SM_FMT_CPU_WORD = 16,
    SM_FMT_REGION = 24,
    SM_FMT_DEVICE_SHAPE = 40 + 8 * SM_VIRTIO_EXTRA,
};

#define SM_BLOCK_MAGIC   0x42584D53u /* "SMXB" */
#define SM_BLOCK_VERSION 1

enum sm_block_type {
    SM_BLOCK_BUILD = 1,
    SM_BLOCK_CPU = 2,
    SM_BLOCK_MACHINE = 3,
    SM_BLOCK_NOTE = 4,
    SM_BLOCK_RAM_SUMS = 5,
    SM_BLOCK_CHECKSUM = 6,
    SM_BLOCK_ROLES = 7,
    SM_BLOCK_LAST = SM_BLOCK_ROLES,
};

static inline uint64_t sm_snapshot_chunks(uint64_t memory_bytes)
{
    return memory_bytes / SM_SNAPSHOT_CHUNK + (memory_bytes % SM_SNAPSHOT_CHUNK != 0);
}

#endif
