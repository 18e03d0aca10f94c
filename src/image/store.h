/*
 * The image store: where images that are ready to run are kept, and how a reference becomes one.
 *
 * Its files are here, in src/image: they look up, list and remove, and need nothing but JSON and
 * file calls (well below a millisecond for what is in the store). What is not there yet is made by
 * the program `supermachine-image` (ensure.h). From below: store_files.h (names, writing, locks) <
 * seal.h < record.h (images), leads.h and tags.h (what leads to them) < find.h, list.h < remove.h,
 * add_name.h, verify.h < prune.h, ensure.h. The layout of the directory and who locks what is in
 * docs/store.md.
 *
 * Any number of threads and processes may use one store directory.
 */
#ifndef SM_IMAGE_STORE_H
#define SM_IMAGE_STORE_H

#include <supermachine.h>

struct sm_imgstore;

/* $XDG_DATA_HOME/supermachine or ~/.local/share/supermachine; malloc'ed. NULL: there is none. */
char *sm_imgstore_default_dir(sm_error *err);

/* Opens (and creates, mode 0700) the store; dir NULL: the default. */
int sm_imgstore_open(struct sm_imgstore **store, const char *dir, sm_error *err);
void sm_imgstore_close(struct sm_imgstore *store);
const char *sm_imgstore_path(const struct sm_imgstore *store);

#endif
