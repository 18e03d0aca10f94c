/*
 * One libslirp, driven by the VM's event loop.
 *
 * Loading. libslirp brings glib with it, which costs 0.3 ms (2 ms cold) and 30 relocated pages to
 * load: too much for the restore of a guest that may never send a packet. So it is loaded by dlopen
 * (slirp_api.h) at the start, on the loop's thread.
 *
 * Driving. libslirp wants poll(2): fill a set, wait, hand back what happened. The loop tells of one
 * descriptor at a time: after each batch of work one "pump" hands back the events gathered so far,
 * asks for the new set, changes those watches that differ, and arms the timer. libslirp tells when
 * it opens and closes descriptors.
 *
 * Its one timer of its own is that of router advertisements. The guest is configured without them,
 * and one that never fires does not wake idle guests.
 *
 * What libslirp may get, and so keep, is its user's to decide (sockets.h); whom it serves is told
 * by functions.
 *
 * Threads: the loop's alone.
 */
#ifndef SM_NET_SLIRP_H
#define SM_NET_SLIRP_H

#include "net/slirp_api.h"
#include "util/loop.h"

struct sm_slirp_user {
    void (*send)(void *arg, const void *frame, size_t len); /* to the guest */
    /* libslirp has opened a socket, only ever inside of sm_slirp_input; is done with one, or could
     * not make it. */
    void (*opened)(void *arg, int fd);
    void (*closed)(void *arg, int fd);
    void (*nonsense)(void *arg); /* the guest has sent what it cannot read */
    /* A round is over. True: it has sockets, and wants to be called once a second in any case. */
    bool (*pumped)(void *arg);
};

struct sm_slirp_slot;

struct sm_slirp {
    struct sm_loop *loop;
    const struct sm_slirp_user *user;
    void *arg;
    struct sm_slirp_api api;
    Slirp *slirp; /* NULL: not started */
    struct sm_loop_timer *timer;
    bool pump_soon;
    int64_t pumped_ms;
    uint64_t round;
    struct sm_slirp_slot *active;
    struct sm_slirp_slot **slots; /* by descriptor */
    size_t n_slots;
};

int sm_slirp_init(struct sm_slirp *s, struct sm_loop *loop, const struct sm_slirp_user *user,
    void *arg, sm_error *err);
void sm_slirp_fini(struct sm_slirp *s);

/* Nothing if it runs. `opens_host`: this host is reachable at the gateway's address. */
int sm_slirp_start(struct sm_slirp *s, bool opens_host, sm_error *err);
/* Closes all that is open; it can be started again. */
void sm_slirp_stop(struct sm_slirp *s);

/* Gives it a frame of the guest's. */
void sm_slirp_input(struct sm_slirp *s, const uint8_t *frame, size_t len);
/* libslirp takes the time only when it is polled, and counts the life of new sockets from there: to
 * be called before a frame that may make one. May close sockets. */
void sm_slirp_catch_up(struct sm_slirp *s);
/* Has what the frames have made looked at. */
void sm_slirp_pump_soon(struct sm_slirp *s);

#endif
