/* Waiting for a guest. See guest_wait.h. */
#include "util/guest_wait.h"

#include <stdio.h>

#include "util/bytes.h"

#define EMULATED_SLOWNESS 5
/* A tick that comes later than this was late because we did not run ourselves. */
#define LATE_NS (2ull * SM_WAIT_TICK_MS * 1000000)

static int64_t spent_ms(const struct sm_guest_wait *w)
{
    return (int64_t)((w->idle_ns + w->ran_ns / (w->slowness ? w->slowness : 1)) / 1000000);
}

bool sm_guest_wait_account(
    struct sm_guest_wait *w, uint64_t now_ns, uint64_t ran_ns, uint64_t waited_ns)
{
    if (!w->counting) {
        w->counting = true;
        w->had_ran_ns = ran_ns;
        w->had_waited_ns = waited_ns;
    } else {
        w->passed_ns += SM_MIN(now_ns - w->tick_ns, LATE_NS);
        /* Of several vCPUs together there may be more than passed; and the kernel tells of a wait
         * when it is over. */
        uint64_t ran = ran_ns - w->had_ran_ns;
        uint64_t busy = ran + (waited_ns - w->had_waited_ns);
        w->ran_ns = SM_MIN(ran, w->passed_ns);
        w->idle_ns = w->passed_ns - SM_MIN(busy, w->passed_ns);
    }
    w->tick_ns = now_ns;
    return spent_ms(w) >= w->limit_ms;
}

static bool over(struct sm_wait *wait)
{
    struct sm_guest_wait *w = (struct sm_guest_wait *)wait;
    uint64_t now = sm_now_ns(), ran, waited;
    if (w->counting && now - w->tick_ns < SM_WAIT_TICK_MS * 1000000ull / 2)
        return false;
    w->clock->cpu_time(w->clock->arg, &ran, &waited);
    if (!sm_guest_wait_account(w, now, ran, waited))
        return false;
    if (!w->slowness)
        w->slowness = w->clock->is_emulated(w->clock->arg) ? EMULATED_SLOWNESS : 1;
    if (spent_ms(w) < w->limit_ms)
        return false;
    snprintf(wait->why, sizeof(wait->why), ", in which the guest ran for %.1f s and idled for %.1f",
        (double)w->ran_ns / 1e9, (double)w->idle_ns / 1e9);
    return true;
}

void sm_guest_wait_begin_or(
    struct sm_guest_wait *w, const struct sm_guest_clock *clock, int64_t limit_ms, int clock_ms)
{
    bool by_clock = clock_ms > 0 || !clock;
    *w = (struct sm_guest_wait){
        .wait = sm_wait_ms(clock_ms > 0 ? clock_ms
                           : by_clock   ? limit_ms
                                        : -1),
        .clock = clock,
        .limit_ms = limit_ms,
    };
    w->wait.over = by_clock ? NULL : over;
}

void sm_guest_wait_begin(
    struct sm_guest_wait *w, const struct sm_guest_clock *clock, int64_t limit_ms)
{
    sm_guest_wait_begin_or(w, clock, limit_ms, 0);
}
