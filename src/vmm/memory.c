/*
 * The host mappings behind guest-physical memory.
 *
 * RAM is one mapping, whatever pieces the guest sees it in (sm_arch_ram), so the snapshot file
 * holds one range. The file of a part (the root filesystem) is mapped from the page cache,
 * read-only, rounded up to what pmem wants; what is behind the end of the file is zero pages of
 * ours, since a touch there would be a SIGBUS.
 *
 * A file that is cut short under its mapping takes pages away. The guest's access to one ends the
 * machine (KVM_RUN fails, or the guest dies of it) with a sentence. An access of ours (devices,
 * captures, the assist) is a SIGBUS, for which the machine's process has a handler
 * (monitor/lost_file.h).
 *
 * System calls: munmap, fstat.
 * System calls before a list: open.
 * System calls at set-up: mmap, mprotect, madvise, fcntl(F_DUPFD_CLOEXEC).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "arch/arch.h"
#include "snapshot/reader.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "vmm/machine_internal.h"

#define LARGE_PAGE (2ULL << 20)
#define FILE_MAX   (1ULL << 40) /* of all files together: what arch.h promises */

/* Reserves `bytes` at a 2 MiB boundary, so that the CPU can map it with large pages. */
static int reserve(struct sm_mapping *map, size_t bytes, int prot, sm_error *err)
{
    size_t all = bytes + LARGE_PAGE;
    void *p = mmap(NULL, all, prot, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED)
        return sm_error_errno(
            err, errno, "cannot reserve %zu MiB of address space for the guest", bytes >> 20);
    map->reserved = p;
    map->reserved_bytes = all;
    map->host = (uint8_t *)sm_align_up((uintptr_t)p, LARGE_PAGE);
    map->bytes = bytes;
    return 0;
}

static void release(struct sm_mapping *map)
{
    if (map->reserved)
        munmap(map->reserved, map->reserved_bytes);
    *map = (struct sm_mapping){0};
}

/* Children of this process have no use for guest memory, nor have core dumps. Only advice. */
static void keep_out(const struct sm_mapping *map)
{
    madvise(map->host, map->bytes, MADV_DONTFORK);
    madvise(map->host, map->bytes, MADV_DONTDUMP);
}

int sm_machine_map_ram(struct sm_machine *m, sm_error *err)
{
    struct sm_arch_ram ram;
    _Static_assert(SM_ARCH_MAX_RAM <= SM_GM_MAX_REGIONS, "a region for each piece");
    int rc = sm_arch_ram(m->memory_bytes, &ram, err);
    if (!rc)
        rc = reserve(&m->ram, m->memory_bytes, PROT_NONE, err);
    if (rc)
        return rc;
    uint8_t *host = m->ram.host;
    for (unsigned i = 0; i < ram.n; i++) {
        m->memory.regions[i] = (struct sm_gm_region){
            .gpa = ram.piece[i].gpa, .size = ram.piece[i].bytes, .host = host};
        host += ram.piece[i].bytes;
    }
    m->memory.n = ram.n;
    return 0;
}

int sm_machine_back_ram(struct sm_machine *m, sm_error *err)
{
    if (mprotect(m->ram.host, m->ram.bytes, PROT_READ | PROT_WRITE) < 0)
        return sm_error_errno(err, errno, "cannot map %zu MiB of guest memory", m->ram.bytes >> 20);
    keep_out(&m->ram);
    return 0;
}

int sm_machine_map_snapshot(
    struct sm_machine *m, int fd, const struct sm_snapshot *s, sm_error *err)
{
    void *ram;
    if (s->memory_bytes != m->ram.bytes)
        return sm_error_set(err, SM_EUNSUPPORTED,
            "the snapshot cannot be restored here: it was made with another memory size; make a new one");
    m->ram_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (m->ram_fd < 0)
        return sm_error_errno(err, errno, "cannot keep the snapshot file open");
    m->ram_offset = s->ram_offset;
    int rc = sm_snapshot_map_ram(fd, s, m->ram.host, &ram, err);
    if (rc)
        return rc;
    keep_out(&m->ram);
    for (unsigned i = 0; i < m->memory.n; i++) {
        struct sm_gm_region *r = &m->memory.regions[i];
        r->backing = SM_GM_PRIVATE_FILE;
        if (!r->replaced)
            r->replaced = calloc(1, sizeof(*r->replaced)); /* without it nothing is given back */
    }
    return 0;
}

