/* What a VM is made of: the files, who they are, and the key of the snapshots made of just
 * these. */
#ifndef SM_VM_GUEST_FILES_H
#define SM_VM_GUEST_FILES_H

#include <supermachine.h>

#include "image/image.h"
#include "snapshot/snapshot.h"
#include "util/fingerprint.h"
#include "vm/engine.h"

struct sm_guest_files {
    char *kernel, *initramfs; /* paths */
    uint8_t kernel_id[SM_SNAPSHOT_ID_BYTES], agent_id[SM_SNAPSHOT_ID_BYTES];
    /* A guest remembers blocks of its root file system: a snapshot goes with the very file that was
     * there when it was made, not with another one of the same layers. */
    uint8_t rootfs_id[SM_SNAPSHOT_ID_BYTES];
};

/* Finds those that the shape names, or the installed ones. On failure *files is empty. */
int sm_guest_files_find(struct sm_guest_files *files, const sm_image *image,
    const struct sm_vm_shape *shape, sm_error *err);
void sm_guest_files_clear(struct sm_guest_files *files);

/* Two snapshots with one key are interchangeable: "<root file system, 12 digits>-<fingerprint>". */
#define SM_BAKE_KEY_SIZE 32
void sm_bake_key(
    const sm_image *image, const struct sm_fingerprint *made_of, char key[SM_BAKE_KEY_SIZE]);

/* What a machine is made of on which nothing has run: root file system, kernel, agent, VMM, CPU,
 * and its shape, which is settled. Nothing of the image's configuration: images that differ in it
 * alone share what was baked. */
void sm_guest_files_fingerprint(const struct sm_guest_files *files, const struct sm_vm_shape *shape,
    const struct sm_engine *engine, struct sm_fingerprint *f);

#endif
