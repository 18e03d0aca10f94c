/* The network backend of `--network none`: nothing is connected, the link is down, and what the
 * guest sends is lost. The card is there all the same, so that a snapshot of a guest with any
 * network can be restored onto it. */
#ifndef SM_NET_UNPLUGGED_H
#define SM_NET_UNPLUGGED_H

#include "devices/virtio_net.h"

/* What a machine asks for its card's backend (sm_part_plug_fn): arg and loop are not needed. */
int sm_net_unplugged(
    void *arg, struct sm_loop *loop, struct sm_net_backend **backend, sm_error *err);

#endif
