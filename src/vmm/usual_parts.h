/* The parts of every VM's machine (vmm/parts.h), in the order in which the guest finds them. */
#ifndef SM_VMM_USUAL_PARTS_H
#define SM_VMM_USUAL_PARTS_H

#include "util/fingerprint.h"
#include "vmm/parts.h"

#define SM_USUAL_PARTS 5

/* `net`: what the card is plugged into, by sm_part_net. All borrowed, as in vmm/parts.h. */
void sm_usual_parts(struct sm_machine_part parts[SM_USUAL_PARTS], const char *rootfs,
    const struct sm_machine_part *net);

/* Adds what decides whether a snapshot fits: the roles. */
void sm_usual_parts_fingerprint(struct sm_fingerprint *f);

#endif
