/*
 * What is said first to the agent of a guest that has come up. Before anything of the user's runs
 * the guest gets the host's clock, entropy, a host name and a machine id of its own; if one of
 * these fails, so does the start.
 */
#ifndef SM_VM_AGENT_GREETING_H
#define SM_VM_AGENT_GREETING_H

#include "vm/agent/channel.h"

/* Of a boot: the agent speaks our version of the protocol. */
int sm_agent_greet(struct sm_channel *channel, struct sm_wait *wait, sm_error *err);

struct sm_agent_identity {
    const char *hostname;
    uint32_t attach_pid;                       /* of the command that will be asked for; 0: none */
    const struct sm_wire_set_network *network; /* NULL: the card is as it must be */

    /* A request that goes out behind all of this in the same write, so that the agent does it as
     * soon as it may; its answer is left on the channel. NULL: none. */
    const void *request;
    enum sm_wire_type request_type;
};

/* All in one write, the network card first. SM_ELIMIT: the request is too long. */
int sm_agent_personalise(struct sm_channel *channel, const struct sm_agent_identity *identity,
    struct sm_wait *wait, sm_error *err);

#endif
