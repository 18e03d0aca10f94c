/* What the writer does: see parser.h. It believes the program, and no byte of a layer. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "builder/parser.h"
#include "builder/parser_mains.h"
#include "rootfs/rootfs.h"
#include "util/clock.h"
#include "util/error.h"

struct writer {
    int socket;
    int fd;     /* of the image */
    bool ended; /* the layer is */
    struct sm_rootfs *rootfs;
    struct sm_rootfs_limits limits;
    struct sm_parser_message message;
};

static ssize_t next_bytes(void *arg, const void **data, sm_error *err)
{
    struct writer *w = arg;
    if (w->ended) /* who has read the end may ask once more */
        return 0;
    int rc = sm_parser_receive(w->socket, SM_NO_DEADLINE, &w->message);
    if (rc <= 0)
        return sm_error_set(err, SM_ECANCELLED, "nobody gives more of a layer");
    w->ended = w->message.type == SM_PARSER_LAYER_END;
    if (w->ended)
        return 0;
    if (w->message.type != SM_PARSER_DATA)
        return sm_error_set(err, SM_EINVAL, "a layer is not ended");
    *data = w->message.data;
    return (ssize_t)w->message.size;
}

static int begin(struct writer *w, sm_error *err)
{
    if (w->rootfs || w->message.size != sizeof(w->limits) || w->message.fds[0] < 0)
        return sm_error_set(err, SM_EINVAL, "one file system is written at a time");
    memcpy(&w->limits, w->message.data, sizeof(w->limits));
    w->fd = sm_steal_fd(&w->message.fds[0]);
    return sm_rootfs_new(w->fd, &w->limits, &w->rootfs, err);
}

static int do_message(struct writer *w, sm_error *err)
{
    unsigned char id[32];
    if (w->message.type == SM_PARSER_BEGIN)
        return begin(w, err);
    w->ended = false;
    if (w->rootfs && w->message.type == SM_PARSER_LAYER)
        return sm_rootfs_add_layer(w->rootfs, next_bytes, w, err);
    if (!w->rootfs || w->message.type != SM_PARSER_FINISH || w->message.size != sizeof(id))
        return sm_error_set(err, SM_EINVAL, "that is no message for who writes file systems");
    memcpy(id, w->message.data, sizeof(id));
    return sm_rootfs_finish(w->rootfs, id, err);
}

void sm_parser_writer(int socket)
{
    struct writer *w = calloc(1, sizeof(*w));
    int rc = 0;
    if (!w)
        return;
    w->socket = socket;
    /* After a failure nothing is read any more, so that who gives a layer does not wait. */
    while (rc == 0 && sm_parser_receive(socket, SM_NO_DEADLINE, &w->message) > 0) {
        sm_error err = {0};
        rc = do_message(w, &err);
        if (sm_parser_send_end(socket, rc, &err) < 0)
            break;
    }
    sm_rootfs_free(w->rootfs);
    free(w);
}
