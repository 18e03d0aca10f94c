/*
 * The network process of a VM ("supermachine-vm network"), as its client sees it.
 *
 * The client makes both ends of the pair that carries the card's frames. The machine's end goes to
 * the machine (net/socket_backend.h); the other one it polls itself, and only when the guest has
 * sent something does it start the process, which inherits that end, and let go of it: nobody else
 * keeps it. (On a tap others may speak first, so there the process is started at once.)
 *
 * When the process dies the machine's end is dead and frames are lost. The client makes a new pair,
 * gives the machine its new end by `replug` and waits again; the process is not started more often
 * than SM_NETWORK_STARTS_BURST at once and then once a second. Connections of the guest are
 * lost with the process, the VM is not. Where there is no new pair to be had, or the machine has
 * lost its new end, there is another attempt each second until unwatch.
 *
 * What the process says (denials, trouble) is hostile: it is checked here, bounded in number, and
 * told as notices. It asks for nothing but whether resolv.conf has changed, of which the client
 * sends the new contents.
 *
 * It ends when the machine's end is closed and what was sent is dealt with, when its client's
 * process has ended, or by SIGKILL.
 *
 * Threads: create, watch, unwatch and destroy from any; all else happens on the loop's thread.
 */
#ifndef SM_VM_NETWORK_PROCESS_H
#define SM_VM_NETWORK_PROCESS_H

#include <supermachine.h>

#include "util/loop.h"

struct sm_network_process;
struct sm_vm_network; /* vm/network.h */

#define SM_NETWORK_STARTS_BURST 5

struct sm_network_process_config {
    /* Must live as long; its policy is taken over, its events are told. Its mode is not none: then
     * there is no such process and the card is unplugged. */
    struct sm_vm_network *network;
    /* What the machine's card was plugged into is dead, this is its new end, the callee's now. On
     * the loop's thread. */
    void (*replug)(void *arg, int fd);
    void *arg;
    const char *program; /* NULL: supermachine-vm where it is installed */
};

/* Opens the tap interface where the network is one. *machine_end is the caller's: non-blocking, for
 * sm_socket_backend_create; `*speaks_first`: what that has of the same name. */
int sm_network_process_create(const struct sm_network_process_config *config, int *machine_end,
    bool *speaks_first, struct sm_network_process **process, sm_error *err);
/* From now on the guest's first frame starts it. The loop must live until destroy. */
int sm_network_process_watch(
    struct sm_network_process *process, struct sm_loop *loop, sm_error *err);
/* From now on nobody is called. Before the machine's end: the end of its process is none of the
 * network's then. NULL is fine. */
void sm_network_process_unwatch(struct sm_network_process *process);
/* Ends the process. The machine's end should have been closed before, so that what the guest has
 * sent last still leaves; this waits for that a moment at most, and tells what it said last. NULL
 * is fine. */
void sm_network_process_destroy(struct sm_network_process *process);

#endif
