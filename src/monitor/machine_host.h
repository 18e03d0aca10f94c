/* What the files of the machine's process share. */
#ifndef SM_MONITOR_MACHINE_HOST_H
#define SM_MONITOR_MACHINE_HOST_H

#include <pthread.h>

#include "control/machine_call.h"
#include "sandbox/layers.h"
#include "snapshot/page_map.h"
#include "util/thread.h"
#include "vmm/machine.h"

struct capture; /* machine_capture.c */
struct sm_loop_watch;
struct sm_net_backend;

struct machine_host {
    struct sm_page_sources page_sources;
    struct sm_sandbox_layers layers;
    struct sm_hv *hv;
    struct sm_machine *machine;
    struct sm_machine_load_times times;
    bool end_told; /* the main thread's */
    struct sm_thread life;

    /* of the start */
    const char *names[SM_START_TEXTS];
    int fds[SM_START_N_FDS]; /* -1: not given, or taken */
    bool speaks_first;

    /* the device thread's */
    struct sm_loop_watch *streams;
    struct sm_net_backend *backend; /* of the card; NULL: nothing is plugged in */
    bool leads;                     /* the client says where the guest's connections lead */

    /* of the thread that answers SM_MACHINE_LIFE */
    struct sm_pause paused;
    struct capture *captures[SM_MACHINE_CAPTURES];
};

/* machine_start.c: everything up to a guest that runs. */
int sm_machine_host_start(struct machine_host *h, struct sm_machine_message *m, sm_error *err);

/* machine_confine.c: before the first byte of a snapshot is read. */
int sm_machine_host_confine(
    struct machine_host *h, const struct sm_machine_shape *start, sm_error *err);
/* Before the guest runs: the process, and its device thread, which does not run yet. */
int sm_machine_host_tighten(struct machine_host *h, sm_error *err);
/* On the thread of a vCPU, likewise. */
int sm_machine_host_tighten_vcpu(sm_error *err);

/* machine_calls.c: what is asked on the two sockets of a machine that runs. The reply is all zero;
 * true: it is to be sent. Owns the message's descriptors. */
void sm_machine_host_life(
    struct machine_host *h, struct sm_machine_message *m, struct sm_machine_reply *reply);
void sm_machine_host_quick(
    struct machine_host *h, struct sm_machine_message *m, struct sm_machine_reply *reply);

/* machine_capture.c */
void sm_machine_host_capture(
    struct machine_host *h, struct sm_machine_message *m, struct sm_machine_reply *reply);
void sm_machine_host_free_captures(struct machine_host *h);

/* machine_streams.c: the device thread reads what is to be bridged. */
int sm_machine_host_open_streams(struct machine_host *h, sm_error *err);

#endif
