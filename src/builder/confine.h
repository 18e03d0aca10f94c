/*
 * supermachine-image gives up what it has no need of, once it knows what it works on: files but
 * those, and its store, and privileges. It has one thread then, and no byte of a
 * stranger's has been read.
 *
 * It keeps the host's root, since names are looked up by libc, with modules, and certificates by
 * libcurl, by paths that each distribution has its own of: Landlock says which. Where the host has
 * none that is missing. It keeps the network, also where an archive is unpacked only: a process
 * cannot tell the kernel that it wants none but by a namespace, and what that costs is not worth it
 * for one that reads JSON.
 */
#ifndef SM_BUILDER_CONFINE_H
#define SM_BUILDER_CONFINE_H

#include "builder/parsers.h"
#include "image/store.h"

/* `path`: what else is read, absolute; `ca`: a file of certificates. Both may be NULL. Once; later
 * calls do nothing. */
int sm_builder_confine(struct sm_parsers *parsers, const struct sm_imgstore *store,
    const char *path, const char *ca, sm_error *err);

#endif
