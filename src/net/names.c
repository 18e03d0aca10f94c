/* A table of SM_NAMES_SLOTS entries without deletion: what has expired is overwritten. See names.h.
 * It takes its memory when the first name is learned, so a guest without rules for names costs
 * none. */
#include "net/names.h"

#include <string.h>

#include "util/bytes.h"

#define NEIGHBOURHOOD 16

void sm_names_clear(struct sm_names *names)
{
    free(names->slots);
    names->slots = NULL;
}

/* The guest can aim at a neighbourhood only through addresses that allowed names resolve to, and
 * gains no more than evicting those: a keyed hash is not needed. */
static size_t first_slot(const struct sm_ip *ip)
{
    uint64_t h = sm_load_le64(ip->b) * 0x9e3779b97f4a7c15ULL ^ sm_load_le64(ip->b + 8);
    h *= 0xff51afd7ed558ccdULL;
    return (size_t)(h >> 40);
}

static struct sm_name_entry *slot_at(const struct sm_names *names, size_t i)
{
    return &names->slots[i % SM_NAMES_SLOTS];
}

bool sm_names_learn(struct sm_names *names, const struct sm_ip *ip, const struct sm_name_set *set,
    uint32_t ttl_s, uint64_t now_ms)
{
    if (!names->slots)
        names->slots = calloc(SM_NAMES_SLOTS, sizeof(*names->slots));
    if (!names->slots)
        return false;
    uint64_t ttl = SM_MIN(SM_MAX(ttl_s, SM_NAMES_MIN_TTL_S), SM_NAMES_MAX_TTL_S);
    uint64_t expires = now_ms + ttl * 1000;
    uint64_t latest = now_ms + SM_NAMES_MAX_TTL_S * 1000ull;
    struct sm_name_entry *victim = NULL;
    for (size_t i = 0; i < NEIGHBOURHOOD; i++) {
        struct sm_name_entry *e = slot_at(names, first_slot(ip) + i);
        if (e->expires_ms && sm_ip_equal(&e->ip, ip)) {
            if (e->expires_ms <= now_ms)
                e->set = (struct sm_name_set){0};
            for (size_t k = 0; k < SM_ARRAY_LEN(set->bits); k++)
                e->set.bits[k] |= set->bits[k];
            e->expires_ms = SM_MAX(e->expires_ms, expires);
            e->latest_ms = latest;
            return true;
        }
        if (!victim || e->expires_ms < victim->expires_ms)
            victim = e;
    }
    *victim =
        (struct sm_name_entry){.ip = *ip, .expires_ms = expires, .latest_ms = latest, .set = *set};
    return true;
}

static struct sm_name_entry *find(
    const struct sm_names *names, const struct sm_ip *ip, uint64_t now_ms)
{
    if (!names->slots)
        return NULL;
    for (size_t i = 0; i < NEIGHBOURHOOD; i++) {
        struct sm_name_entry *e = slot_at(names, first_slot(ip) + i);
        if (e->expires_ms > now_ms && sm_ip_equal(&e->ip, ip))
            return e;
    }
    return NULL;
}

const struct sm_name_set *sm_names_find(
    const struct sm_names *names, const struct sm_ip *ip, uint64_t now_ms)
{
    const struct sm_name_entry *e = find(names, ip, now_ms);
    return e ? &e->set : NULL;
}

const struct sm_name_set *sm_names_touch(
    struct sm_names *names, const struct sm_ip *ip, uint64_t now_ms)
{
    struct sm_name_entry *e = find(names, ip, now_ms);
    if (!e)
        return NULL;
    e->expires_ms =
        SM_MAX(e->expires_ms, SM_MIN(now_ms + SM_NAMES_MIN_TTL_S * 1000ull, e->latest_ms));
    return &e->set;
}
