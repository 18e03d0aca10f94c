/* An archive that comes over a pipe, as a file: it is read here and there. */
#ifndef SM_BUILDER_STREAM_FILE_H
#define SM_BUILDER_STREAM_FILE_H

#include "image/store.h"
#include "util/file.h"

/* Copies all of the descriptor into a file of the store's tmp/, which is there for as long as *file
 * is open. *path is its path, malloc'ed, the caller's. An
 * error names the store, the stream or the bound of its size. */
int sm_store_keep_stream(
    struct sm_imgstore *store, int stream, struct sm_partial *file, char **path, sm_error *err);

#endif
