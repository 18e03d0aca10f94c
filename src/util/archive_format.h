/* The formats of an archive of images as they are written: on the command line, and to the program
 * that makes one. */
#ifndef SM_UTIL_ARCHIVE_FORMAT_H
#define SM_UTIL_ARCHIVE_FORMAT_H

#include <stdbool.h>
#include <string.h>

#include "supermachine.h"

#define SM_ARCHIVE_OCI_NAME    "oci-archive"
#define SM_ARCHIVE_DOCKER_NAME "docker-archive"

static inline const char *sm_archive_format_name(enum sm_archive_format format)
{
    return format == SM_ARCHIVE_DOCKER ? SM_ARCHIVE_DOCKER_NAME : SM_ARCHIVE_OCI_NAME;
}

/* False: it is none. */
static inline bool sm_archive_format_parse(const char *text, enum sm_archive_format *format)
{
    *format = strcmp(text, SM_ARCHIVE_DOCKER_NAME) == 0 ? SM_ARCHIVE_DOCKER : SM_ARCHIVE_OCI;
    return strcmp(text, sm_archive_format_name(*format)) == 0;
}

#endif
