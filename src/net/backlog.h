/*
 * Frames that wait for the guest's receive buffers: what a network that ends in this process has
 * made, and cannot make again. They are kept in order and bounded by their bytes; beyond the bound
 * frames are dropped, as networks do.
 *
 * Threads: the loop's alone.
 */
#ifndef SM_NET_BACKLOG_H
#define SM_NET_BACKLOG_H

#include "devices/virtio_net.h"

struct sm_waiting_frame;

struct sm_backlog {
    struct sm_waiting_frame *first, **end;
    size_t bytes, max_bytes;
};

void sm_backlog_init(struct sm_backlog *backlog, size_t max_bytes);
/* Gives the frame to the guest, behind those that wait. False: there is no room for it. */
bool sm_backlog_deliver(struct sm_backlog *backlog, struct sm_net_card *card,
    const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len);
/* There are receive buffers again. */
void sm_backlog_resume(struct sm_backlog *backlog, struct sm_net_card *card);
void sm_backlog_clear(struct sm_backlog *backlog);

#endif
