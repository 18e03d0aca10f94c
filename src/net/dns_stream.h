/*
 * A connection on which somebody asks our name server (RFC 7766): messages with their length in
 * front, one after another.
 *
 * One question is under way at a time, and the next one is read when its answer has gone: so what a
 * connection can make us keep is a question (4 KiB, and the proxy's copy), an answer and what each
 * of SM_DNS_TRIES resolvers has sent (64 KiB each), 264 KiB; and who does not read is not read
 * from. Who asks several at once has them answered in their order. What is no question ends the
 * connection, and so does SM_DNS_STREAM_IDLE_MS without one.
 *
 * Threads: the loop's alone.
 */
#ifndef SM_NET_DNS_STREAM_H
#define SM_NET_DNS_STREAM_H

#include "net/dns_proxy.h"

#define SM_DNS_STREAM_IDLE_MS 10000

struct sm_dns_stream;

/* Takes over fd, a stream socket that does not block, also where it fails; `id` is what the proxy
 * calls it, not 0. */
struct sm_dns_stream *sm_dns_stream_create(
    struct sm_loop *loop, struct sm_dns_proxy *proxy, int fd, uint32_t id);
void sm_dns_stream_destroy(struct sm_dns_stream *stream);

uint32_t sm_dns_stream_id(const struct sm_dns_stream *stream);
/* False: it has ended. */
bool sm_dns_stream_is_open(const struct sm_dns_stream *stream);
/* Nothing is being asked: nobody but the one who asks loses by its end. */
bool sm_dns_stream_is_idle(const struct sm_dns_stream *stream);

/* The proxy's answer to the question. */
void sm_dns_stream_answer(struct sm_dns_stream *stream, const uint8_t *msg, size_t len);
/* Ends it if it was idle for too long. */
void sm_dns_stream_expire(struct sm_dns_stream *stream, int64_t now_ms);

#endif
