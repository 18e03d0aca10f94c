/* Fingerprints. See fingerprint.h. */
#include "util/fingerprint.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

/* Odd numbers with well spread bits: the fractions of the golden ratio and of the square root of
 * 3. */
#define PRIME_A 0x9e3779b97f4a7c15u
#define PRIME_B 0xbb67ae8584caa73bu

static uint64_t mix(uint64_t h, uint64_t word, uint64_t factor)
{
    h = (h ^ word) * factor;
    return h ^ (h >> 29) ^ (h >> 47);
}

static void add_word(struct sm_fingerprint *f, uint64_t word)
{
    f->a = mix(f->a, word, PRIME_A);
    f->b = mix(f->b + f->a, word, PRIME_B);
}

void sm_fingerprint_init(struct sm_fingerprint *f)
{
    *f = (struct sm_fingerprint){.a = PRIME_B, .b = PRIME_A};
}

void sm_fingerprint_add(struct sm_fingerprint *f, const void *data, size_t len)
{
    const uint8_t *p = data;
    size_t left = len;
    for (; left >= 8; left -= 8, p += 8)
        add_word(f, sm_load_le64(p));
    uint8_t tail[8] = {0};
    memcpy(tail, p, left);
    add_word(f, sm_load_le64(tail));
    add_word(f, len);
}

void sm_fingerprint_bytes(const struct sm_fingerprint *f, uint8_t bytes[16])
{
    struct sm_fingerprint last = *f;
    add_word(&last, 0);
    add_word(&last, 0);
    sm_store_le64(bytes, last.a);
    sm_store_le64(bytes + 8, last.b);
}

/* ---- files ---------------------------------------------------------------------------------- */

#define MAX_HEADERS 64
#define MAX_NOTES   4096

/* Looks for NT_GNU_BUILD_ID in the notes; each is 4-byte aligned. */
static bool find_build_id(const uint8_t *notes, size_t size, uint8_t *id)
{
    while (size >= sizeof(Elf64_Nhdr)) {
        Elf64_Nhdr n;
        memcpy(&n, notes, sizeof(n));
        uint64_t name = sm_align_up(n.n_namesz, 4), desc = sm_align_up(n.n_descsz, 4);
        if (name + desc > size - sizeof(n))
            return false;
        const uint8_t *text = notes + sizeof(n);
        if (n.n_type == NT_GNU_BUILD_ID && n.n_namesz == 4 && memcmp(text, "GNU", 4) == 0 &&
            n.n_descsz > 0 && n.n_descsz <= SM_FILE_ID_BYTES) {
            memcpy(id, text + name, n.n_descsz);
            return true;
        }
        notes += sizeof(n) + name + desc;
        size -= sizeof(n) + name + desc;
    }
    return false;
}

static bool read_at(int fd, void *buf, size_t size, uint64_t offset)
{
    return offset <= INT64_MAX && sm_read_at(fd, buf, size, offset) == (ssize_t)size;
}

static bool elf_build_id(int fd, uint8_t *id)
{
    Elf64_Ehdr e;
    if (!read_at(fd, &e, sizeof(e), 0) || memcmp(e.e_ident, ELFMAG, SELFMAG) != 0 ||
        e.e_ident[EI_CLASS] != ELFCLASS64 || e.e_phentsize != sizeof(Elf64_Phdr) ||
        e.e_phnum > MAX_HEADERS)
        return false;
    for (unsigned i = 0; i < e.e_phnum; i++) {
        Elf64_Phdr p;
        uint8_t notes[MAX_NOTES];
        if (!read_at(fd, &p, sizeof(p), e.e_phoff + i * sizeof(p)))
            return false;
        size_t size = SM_MIN(p.p_filesz, (uint64_t)sizeof(notes));
        if (p.p_type == PT_NOTE && read_at(fd, notes, size, p.p_offset) &&
            find_build_id(notes, size, id))
            return true;
    }
    return false;
}

int sm_file_id(const char *path, uint8_t id[SM_FILE_ID_BYTES], sm_error *err)
{
    auto_fd fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot read '%s'", path);
    memset(id, 0, SM_FILE_ID_BYTES);
    if (elf_build_id(fd, id))
        return 0;
    const size_t size = 256 * 1024;
    auto_free uint8_t *buf = malloc(size);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "no memory to read '%s'", path);
    struct sm_fingerprint f;
    sm_fingerprint_init(&f);
    ssize_t n;
    while ((n = read(fd, buf, size)) > 0)
        sm_fingerprint_add(&f, buf, (size_t)n);
    if (n < 0)
        return sm_error_errno(err, errno, "cannot read '%s'", path);
    sm_fingerprint_bytes(&f, id);
    return 0;
}
