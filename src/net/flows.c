/* The table of the guest's connections, and the two lists of which the longest idle goes first. See
 * flows.h. All numbers are the guest's or libslirp's: sequence numbers are only ever compared as
 * distances on their circle. */
#include "net/flows.h"

#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"

/* Of sequence numbers, which wrap around. What is half around the circle counts as after:
 * libslirp's arithmetic can take it for either. */
static bool is_after(uint32_t a, uint32_t b)
{
    return a != b && a - b <= 1u << 31;
}

/* Where the sequence numbers of a segment end: data, and SYN and FIN count one each. */
static uint32_t segment_end(const struct sm_frame *f, uint32_t seq)
{
    return seq + (uint32_t)(f->end - f->payload) + ((f->tcp_flags & SM_TCP_SYN) ? 1 : 0) +
           ((f->tcp_flags & SM_TCP_FIN) ? 1 : 0);
}

/* ---- table and lists ----------------------------------------------------------------------- */

/* A guest that aims at one bucket searches its own connections longer: 1,024 at most. */
static size_t bucket_of(const struct sm_ip *peer, uint16_t peer_port, uint16_t guest_port)
{
    uint64_t h = sm_load_le64(peer->b) * 0x9e3779b97f4a7c15ULL ^ sm_load_le64(peer->b + 8);
    h = (h ^ ((uint64_t)peer_port << 16 | guest_port)) * 0xff51afd7ed558ccdULL;
    return (size_t)(h >> 40) % SM_FLOWS_BUCKETS;
}

static struct sm_flow *find(const struct sm_flows *flows, bool v6, const struct sm_ip *peer,
    uint16_t peer_port, uint16_t guest_port)
{
    struct sm_flow *flow = flows->buckets[bucket_of(peer, peer_port, guest_port)];
    while (flow && (flow->guest_port != guest_port || flow->peer_port != peer_port ||
                       flow->v6 != v6 || !sm_ip_equal(&flow->peer, peer)))
        flow = flow->hash_next;
    return flow;
}

struct sm_flow *sm_flows_find_from(const struct sm_flows *flows, const struct sm_frame *f)
{
    return find(flows, f->v6, &f->dst, f->dport, f->sport);
}

struct sm_flow *sm_flows_find_to(const struct sm_flows *flows, const struct sm_frame *f)
{
    return find(flows, f->v6, &f->src, f->sport, f->dport);
}

static struct sm_flow_list *list_of(struct sm_flows *flows, const struct sm_flow *flow)
{
    return flow->closing ? &flows->closing : &flows->open;
}

static void unlist(struct sm_flows *flows, struct sm_flow *flow)
{
    struct sm_flow_list *list = list_of(flows, flow);
    *(flow->newer ? &flow->newer->older : &list->newest) = flow->older;
    *(flow->older ? &flow->older->newer : &list->oldest) = flow->newer;
}

static void enlist(struct sm_flows *flows, struct sm_flow *flow)
{
    struct sm_flow_list *list = list_of(flows, flow);
    flow->newer = NULL;
    flow->older = list->newest;
    *(list->newest ? &list->newest->newer : &list->oldest) = flow;
    list->newest = flow;
}

static void touch(struct sm_flows *flows, struct sm_flow *flow, bool closing, int64_t now_ms)
{
    flow->used_ms = now_ms;
    if (!flow->newer && (flow->closing || !closing))
        return;
    unlist(flows, flow);
    flow->closing = flow->closing || closing;
    enlist(flows, flow);
}

void sm_flows_insert(struct sm_flows *flows, struct sm_flow *flow, const uint8_t *frame,
    const struct sm_frame *syn, int64_t now_ms)
{
    struct sm_flow **bucket = &flows->buckets[bucket_of(&syn->dst, syn->dport, syn->sport)];
    *flow = (struct sm_flow){.hash_next = *bucket,
        .peer = syn->dst,
        .guest_port = syn->sport,
        .peer_port = syn->dport,
        .v6 = syn->v6,
        .syn = sm_frame_tcp_number(frame, syn, SM_TCP_SEQ_AT),
        .used_ms = now_ms};
    *bucket = flow;
    enlist(flows, flow);
    flows->connecting++;
}

bool sm_flows_is_repeated(
    const struct sm_flow *flow, const uint8_t *frame, const struct sm_frame *syn)
{
    return !flow->answered || sm_frame_tcp_number(frame, syn, SM_TCP_SEQ_AT) == flow->syn;
}

void sm_flows_remove(struct sm_flows *flows, struct sm_flow *flow)
{
    struct sm_flow **link =
        &flows->buckets[bucket_of(&flow->peer, flow->peer_port, flow->guest_port)];
    while (*link != flow)
        link = &(*link)->hash_next;
    *link = flow->hash_next;
    unlist(flows, flow);
    flows->ahead -= flow->ahead;
    if (!flow->answered)
        flows->connecting--;
    free(flow);
}

/* ---- segments ------------------------------------------------------------------------------ */

bool sm_flows_admit(struct sm_flows *flows, struct sm_flow *flow, const uint8_t *frame,
    const struct sm_frame *f, int64_t now_ms)
{
    touch(flows, flow, f->tcp_flags & SM_TCP_FIN, now_ms);
    uint32_t seq = sm_frame_tcp_number(frame, f, SM_TCP_SEQ_AT);
    uint32_t end = segment_end(f, seq);
    if (end == seq)
        return true; /* an acknowledgement, a reset: nothing to keep */
    if (!flow->answered)
        return false;
    if (is_after(seq, flow->expected)) {
        if (flows->ahead == SM_FLOWS_AHEAD)
            return false;
        flow->ahead++;
        flows->ahead++;
    }
    if (is_after(end, flow->guest_end))
        flow->guest_end = end;
    return true;
}

void sm_flows_sent(struct sm_flows *flows, struct sm_flow *flow, const uint8_t *frame,
    const struct sm_frame *f, int64_t now_ms)
{
    touch(flows, flow, f->tcp_flags & SM_TCP_FIN, now_ms);
    if (!(f->tcp_flags & SM_TCP_ACK))
        return;
    flow->expected = sm_frame_tcp_number(frame, f, SM_TCP_ACK_AT);
    uint32_t seq = sm_frame_tcp_number(frame, f, SM_TCP_SEQ_AT);
    if (!flow->answered) {
        flow->answered = true;
        flow->guest_end = flow->expected;
        flow->peer_end = seq;
        flows->connecting--;
    }
    if (is_after(segment_end(f, seq), flow->peer_end))
        flow->peer_end = segment_end(f, seq);
    if (flow->ahead && !is_after(flow->guest_end, flow->expected)) {
        flows->ahead -= flow->ahead;
        flow->ahead = 0;
    }
}

struct sm_flow *sm_flows_oldest(const struct sm_flow_list *list, int64_t before_ms)
{
    struct sm_flow *flow = list->oldest;
    while (flow && !flow->answered)
        flow = flow->newer;
    return flow && flow->used_ms < before_ms ? flow : NULL;
}
