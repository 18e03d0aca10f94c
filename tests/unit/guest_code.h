/*
 * Little guests for tests, in assembly: 64-bit kernel mode, memory identity-mapped. GUEST(name, code)
 * defines the bytes name .. name_end, which are position-independent.
 */
#ifndef SM_TESTS_GUEST_CODE_H
#define SM_TESTS_GUEST_CODE_H

#include <stdint.h>

#define GUEST(name, code)                                                                          \
    __asm__(".pushsection .rodata\n" #name ":\n" code "\n" #name "_end:\n.popsection");            \
    extern const uint8_t name[], name##_end[]

#define GUEST_BYTES(name) ((size_t)(name##_end - name))

#endif
