/*
 * What is in a tar file: where the bytes of each member begin. libarchive walks over the headers,
 * skipping contents by seeking. Done by a confined process (parser.h); the list is then its word.
 */
#ifndef SM_BUILDER_TAR_INDEX_H
#define SM_BUILDER_TAR_INDEX_H

#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

/* libarchive's filter for what begins so (gzip, zstd, xz, bzip2), ARCHIVE_FILTER_NONE for anything
 * else. The bytes count, not a media type or a file's name: they disagree often enough. */
#define SM_MAGIC_BYTES 6
int sm_compression_of(const unsigned char magic[SM_MAGIC_BYTES]);
/* The same of a file, negative: it cannot be read. */
int sm_compression_of_file(int fd, sm_error *err);

struct sm_tar_member {
    char *name; /* clean */
    char *link; /* clean name of what it links to, or NULL */
    uint64_t offset, size;
};

struct sm_tar_members {
    struct sm_tar_member *items;
    size_t count, room;
};

void sm_tar_members_clear(struct sm_tar_members *members);
/* Takes the texts of it, also where it fails. */
int sm_tar_members_add(
    struct sm_tar_members *members, const struct sm_tar_member *member, sm_error *err);
/* By name, those of one name as they come. */
void sm_tar_members_sort(struct sm_tar_members *members);

/* Decompresses the file, which is packed, into the empty file tmp; tmp stands at its start then. */
int sm_tar_unpack(int fd, int tmp, sm_error *err);
/* Adds all members of the tar that are files or links, as they come. */
int sm_tar_index(int fd, struct sm_tar_members *members, sm_error *err);

#endif
