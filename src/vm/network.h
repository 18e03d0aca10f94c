/*
 * The network of a VM: what the words of its configuration mean, what a snapshot adds to it, and
 * what the guest is told of it. Nothing is opened here; engine_net.c plugs the card in, ports.c
 * lets others in.
 */
#ifndef SM_VM_NETWORK_H
#define SM_VM_NETWORK_H

#include <pthread.h>

#include <supermachine.h>

#include "net/guest_net.h"
#include "net/policy.h"
#include "net/ports/found.h"
#include "net/resolv_conf.h"
#include "vm/config.h"
#include "wire/wire.h"

struct sm_snapshot; /* snapshot/snapshot.h */

enum sm_network_mode { SM_NETWORK_USER, SM_NETWORK_NONE, SM_NETWORK_TAP };

/* What the guest's resolv.conf has instead of the host's. */
struct sm_vm_resolver {
    size_t n_dns;
    struct sm_ip dns[SM_GUEST_NET_DNS];
    bool has_search, has_options; /* these are said: */
    char search[SM_RESOLV_WORDS + 1], options[SM_RESOLV_WORDS + 1];
};

/* Lives as long as the engine, which has its policy and tells its events. */
struct sm_vm_network {
    enum sm_network_mode mode;
    const char *resolv_conf; /* the host's */
    struct sm_vm_resolver resolver;
    struct sm_tap_spec tap;
    bool moved; /* the guest's card is set up for another network than the user-mode one */
    bool told;  /* its resolv.conf is another than that of a boot */
    struct sm_policy policy;   /* until the machine is there */
    struct sm_listener *known; /* what listened when the snapshot was made */
    size_t n_known;
    struct sm_vm_events events; /* its notice may be told by any thread */
    pthread_mutex_t telling;    /* of the caller, who is told one thing at a time: */
    sm_notice_fn *notice;
    void *notice_arg;
};

/* Reads and checks; nothing is opened. */
int sm_vm_network_init(struct sm_vm_network *network, const struct sm_vm_network_config *config,
    const struct sm_vm_events *events, sm_error *err);
void sm_vm_network_clear(struct sm_vm_network *network);

/* What the agent is to be told about the card before the guest's programs run: in *message, which
 * points into *text. False: nothing, it is as it must be. */
struct sm_vm_network_text {
    struct sm_guest_net net;
    char resolv_conf[SM_RESOLV_TEXT_MAX + 1];
};
bool sm_vm_network_describe(struct sm_vm_network *network, struct sm_vm_network_text *text,
    struct sm_wire_set_network *message);

/* Of the guest's card; those that are not given are all zero. */
struct sm_card_addresses sm_vm_network_card(const struct sm_vm_network *network);

/* A snapshot says what its guest was allowed at most. */
int sm_vm_network_narrow(struct sm_vm_network *network, const char *saved, sm_error *err);
/* The policy as text, malloc'ed; NULL: there is none. */
int sm_vm_network_policy(const struct sm_vm_network *network, char **text, sm_error *err);

/* Takes what listened from the snapshot's registry (registry.h). */
int sm_vm_network_remember(
    struct sm_vm_network *network, const struct sm_snapshot *snapshot, sm_error *err);

#endif
