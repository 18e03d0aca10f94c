/* An image store that is empty and goes with the process. */
#ifndef SM_TESTS_FUZZ_STORE_H
#define SM_TESTS_FUZZ_STORE_H

#include <ftw.h>

#include "fuzz.h"
#include "image/store.h"

static char fuzz_store_dir[] = "/tmp/sm-fuzz-XXXXXX";

static inline int fuzz_remove_entry(
    const char *path, const struct stat *st, int type, struct FTW *level)
{
    return remove(path);
}

static inline void fuzz_remove_store(void)
{
    (void)nftw(fuzz_store_dir, fuzz_remove_entry, 8, FTW_DEPTH | FTW_PHYS);
}

static inline struct sm_imgstore *fuzz_store(void)
{
    static struct sm_imgstore *store;
    if (!store) {
        fuzz_demand(mkdtemp(fuzz_store_dir) && atexit(fuzz_remove_store) == 0);
        fuzz_demand(sm_imgstore_open(&store, fuzz_store_dir, NULL) == 0);
    }
    return store;
}

#endif
