/*
 * A connection to the agent: frames of src/wire over a stream socket, with the caller's bound on
 * every wait (util/wait.h) and an eye on the machine, so that a dead guest is told as what it is.
 * Not thread-safe: a channel has one user at a time.
 */
#ifndef SM_VM_AGENT_CHANNEL_H
#define SM_VM_AGENT_CHANNEL_H

#include <supermachine.h>

#include "wire/wire.h"

#define SM_CHANNEL_BUFFER (SM_WIRE_HEADER + SM_WIRE_MAX_DATA)

/* Of the guest's time (util/guest_wait.h), for a boot and for whatever the agent does at once. Only
 * a guest that hangs takes so long; the end of a VM is noticed without it. */
#define SM_AGENT_TIMEOUT_MS 120000

struct sm_engine;
struct sm_guest_clock;
struct sm_wait;

struct sm_channel {
    int fd;                   /* non-blocking; -1: closed */
    struct sm_engine *engine; /* whose end is told; NULL: none (tests) */
    uint8_t *in; /* SM_CHANNEL_BUFFER bytes, of which those from begin to end are unread */
    size_t begin, end;
};

/* Takes fd over, also when it fails. */
int sm_channel_init(struct sm_channel *channel, int fd, struct sm_engine *engine, sm_error *err);
/* A new connection to the agent; waits for nothing (sm_engine_connect). */
int sm_channel_connect(struct sm_channel *channel, struct sm_engine *engine, sm_error *err);
void sm_channel_close(struct sm_channel *channel); /* all zero or closed is fine */

/* The time of the guest at its other end; NULL: there is none but the clock. */
const struct sm_guest_clock *sm_channel_clock(const struct sm_channel *channel);

/* Sends all of it. */
int sm_channel_send(
    struct sm_channel *channel, const void *data, size_t size, struct sm_wait *wait, sm_error *err);

/* Sends a message of any type and any length up to what the format allows (SM_ELIMIT). */
int sm_channel_send_message(struct sm_channel *channel, enum sm_wire_type type, const void *message,
    struct sm_wait *wait, sm_error *err);

/* Looks for a whole frame among the bytes received: 1 with *frame, which lives until the next call
 * of sm_channel_fill; 0: more bytes are needed. sm_channel_fill reads what is there: 1 when there
 * was something, 0 when the other side has closed. */
int sm_channel_parse(struct sm_channel *channel, struct sm_wire_frame *frame, sm_error *err);
int sm_channel_fill(struct sm_channel *channel, sm_error *err);

/* Waits for the next frame. */
int sm_channel_next(
    struct sm_channel *channel, struct sm_wire_frame *frame, struct sm_wait *wait, sm_error *err);

/* Waits for the answer to a request: a frame of that type, decoded into *message (NULL for one
 * without fields). ERROR becomes ours. */
int sm_channel_expect(struct sm_channel *channel, enum sm_wire_type type, void *message,
    struct sm_wait *wait, sm_error *err);

/* Sends a request and waits for its answer, as expect does. */
int sm_channel_ask(struct sm_channel *channel, enum sm_wire_type type, const void *message,
    enum sm_wire_type answer, void *to, struct sm_wait *wait, sm_error *err);

/* What to report when the connection has ended: how the machine ended, if it did. */
int sm_channel_lost(const struct sm_channel *channel, sm_error *err);
/* An unexpected frame, or an ERROR, as an error. */
int sm_channel_refused(const struct sm_wire_frame *frame, sm_error *err);

#endif
