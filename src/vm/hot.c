/* The pages that a start writes. See hot.h. */
#include "vm/hot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "snapshot/page_map.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/file.h"

/* The file: these bytes, then first page and number of pages of each run, u32 little-endian. */
static const char magic[8] = "SMHOT001";
#define RUN_BYTES 8

static int note_path(const char *path, char **out, sm_error *err)
{
    if (asprintf(out, "%s.hot", path) >= 0)
        return 0;
    *out = NULL;
    return sm_error_set(err, SM_ENOMEM, "no memory for a path");
}

/* The runs of set bits; 0: there are none, or more than a start has. */
static size_t find_runs(const struct sm_page_set *set, uint8_t *to)
{
    size_t n = 0;
    uint64_t pages = 0;
    for (uint64_t p = 0; p < set->n_pages; p++) {
        if (!sm_page_bit(set->changed, p))
            continue;
        uint64_t first = p;
        while (p + 1 < set->n_pages && sm_page_bit(set->changed, p + 1))
            p++;
        pages += p + 1 - first;
        if (n == SM_HOT_MAX_RUNS || pages > SM_HOT_MAX_PAGES)
            return 0;
        sm_store_le32(to + n * RUN_BYTES, (uint32_t)first);
        sm_store_le32(to + n * RUN_BYTES + 4, (uint32_t)(p + 1 - first));
        n++;
    }
    return n;
}

int sm_hot_note(struct sm_engine *engine, const char *path, sm_error *err)
{
    auto_free char *to = NULL;
    struct sm_page_set *set;
    uint8_t text[sizeof(magic) + SM_HOT_MAX_RUNS * RUN_BYTES];
    int rc = note_path(path, &to, err);
    if (!rc)
        rc = sm_engine_written(engine, &set, err);
    if (rc)
        return rc;
    memcpy(text, magic, sizeof(magic));
    size_t n = set->changed ? find_runs(set, text + sizeof(magic)) : 0;
    sm_page_set_free(set);
    auto_partial file = SM_PARTIAL_NONE;
    rc = sm_partial_open(&file, AT_FDCWD, to, NULL, err);
    if (rc)
        return rc;
    if (sm_write_all(file.fd, text, sizeof(magic) + n * RUN_BYTES))
        return sm_error_errno(err, errno, "cannot write %s", to);
    return sm_partial_commit(&file, SM_PARTIAL_NO_SYNC, err);
}

void sm_hot_read(const char *path, struct sm_hot *hot)
{
    auto_free char *from = NULL;
    uint8_t text[sizeof(magic) + SM_HOT_MAX_RUNS * RUN_BYTES];
    hot->n = 0;
    if (note_path(path, &from, NULL))
        return;
    auto_fd fd = open(from, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    ssize_t bytes = fd < 0 ? -1 : read(fd, text, sizeof(text));
    if (bytes < (ssize_t)sizeof(magic) || memcmp(text, magic, sizeof(magic)) != 0)
        return;
    size_t n = ((size_t)bytes - sizeof(magic)) / RUN_BYTES;
    uint64_t pages = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *run = text + sizeof(magic) + i * RUN_BYTES;
        hot->runs[i] = (struct sm_engine_run){
            .page = sm_load_le32(run),
            .n_pages = sm_load_le32(run + 4),
        };
        pages += hot->runs[i].n_pages;
    }
    if (pages <= SM_HOT_MAX_PAGES)
        hot->n = n;
}
