/* The Internet checksum (RFC 1071). */
#ifndef SM_UTIL_INET_CHECKSUM_H
#define SM_UTIL_INET_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Adds `len` bytes to a running sum; all pieces but the last have an even length. At most 1 MiB in
 * all. The loop is simple so that the compiler makes vector code of it. */
static inline uint32_t sm_inet_sum(const void *data, size_t len, uint32_t sum)
{
    const uint8_t *p = data;
    uint64_t total = sum;
    for (; len >= 2; len -= 2, p += 2) {
        uint16_t word;
        memcpy(&word, p, sizeof(word));
        total += word;
    }
    if (len) {
        uint16_t word = 0;
        memcpy(&word, p, 1);
        total += word;
    }
    total = (total & 0xffffffffu) + (total >> 32);
    total = (total & 0xffffffffu) + (total >> 32);
    return (uint32_t)total;
}

/* The checksum as it stands in a packet (already in network order: store it with memcpy). */
static inline uint16_t sm_inet_finish(uint32_t sum)
{
    sum = (sum & 0xffffu) + (sum >> 16);
    sum = (sum & 0xffffu) + (sum >> 16);
    return (uint16_t)~sum;
}

#endif
