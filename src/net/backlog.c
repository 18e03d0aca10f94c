/* Frames that wait for the guest's receive buffers. See backlog.h. */
#include "net/backlog.h"

#include <stdlib.h>
#include <string.h>

struct sm_waiting_frame {
    struct sm_waiting_frame *next;
    struct virtio_net_hdr_v1 hdr;
    size_t len;
    uint8_t frame[];
};

void sm_backlog_init(struct sm_backlog *backlog, size_t max_bytes)
{
    *backlog = (struct sm_backlog){.max_bytes = max_bytes};
    backlog->end = &backlog->first;
}

bool sm_backlog_deliver(struct sm_backlog *backlog, struct sm_net_card *card,
    const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    if (!backlog->first && sm_net_deliver(card, hdr, frame, len))
        return true;
    struct sm_waiting_frame *w =
        backlog->bytes + len <= backlog->max_bytes ? malloc(sizeof(*w) + len) : NULL;
    if (!w)
        return false;
    w->next = NULL;
    w->hdr = *hdr;
    w->len = len;
    memcpy(w->frame, frame, len);
    *backlog->end = w;
    backlog->end = &w->next;
    backlog->bytes += len + sizeof(*w);
    return true;
}

static void drop_first(struct sm_backlog *backlog)
{
    struct sm_waiting_frame *w = backlog->first;
    backlog->first = w->next;
    if (!backlog->first)
        backlog->end = &backlog->first;
    backlog->bytes -= w->len + sizeof(*w);
    free(w);
}

void sm_backlog_resume(struct sm_backlog *backlog, struct sm_net_card *card)
{
    while (backlog->first &&
           sm_net_deliver(card, &backlog->first->hdr, backlog->first->frame, backlog->first->len))
        drop_first(backlog);
}

void sm_backlog_clear(struct sm_backlog *backlog)
{
    while (backlog->first)
        drop_first(backlog);
}
