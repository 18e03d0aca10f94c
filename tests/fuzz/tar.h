/* Tar bytes that a mutation has changed. */
#ifndef SM_TESTS_FUZZ_TAR_H
#define SM_TESTS_FUZZ_TAR_H

#include <stdint.h>
#include <stdio.h>
#include <string.h>

/* Makes the checksums of what looks like a header right, or a mutation would never get beyond
 * them. */
static inline void fuzz_mend_tar(uint8_t *data, size_t size)
{
    for (size_t at = 0; at + 512 <= size; at += 512) {
        uint8_t *head = data + at;
        unsigned sum = 0;
        if (memcmp(head + 257, "ustar", 5) != 0)
            continue;
        memset(head + 148, ' ', 8);
        for (int i = 0; i < 512; i++)
            sum += head[i];
        snprintf((char *)head + 148, 8, "%06o", sum);
    }
}

#endif
