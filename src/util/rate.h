/* A bound on how often something is told: `burst` at once, then `per_second`; what is not told is
 * counted. */
#ifndef SM_UTIL_RATE_H
#define SM_UTIL_RATE_H

#include <stdbool.h>
#include <stdint.h>

#include "util/bytes.h"

struct sm_rate {
    uint32_t per_second, burst;
    uint64_t tokens, refilled_ms, suppressed;
};

static inline struct sm_rate sm_rate_make(uint32_t per_second, uint32_t burst)
{
    return (struct sm_rate){.per_second = per_second, .burst = burst, .tokens = burst};
}

/* True: tell it, and that *suppressed were not told before it. */
static inline bool sm_rate_take(struct sm_rate *rate, uint64_t now_ms, uint64_t *suppressed)
{
    uint64_t earned = (now_ms - rate->refilled_ms) * rate->per_second / 1000;
    if (earned > 0) {
        rate->tokens = SM_MIN(rate->tokens + earned, (uint64_t)rate->burst);
        rate->refilled_ms = now_ms;
    }
    if (rate->tokens == 0) {
        rate->suppressed++;
        return false;
    }
    rate->tokens--;
    *suppressed = rate->suppressed;
    rate->suppressed = 0;
    return true;
}

#endif
