/*
 * IPv4 datagrams of the guest that come in fragments, put together before anything looks at them:
 * the policy judges whole datagrams, and libslirp, which keeps each fragment in a buffer of 64 KiB
 * for half a minute, sees none.
 *
 * At most SM_REASSEMBLY_DATAGRAMS at a time, each in one buffer for the largest datagram that there
 * is, for SM_REASSEMBLY_MS; the oldest makes room. Fragments that overlap make a datagram void
 * (nobody sends such but to fool somebody), and so do lengths that cannot be.
 *
 * Threads: the caller's one.
 */
#ifndef SM_NET_REASSEMBLY_H
#define SM_NET_REASSEMBLY_H

#include "net/frame.h"

#define SM_REASSEMBLY_DATAGRAMS 16 /* 1 MiB */
#define SM_REASSEMBLY_MS        30000

struct sm_reassembly {
    struct sm_datagram *newest;
    unsigned n;
};

void sm_reassembly_clear(struct sm_reassembly *r);

/* Is it a fragment? (Of whatever; sm_frame_parse tells what it is worth.) */
bool sm_frame_is_fragment(const uint8_t *frame, size_t len);

/* Takes a fragment. When its datagram is whole, returns the frame that it would have been, valid
 * until the next call, and its length; NULL: not yet, or never. */
uint8_t *sm_reassembly_add(
    struct sm_reassembly *r, const uint8_t *frame, size_t len, int64_t now_ms, size_t *whole);

#endif
