/*
 * A bell: any thread rings it, and whoever waits for a descriptor (the loop, poll, a hypervisor
 * that takes one) hears it. Rung often before it is heard is rung once; ringing never waits.
 *
 * One eventfd on Linux, which KVM rings for a guest's store and hears for an interrupt. Only bell.c
 * knows: elsewhere it is a pipe, or what the system's event queue has for it.
 */
#ifndef SM_UTIL_BELL_H
#define SM_UTIL_BELL_H

#include <stdbool.h>

#include <supermachine.h>

struct sm_bell {
    int fd; /* of bell.c alone */
};

#define SM_BELL_NONE ((struct sm_bell){.fd = -1})

/* On failure the bell is SM_BELL_NONE. */
int sm_bell_make(struct sm_bell *bell, sm_error *err);
void sm_bell_ring(const struct sm_bell *bell);
/* Makes it silent again. Whether it had been rung. */
bool sm_bell_clear(const struct sm_bell *bell);
/* Readable while it has been rung and not cleared; stays the bell's. */
int sm_bell_fd(const struct sm_bell *bell);
/* SM_BELL_NONE: nothing. */
void sm_bell_close(struct sm_bell *bell);

#endif
