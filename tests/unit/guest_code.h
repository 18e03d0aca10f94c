/*
 * Little guests for tests, in assembly: 64-bit kernel mode, memory identity-mapped. GUEST(name,
 * code) defines the bytes name .. name_end, which are position-independent.
 */
#ifndef SM_TESTS_GUEST_CODE_H
#define SM_TESTS_GUEST_CODE_H

#include <elf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define GUEST(name, code)                                                                          \
    __asm__(".pushsection .rodata\n" #name ":\n" code "\n" #name "_end:\n.popsection");            \
    extern const uint8_t name[], name##_end[]

#define GUEST_BYTES(name) ((size_t)(name##_end - name))

#define GUEST_CODE_AT 0x1000000u

/* A kernel file in memory: *path names it. */
static inline int guest_kernel(const uint8_t *code, size_t n, char path[32])
{
    struct {
        Elf64_Ehdr eh;
        Elf64_Phdr ph;
        uint8_t code[4096];
    } f = {
        .eh = {.e_type = ET_EXEC,
            .e_machine = EM_X86_64,
            .e_entry = GUEST_CODE_AT,
            .e_phoff = sizeof(Elf64_Ehdr),
            .e_phentsize = sizeof(Elf64_Phdr),
            .e_phnum = 1},
        .ph = {.p_type = PT_LOAD,
            .p_offset = sizeof(Elf64_Ehdr) + sizeof(Elf64_Phdr),
            .p_paddr = GUEST_CODE_AT,
            .p_filesz = n,
            .p_memsz = n},
    };
    memcpy(f.eh.e_ident, ELFMAG, SELFMAG);
    f.eh.e_ident[EI_CLASS] = ELFCLASS64;
    f.eh.e_ident[EI_DATA] = ELFDATA2LSB;
    memcpy(f.code, code, n);
    int fd = memfd_create("kernel", MFD_CLOEXEC);
    assert_int_equal(write(fd, &f, sizeof(f)), sizeof(f));
    snprintf(path, 32, "/proc/self/fd/%d", fd);
    return fd;
}

#endif
