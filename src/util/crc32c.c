/* CRC32C. See crc32c.h. */
#include "util/crc32c.h"

#include <string.h>

#include "util/bytes.h"

/* Polynomial 0x1EDC6F41, bits reversed: 0x82F63B78 (entry 8). One nibble a step: only CPUs without
 * the instruction come here. */
uint32_t sm_crc32c_by_table(uint32_t crc, const void *data, size_t len)
{
    static const uint32_t nibble[16] = {
        0x00000000,
        0x105ec76f,
        0x20bd8ede,
        0x30e349b1,
        0x417b1dbc,
        0x5125dad3,
        0x61c69362,
        0x7198540d,
        0x82f63b78,
        0x92a8fc17,
        0xa24bb5a6,
        0xb21572c9,
        0xc38d26c4,
        0xd3d3e1ab,
        0xe330a81a,
        0xf36e6f75,
    };
    const uint8_t *p = data;
    crc = ~crc;
    for (; len; len--, p++) {
        crc ^= *p;
        crc = crc >> 4 ^ nibble[crc & 15];
        crc = crc >> 4 ^ nibble[crc & 15];
    }
    return ~crc;
}

#if defined(__x86_64__)
__attribute__((target("sse4.2"))) static uint32_t by_instruction(
    uint32_t crc, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint64_t c = (uint32_t)~crc;
    for (; len >= 8; len -= 8, p += 8)
        c = __builtin_ia32_crc32di(c, sm_load_le64(p));
    uint32_t c32 = (uint32_t)c;
    for (; len; len--, p++)
        c32 = __builtin_ia32_crc32qi(c32, *p);
    return ~c32;
}

uint32_t sm_crc32c(uint32_t crc, const void *data, size_t len)
{
    if (__builtin_cpu_supports("sse4.2"))
        return by_instruction(crc, data, len);
    return sm_crc32c_by_table(crc, data, len);
}
#else
uint32_t sm_crc32c(uint32_t crc, const void *data, size_t len)
{
    return sm_crc32c_by_table(crc, data, len);
}
#endif
