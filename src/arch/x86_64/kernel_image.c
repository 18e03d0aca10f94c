/*
 * Kernel files, vmlinux and bzImage, into guest RAM. See boot.h.
 *
 * System calls at set-up: fstat.
 */
#include <elf.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "arch/x86_64/boot.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/file.h"

#define LOWEST 0x100000ULL /* kernels lie above the first MiB, where our tables are */

#define MAX_PROGRAM_HEADERS 64

/* Offsets in a bzImage (boot.rst) */
#define HDR_START          0x1f1
#define HDR_SETUP_SECTS    0x1f1
#define HDR_BOOT_FLAG      0x1fe
#define HDR_JUMP_LENGTH    0x201
#define HDR_MAGIC          0x202
#define HDR_VERSION        0x206
#define HDR_LOADFLAGS      0x211
#define HDR_INITRD_MAX     0x22c
#define HDR_XLOADFLAGS     0x236
#define HDR_PREF_ADDRESS   0x258
#define HDR_INIT_SIZE      0x260
#define HDR_NEEDED         0x264
#define XLF_KERNEL_64      1
#define ENTRY_64_OFFSET    0x200
#define DEFAULT_INITRD_MAX 0x7fffffffULL

static uint64_t low_ram_end(uint64_t ram_bytes)
{
    return SM_MIN(ram_bytes, SM_X86_RAM_LOW_END);
}

static bool inside(uint64_t start, uint64_t bytes, uint64_t lowest, uint64_t end)
{
    return start >= lowest && start <= end && bytes <= end - start;
}

/* Reads exactly n bytes at `at`. */
static int read_at(int fd, void *buf, uint64_t n, uint64_t at, const char *what, sm_error *err)
{
    ssize_t got = sm_read_at(fd, buf, n, at);
    if (got < 0)
        return sm_error_errno(err, errno, "cannot read the kernel's %s", what);
    if ((uint64_t)got < n)
        return sm_error_set(
            err, SM_ECORRUPT, "the kernel file ends in its %s: it is truncated", what);
    return 0;
}

static int load_segment(int fd, uint64_t file_bytes, const Elf64_Phdr *ph, uint8_t *ram,
    uint64_t ram_bytes, sm_error *err)
{
    if (ph->p_filesz > ph->p_memsz || ph->p_offset > file_bytes ||
        ph->p_filesz > file_bytes - ph->p_offset)
        return sm_error_set(err, SM_ECORRUPT,
            "the kernel's segment for %#llx lies outside of its file: it is truncated or damaged",
            (unsigned long long)ph->p_paddr);
    if (!inside(ph->p_paddr, ph->p_memsz, LOWEST, low_ram_end(ram_bytes)))
        return sm_error_set(err, SM_EINVAL,
            "the kernel's segment of %llu bytes at %#llx does not fit into %llu MiB of guest memory",
            (unsigned long long)ph->p_memsz, (unsigned long long)ph->p_paddr,
            (unsigned long long)(ram_bytes >> 20));
    return read_at(fd, ram + ph->p_paddr, ph->p_filesz, ph->p_offset, "segments", err);
}

static int load_elf(int fd, uint64_t file_bytes, uint8_t *ram, uint64_t ram_bytes,
    struct sm_kernel_image *image, sm_error *err)
{
    Elf64_Ehdr eh;
    Elf64_Phdr ph[MAX_PROGRAM_HEADERS];
    int rc = read_at(fd, &eh, sizeof(eh), 0, "ELF header", err);
    if (rc)
        return rc;
    if (eh.e_ident[EI_CLASS] != ELFCLASS64 || eh.e_ident[EI_DATA] != ELFDATA2LSB ||
        eh.e_machine != EM_X86_64 || (eh.e_type != ET_EXEC && eh.e_type != ET_DYN))
        return sm_error_set(
            err, SM_EINVAL, "the kernel is an ELF file, but not an x86_64 executable");
    if (eh.e_phentsize != sizeof(ph[0]) || eh.e_phnum == 0 || eh.e_phnum > MAX_PROGRAM_HEADERS)
        return sm_error_set(err, SM_ECORRUPT, "the kernel has %u program headers of %u bytes",
            eh.e_phnum, eh.e_phentsize);
    if (eh.e_phoff > file_bytes)
        return sm_error_set(
            err, SM_ECORRUPT, "the kernel's program headers lie outside of its file");
    rc = read_at(fd, ph, eh.e_phnum * sizeof(ph[0]), eh.e_phoff, "program headers", err);
    bool entry_found = false;
    for (unsigned i = 0; i < eh.e_phnum && !rc; i++) {
        if (ph[i].p_type != PT_LOAD || !ph[i].p_memsz)
            continue;
        rc = load_segment(fd, file_bytes, &ph[i], ram, ram_bytes, err);
        if (!rc) {
            image->end = SM_MAX(image->end, ph[i].p_paddr + ph[i].p_memsz);
            entry_found |=
                eh.e_entry >= ph[i].p_paddr && eh.e_entry - ph[i].p_paddr < ph[i].p_filesz;
        }
    }
    if (!rc && !entry_found)
        return sm_error_set(err, SM_ECORRUPT,
            "the kernel's entry %#llx lies in none of its segments",
            (unsigned long long)eh.e_entry);
    image->entry = eh.e_entry;
    image->initramfs_max = DEFAULT_INITRD_MAX;
    return rc;
}

