/*
 * The pages that a start writes.
 *
 * A restored guest has the snapshot's memory copy-on-write. A page that it first reads and then
 * writes costs three exits: KVM maps the file's page, the write copies it, which takes the mapping
 * away, and the guest faults once more. Of a start, which is RESTORE and a command's life, that is
 * a third of all exits, and they are nearly all that it costs. So a bake tries a start once with a
 * command that does nothing, and notes which pages were written; who restores to start a command
 * has those copied before the guest runs, each by one fault of the host's. The memory is the same:
 * they would be copied anyway.
 *
 * The note is a file beside the snapshot. It is a hint: without it, or with another one, a start is
 * slower and nothing else.
 */
#ifndef SM_VM_HOT_H
#define SM_VM_HOT_H

#include <stddef.h>

#include <supermachine.h>

#include "vm/engine.h"

/* As many runs of pages as are noted: a start has some 140. */
#define SM_HOT_MAX_RUNS  1024
#define SM_HOT_MAX_PAGES 4096 /* 16 MiB: what writes more is no start */

struct sm_hot {
    size_t n;
    struct sm_engine_run runs[SM_HOT_MAX_RUNS];
};

/* Notes what a restored VM has written so far, beside the snapshot of this path. It stands still
 * afterwards. */
int sm_hot_note(struct sm_engine *engine, const char *path, sm_error *err);
/* n is 0 where there is no note. Of what is baked alone: beside a file of the user's nobody of ours
 * writes one. */
void sm_hot_read(const char *path, struct sm_hot *hot);

#endif
