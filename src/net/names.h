/*
 * Which addresses our DNS gave for names that rules speak of, and until when.
 *
 * Bounded: a fixed number of entries in a small open-addressing table; when a neighbourhood is full
 * the entry that dies first makes room. An entry lives as long as its TTL says, at least a minute
 * (so that a program has the time to connect) and at most an hour. UDP has no connections that
 * could outlive the entry: traffic keeps it for another minute at a time, to the end of that hour.
 */
#ifndef SM_NET_NAMES_H
#define SM_NET_NAMES_H

#include "net/policy.h"

#define SM_NAMES_SLOTS     4096 /* power of two */
#define SM_NAMES_MIN_TTL_S 60
#define SM_NAMES_MAX_TTL_S 3600

struct sm_name_entry {
    struct sm_ip ip;
    uint64_t expires_ms; /* 0: empty */
    uint64_t latest_ms;  /* no use of it goes on longer */
    struct sm_name_set set;
};

struct sm_names {
    struct sm_name_entry *slots; /* NULL until the first is learned */
};

void sm_names_clear(struct sm_names *names);

/* False: out of memory, the address stays unknown. */
bool sm_names_learn(struct sm_names *names, const struct sm_ip *ip, const struct sm_name_set *set,
    uint32_t ttl_s, uint64_t now_ms);

/* The rules that the address belongs to now, or NULL. */
const struct sm_name_set *sm_names_find(
    const struct sm_names *names, const struct sm_ip *ip, uint64_t now_ms);

/* The same, for a UDP datagram: keeps the entry alive. */
const struct sm_name_set *sm_names_touch(
    struct sm_names *names, const struct sm_ip *ip, uint64_t now_ms);

#endif
