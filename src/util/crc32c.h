/*
 * CRC32C (Castagnoli), by the CPU's instruction where there is one. It finds damage, not attackers:
 * who can write a file can also write its checksum.
 */
#ifndef SM_UTIL_CRC32C_H
#define SM_UTIL_CRC32C_H

#include <stddef.h>
#include <stdint.h>

/* `crc` is the result for the bytes before, 0 at the start. */
uint32_t sm_crc32c(uint32_t crc, const void *data, size_t len);

/* The same by table, for CPUs without the instruction; named here so that a test can compare. */
uint32_t sm_crc32c_by_table(uint32_t crc, const void *data, size_t len);

#endif
