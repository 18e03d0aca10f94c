/* What the files of the engine share. */
#ifndef SM_VM_ENGINE_IMPL_H
#define SM_VM_ENGINE_IMPL_H

#include <pthread.h>
#include <stdatomic.h>

#include "control/machine_call.h"
#include "net/ports/guest_link.h"
#include "util/guest_wait.h"
#include "util/rate.h"
#include "vm/engine.h"

/* What a guest may ask (engine_link.c). Each question costs sockets and a few system calls. */
#define SM_ENGINE_ASKS_A_SECOND 128
#define SM_ENGINE_ASKS_BURST    256

struct sm_loop_watch; /* util/loop.h */

/* A socket on which one call at a time is made. */
struct sm_engine_line {
    int socket; /* -1: there is no machine */
    pthread_mutex_t lock;
    bool is_mute; /* an answer did not come in time; under the lock */
};

struct sm_engine {
    struct sm_hv *hv;
    struct sm_guest_clock clock;

    /* The machine's process; -1: there is none. */
    int pidfd, pid;
    struct sm_engine_line life, quick;
    int end, streams;
    int ended;          /* polls readable when `end` or pidfd does */
    atomic_bool killed; /* its end is our doing, whatever it says or not */
    uid_t uid;          /* of its user; 0: the client's */
    int user_lock;      /* -1: none */
    int agent_fd;       /* the agent's first connection after a boot; -1: taken */
    uint64_t n_pages;
    /* of engine_link.c, on the ports' loop */
    struct sm_loop *asks_loop;
    struct sm_loop_watch *asks; /* of what the guest wants; NULL: nobody asks */
    sm_guest_lead_fn *lead;
    void *lead_arg;
    struct sm_rate ask_rate;
    pthread_mutex_t lock; /* of what follows */
    int vcpu_tids[16];    /* looked up once they are all there */
    unsigned n_vcpu_tids, n_vcpus;
    sm_vm_counters counters; /* as they were told last */
};

/* A request with nothing in it yet, to be freed; NULL: no memory. (It has room for all that one may
 * have, and some stacks are small.) */
struct sm_machine_message *sm_engine_message(enum sm_machine_call call, sm_error *err);
/* One call and its reply. The message's descriptors stay the caller's. */
int sm_engine_call_life(struct sm_engine *engine, const struct sm_machine_message *m,
    struct sm_machine_reply *reply, sm_error *err);
int sm_engine_call_quick(struct sm_engine *engine, const struct sm_machine_message *m,
    struct sm_machine_reply *reply, sm_error *err);

/* For what may take as long as the guest's memory is large. */
int sm_engine_work_ms(const struct sm_engine *engine);
/* A call's failure: where the process has died meanwhile, what it died of takes its place. */
int sm_engine_lost(struct sm_engine *engine, int rc, sm_error *err);

/* engine_clock.c */
struct sm_guest_clock sm_engine_make_clock(struct sm_engine *engine);

#endif
