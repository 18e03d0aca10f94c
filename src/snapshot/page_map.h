/*
 * Which pages of guest RAM are worth looking at, asked of the kernel instead of reading them.
 *
 * Reading a page that was never touched costs a fault (and, of a memfd, memory), and RAM that was
 * mapped from a snapshot file is the file except for the pages that became private since. So the
 * cost of a capture follows what the guest used, or what it changed, and not the size of its RAM.
 *
 *     backing       live pages                                changed pages (against the file)
 *     anonymous     present or swapped                        (no file: all)
 *     memfd         SEEK_DATA of the memfd                    (no file: all)
 *     private file  data in the file, or private              private, or mapped over (discarded)
 *
 * Sources, by preference: the PAGEMAP_SCAN ioctl (Linux 6.7), else /proc/self/pagemap, else every
 * page is worth looking at.
 *
 * System calls at a capture: ioctl(PAGEMAP_SCAN), pread64, lseek, fcntl(F_DUPFD_CLOEXEC, F_GETFL),
 * read, fstat, close.
 * System calls before a list: open.
 *
 * The guest must be paused, or the answer is old when it is used; it may be used as an estimate
 * then.
 */
#ifndef SM_SNAPSHOT_PAGE_MAP_H
#define SM_SNAPSHOT_PAGE_MAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

#include "snapshot/snapshot.h"
#include "util/cleanup.h"

struct sm_page_set {
    uint64_t n_pages;
    uint64_t *live;    /* bit p: page p may be non-zero (of the changed ones only, if asked so) */
    uint64_t *changed; /* bit p: page p may differ from the file; NULL: every page may */
};

enum sm_ram_backing {
    SM_RAM_ANONYMOUS,
    SM_RAM_MEMFD,        /* fd, file_offset: where RAM is in it */
    SM_RAM_PRIVATE_FILE, /* likewise: the snapshot file and its ram_offset */
};

/* The files that are asked, of a process that opened them while it could. */
struct sm_page_sources {
    int pagemap, maps; /* /proc/self/; -1: could not be had */
};
/* Opens what there is. */
void sm_page_sources_open(struct sm_page_sources *sources);

/* Guest RAM: one contiguous mapping of this process. */
struct sm_ram {
    const uint8_t *base; /* page-aligned */
    uint64_t bytes;      /* multiple of the page size */
    enum sm_ram_backing backing;
    int fd; /* not for anonymous RAM */
    uint64_t file_offset;
    const struct sm_page_sources *sources; /* NULL: opened when they are needed */
};

/* changed_only: of RAM that is mapped from a file, `live` leaves out what is as the file has it. */
int sm_page_set_scan(
    const struct sm_ram *ram, bool changed_only, struct sm_page_set **set, sm_error *err);
void sm_page_set_free(struct sm_page_set *set);
SM_DEFINE_CLEANUP(struct sm_page_set *, sm_page_set_free)

/* A set where every page is live, and changed NULL. */
int sm_page_set_all(uint64_t bytes, struct sm_page_set **set, sm_error *err);

uint64_t sm_page_set_live(const struct sm_page_set *set, uint64_t from, uint64_t to);

static inline bool sm_page_bit(const uint64_t *bits, uint64_t page)
{
    return bits[page / 64] >> page % 64 & 1;
}

static inline void sm_page_bit_set(uint64_t *bits, uint64_t page)
{
    bits[page / 64] |= 1ull << page % 64;
}

/* The two sources, each alone, for tests: set the bits of pages with memory of this process's own
 * (private: not those of the file). -SM_EUNSUPPORTED where the kernel does not have it. */
int sm_page_map_by_scan(const struct sm_ram *ram, uint64_t *bits, sm_error *err);
int sm_page_map_by_pagemap(const struct sm_ram *ram, uint64_t *bits, sm_error *err);

#endif
