/* A VM, and what may be asked of it while it runs; start.h starts it. */
#ifndef SM_VM_VM_H
#define SM_VM_VM_H

#include <pthread.h>

#include <supermachine.h>

#include "image/image.h"
#include "util/guest_wait.h"
#include "util/rate.h"
#include "vm/agent/channel.h"
#include "vm/engine.h"
#include "vm/guest_files.h"
#include "vm/network.h"

#define SM_VM_MAX_NAME 63

/* How it is reached (ports.h). Both are made when somebody needs them, and live on the client's
 * loop. */
struct sm_vm_ports {
    struct sm_ports *ports;
    struct sm_listeners *listeners;
    struct sm_rate found_rate; /* the loop's */
    bool follows;              /* what listens is looked for; from the VM's beginning */
};

struct sm_vm {
    sm_image *image;
    struct sm_engine *engine;
    struct sm_vm_network network;
    struct sm_network_process *network_process; /* NULL: the card is plugged into nothing */
    struct sm_guest_files files;
    char *egress; /* the network's policy, with what a snapshot's adds to it; NULL: there is none */
    uint64_t start_ns;
    uint64_t memory_bytes; /* its machine's */
    char name[SM_VM_MAX_NAME + 1];
    sm_vm_timing timing;

    /* Written by a capture, from its freeze to its thaw: a second one would thaw what the first one
     * copies. Read by what must not come in between: a pause, since a guest that is paused cannot
     * thaw, and the start of a command, which would not be frozen. Taken before any other lock. */
    pthread_rwlock_t capturing;

    pthread_mutex_t lock; /* of what follows */
    struct sm_loop *loop; /* the client's (client_loop.h); NULL: nobody needed it yet */
    struct sm_vm_ports ports;
    struct sm_channel own; /* a connection that is free for a request; fd -1: there is none */
    /* of the command that ran when the snapshot was made; 0: none, or taken */
    uint32_t service_pid;
    /* The VM's own command until it is taken (exec.h): what was asked for, and where the answer
     * comes. */
    struct sm_channel commanded;
    const sm_exec_config *command_config; /* NULL: there is none, or it was taken */
    int command_stop_signal;              /* what SM_SIGNAL_STOP means for it */
    uint32_t command_service;             /* the service that it is, by its pid; 0: it is none */
    int service_stop_signal;              /* that, for the service; 0: as the image says */
    bool service_terminal;                /* the service has one */
    bool is_taken;                        /* somebody ran in the snapshot: process 1 is there */
    sm_exec *command;                     /* the VM's: what its captures go on with; NULL: none */
};

/* Everything but the machine: names, files, the engine. */
int sm_vm_new(
    sm_image *image, const struct sm_vm_plan *plan, uint64_t start_ns, sm_vm **vm, sm_error *err);
void sm_vm_free(sm_vm *vm); /* ends it if it runs; NULL is fine */

/* A wait for an answer of the agent's, which may take extra_ms for what it is asked. */
void sm_vm_begin_wait(const sm_vm *vm, struct sm_guest_wait *wait, int64_t extra_ms);

/* A connection to the agent: one that is there already and unused, or a new one. */
int sm_vm_channel(sm_vm *vm, struct sm_channel *channel, sm_error *err);

/* One request of the agent's that is answered with `answer`, decoded to *to (NULL with OK). Its
 * connection is closed then, and what the answer points to is gone with it: who reads texts or
 * bytes of an answer asks on a channel of his own. */
int sm_vm_ask(sm_vm *vm, enum sm_wire_type type, const void *message, enum sm_wire_type answer,
    void *to, struct sm_wait *wait, sm_error *err);

/* Asks the guest to power off; one that has not when the wait is over, or whose wait is over from
 * the beginning, is killed. */
void sm_vm_power_off(sm_vm *vm, struct sm_wait *wait);

/* All vCPUs stop; or go on. As sm_vm_pause and sm_vm_resume of the public API. */
int sm_vm_halt(sm_vm *vm, sm_error *err);
int sm_vm_go_on(sm_vm *vm, sm_error *err);

/* The user's processes stop. They must not run on in a copy of the guest before its clock,
 * randomness and identity are new; a restore lets them go on then, thaw does here. After a freeze
 * that failed nothing is to be thawed: the guest may have done it, and only the answer was late, so
 * it is told at once to undo it. */
int sm_vm_freeze(sm_vm *vm, sm_error *err);
int sm_vm_thaw(sm_vm *vm, sm_error *err);
/* After a failure: the guest may be what hangs, and is not waited for all over again. */
void sm_vm_thaw_shortly(sm_vm *vm);

/* The running service's pid, for whom takes it first; 0: there is none. */
uint32_t sm_vm_take_service(sm_vm *vm);
/* Who took it could not use it. */
void sm_vm_put_service(sm_vm *vm, uint32_t pid);

/* The VM's command is its service, or else the first one that was started and still runs. */
void sm_vm_add_command(sm_vm *vm, sm_exec *exec, bool is_service);
void sm_vm_drop_command(sm_vm *vm, const sm_exec *exec);
/* Its pid, what it is told to stop by, and whether it has a terminal; 0: none runs. */
uint32_t sm_vm_command(sm_vm *vm, int *stop_signal, bool *terminal);
/* It has a command of its own that nobody has taken: whose pid is not known yet. */
bool sm_vm_awaits_taking(sm_vm *vm);

#endif