static int map_file(struct sm_machine *m, struct sm_machine_file *file, const char *path,
    uint64_t gpa, sm_error *err)
{
    auto_fd fd = m->open(m->open_arg, path);
    if (fd < 0)
        return sm_error_errno(err, errno, "cannot open %s", path);
    file->name = strdup(path);
    struct stat st;
    if (fstat(fd, &st) < 0)
        return sm_error_errno(err, errno, "cannot stat %s", path);
    if (!S_ISREG(st.st_mode) || st.st_size < 4096 || st.st_size > (off_t)FILE_MAX)
        return sm_error_set(err, SM_EINVAL, "%s has %lld bytes or is not a regular file", path,
            (long long)st.st_size);
    struct sm_mapping *map = &file->map;
    int rc = reserve(map, sm_align_up((uint64_t)st.st_size, LARGE_PAGE), PROT_READ, err);
    if (rc)
        return rc;
    if (mmap(map->host, (size_t)st.st_size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
        return sm_error_errno(err, errno, "cannot map %s", path);
    keep_out(map);
    map->gpa = gpa;
    file->fd = sm_steal_fd(&fd);
    file->bytes = (uint64_t)st.st_size;
    return 0;
}

int sm_machine_map_files(
    struct sm_machine *m, const struct sm_machine_part *parts, unsigned n, sm_error *err)
{
    uint64_t gpa = sm_arch_files_base(), end = gpa + FILE_MAX;
    for (unsigned i = 0; i < n; i++) {
        struct sm_machine_file *file = &m->files[i];
        file->fd = -1;
        m->n_files = i + 1;
        if (!parts[i].file)
            continue;
        int rc = map_file(m, file, parts[i].file, gpa, err);
        if (!rc && file->map.bytes > end - gpa)
            rc = sm_error_set(
                err, SM_ELIMIT, "the files of a machine have more than %llu GiB", FILE_MAX >> 30);
        if (rc)
            return sm_error_prefix(err, rc, "device '%s'", parts[i].role);
        gpa += file->map.bytes;
    }
    return 0;
}

void sm_machine_unmap(struct sm_machine *m)
{
    release(&m->ram);
    sm_close(m->ram_fd);
    for (unsigned i = 0; i < m->n_files; i++) {
        release(&m->files[i].map);
        sm_close(m->files[i].fd);
        free(m->files[i].name);
    }
}

static bool is_cut(int fd, uint64_t bytes)
{
    struct stat st;
    return fd >= 0 && fstat(fd, &st) == 0 && (uint64_t)st.st_size < bytes;
}

const char *sm_machine_lost_file(const struct sm_machine *m)
{
    if (is_cut(m->ram_fd, m->ram_offset + m->ram.bytes))
        return m->snapshot_name ? m->snapshot_name : "of the snapshot";
    for (unsigned i = 0; i < m->n_files; i++) {
        const struct sm_machine_file *file = &m->files[i];
        if (is_cut(file->fd, file->bytes))
            return file->name ? file->name : "of a device";
    }
    return NULL;
}

int sm_machine_set_slots(struct sm_machine *m, sm_error *err)
{
    for (unsigned i = 0; i < m->memory.n; i++) {
        const struct sm_gm_region *r = &m->memory.regions[i];
        int rc = sm_hv_vm_map(m->vm, SLOT_RAM + i, r->gpa, r->host, r->size, false, err);
        if (rc)
            return rc;
    }
    for (unsigned i = 0; i < m->n_files; i++) {
        const struct sm_mapping *map = &m->files[i].map;
        int rc = map->host ? sm_hv_vm_map(
                                 m->vm, SLOT_FILES + i, map->gpa, map->host, map->bytes, true, err)
                           : 0;
        if (rc)
            return rc;
    }
    return 0;
}
