/*
 * The note of a snapshot as a JSON object: what a capture writes, and a restore, a bake and a
 * listing read back. The file may be anybody's: what is missing or of another type is as if it were
 * not there.
 */
#ifndef SM_VM_NOTE_H
#define SM_VM_NOTE_H

#include <stdbool.h>
#include <stdint.h>

struct sm_note {
    const char *state;           /* "base", "warm", "service" or "live" */
    const char *digest, *source; /* of the image */
    const char *egress;          /* the policy that holds for what runs; NULL: none */
    const char *asked;           /* fingerprint of what a bake was asked for; NULL: it was none */
    const char *began;           /* fingerprint of what it began with; NULL: it was none */
    uint32_t pid;                /* of the command that runs; 0: none */
    int stop_signal;             /* what that is told to stop by; 0: unknown */
    bool terminal;               /* that has one */
    bool network_moved;          /* the card is set up for another network than the user-mode one */
    bool resolver_told;          /* resolv.conf is another than that of a boot */
    struct json_t *json;         /* whose the texts are, after sm_note_read */
};

/* Texts that are not there are NULL. text NULL: there is none. */
void sm_note_read(struct sm_note *note, const char *text);
void sm_note_clear(struct sm_note *note); /* after sm_note_read */
/* malloc'ed; NULL without memory. */
char *sm_note_write(const struct sm_note *note);

#endif
