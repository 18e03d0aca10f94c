/*
 * The guest's TCP connections in the user-mode network, as far as they must be known to bound what
 * libslirp keeps for them.
 *
 * Segments that are not in order. libslirp keeps each in a buffer of its own that is as large as
 * the MTU, whatever the segment's length, until the gap before it closes: a byte each, that is
 * 65,000 times 64 KiB for a connection. What it expects next is the acknowledgement number of all
 * that it sends, so we read that and leave its state machine alone: a segment that begins there (or
 * before) cannot stay and always passes; each that begins behind is counted until libslirp has
 * acknowledged all that this connection has sent. All connections together may have SM_FLOWS_AHEAD
 * of them. Those beyond are dropped, TCP sends them again. Nothing between guest and libslirp
 * reorders, so an honest guest hardly ever has one.
 *
 * Connections that libslirp never ends: it waits without a limit for the end of some that its peers
 * have forgotten (FIN_WAIT_2, CLOSE_WAIT). The list of those that are half closed, and that of the
 * others, have the longest idle at the end: it makes room when a new one finds none.
 *
 * Connections that are not answered yet hold the SYN's buffer: SM_FLOWS_CONNECTING of them.
 *
 * Threads: the loop's.
 */
#ifndef SM_NET_FLOWS_H
#define SM_NET_FLOWS_H

#include "net/frame.h"

#define SM_FLOWS_AHEAD      128  /* segments: 8.2 MiB of libslirp's buffers */
#define SM_FLOWS_CONNECTING 256  /* 16.4 MiB */
#define SM_FLOWS_BUCKETS    1024 /* power of two */

struct sm_flow {
    struct sm_flow *hash_next;
    struct sm_flow *newer, *older; /* in its list */
    struct sm_ip peer;
    uint16_t guest_port, peer_port;
    bool v6;
    bool closing;       /* one side has sent its FIN */
    bool answered;      /* libslirp has told what it expects: */
    uint32_t expected;  /* of the guest next */
    uint32_t syn;       /* number of the SYN that opened it */
    uint32_t guest_end; /* the end of all that was let through of the guest */
    uint32_t peer_end;  /* the end of all that libslirp has sent */
    unsigned ahead;     /* segments that may wait in libslirp */
    int64_t used_ms;
};

struct sm_flow_list {
    struct sm_flow *newest, *oldest;
};

struct sm_flows {
    struct sm_flow *buckets[SM_FLOWS_BUCKETS];
    struct sm_flow_list open, closing;
    unsigned ahead, connecting;
};

/* Of a frame from the guest, and to it; NULL: none. */
struct sm_flow *sm_flows_find_from(const struct sm_flows *flows, const struct sm_frame *from_guest);
struct sm_flow *sm_flows_find_to(const struct sm_flows *flows, const struct sm_frame *to_guest);

/* Takes `flow` (from malloc) in for the connection that this SYN opens. */
void sm_flows_insert(struct sm_flows *flows, struct sm_flow *flow, const uint8_t *frame,
    const struct sm_frame *syn, int64_t now_ms);
/* Is this SYN the one that opened it, or is libslirp not done with that one yet? */
bool sm_flows_is_repeated(
    const struct sm_flow *flow, const uint8_t *frame, const struct sm_frame *syn);
/* The connection is gone; frees the flow. */
void sm_flows_remove(struct sm_flows *flows, struct sm_flow *flow);

/* May this segment of the guest go to libslirp? */
bool sm_flows_admit(struct sm_flows *flows, struct sm_flow *flow, const uint8_t *frame,
    const struct sm_frame *f, int64_t now_ms);
/* libslirp has sent this segment to the guest. */
void sm_flows_sent(struct sm_flows *flows, struct sm_flow *flow, const uint8_t *frame,
    const struct sm_frame *f, int64_t now_ms);

/* The connection of the list that was used longest ago, before `before_ms`, and that libslirp has
 * answered: it can be ended by a reset that begins at `expected`. NULL: none. */
struct sm_flow *sm_flows_oldest(const struct sm_flow_list *list, int64_t before_ms);

#endif