static int load_bzimage(int fd, uint64_t file_bytes, const uint8_t *head, uint8_t *ram,
    uint64_t ram_bytes, struct sm_kernel_image *image, sm_error *err)
{
    unsigned version = sm_load_le16(head + HDR_VERSION);
    if (version < 0x20c || !(sm_load_le16(head + HDR_XLOADFLAGS) & XLF_KERNEL_64))
        return sm_error_set(err, SM_EUNSUPPORTED,
            "the kernel is a bzImage without a 64-bit entry (boot protocol %u.%u): use an x86_64 kernel",
            version >> 8, version & 0xff);
    unsigned sectors = head[HDR_SETUP_SECTS] ? head[HDR_SETUP_SECTS] : 4;
    uint64_t payload = (sectors + 1) * 512ULL;
    uint64_t load = sm_load_le64(head + HDR_PREF_ADDRESS);
    uint64_t init_bytes = sm_load_le32(head + HDR_INIT_SIZE);
    if (payload >= file_bytes || file_bytes - payload <= ENTRY_64_OFFSET)
        return sm_error_set(
            err, SM_ECORRUPT, "the bzImage ends before its kernel: it is truncated");
    uint64_t needed = SM_MAX(init_bytes, file_bytes - payload);
    if (!inside(load, needed, LOWEST, low_ram_end(ram_bytes)))
        return sm_error_set(err, SM_EINVAL,
            "the bzImage wants %llu bytes at %#llx, which do not fit into %llu MiB of guest memory",
            (unsigned long long)needed, (unsigned long long)load,
            (unsigned long long)(ram_bytes >> 20));
    size_t end = HDR_MAGIC + head[HDR_JUMP_LENGTH];
    if (end < HDR_NEEDED || end - HDR_START > sizeof(image->setup_header))
        return sm_error_set(
            err, SM_ECORRUPT, "the bzImage has a setup header of %zu bytes", end - HDR_START);
    memcpy(image->setup_header, head + HDR_START, end - HDR_START);
    image->setup_header_bytes = end - HDR_START;
    image->entry = load + ENTRY_64_OFFSET;
    image->end = load + needed;
    image->initramfs_max = sm_load_le32(head + HDR_INITRD_MAX);
    return read_at(fd, ram + load, file_bytes - payload, payload, "payload", err);
}

int sm_x86_load_kernel(
    int fd, uint8_t *ram, uint64_t ram_bytes, struct sm_kernel_image *image, sm_error *err)
{
    struct stat st;
    uint8_t head[1024] = {0};
    if (fstat(fd, &st) < 0)
        return sm_error_errno(err, errno, "cannot stat the kernel");
    if (!S_ISREG(st.st_mode) || (uint64_t)st.st_size < sizeof(head))
        return sm_error_set(
            err, SM_EINVAL, "the kernel is too small to be one, or not a regular file");
    uint64_t bytes = (uint64_t)st.st_size;
    int rc = read_at(fd, head, sizeof(head), 0, "header", err);
    if (rc)
        return rc;
    *image = (struct sm_kernel_image){0};
    if (!memcmp(head, ELFMAG, SELFMAG))
        return load_elf(fd, bytes, ram, ram_bytes, image, err);
    if (!memcmp(head + HDR_MAGIC, "HdrS", 4) && sm_load_le16(head + HDR_BOOT_FLAG) == 0xaa55)
        return load_bzimage(fd, bytes, head, ram, ram_bytes, image, err);
    return sm_error_set(
        err, SM_EINVAL, "the kernel is neither an ELF file (vmlinux) nor a bzImage");
}
