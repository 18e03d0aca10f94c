/* Frames over a socket. See frame_socket.h. */
#include "net/frame_socket.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "net/frame.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

#define SLOTS 8  /* frames that one call receives */
#define BATCH 64 /* frames before the loop gets its turn; frames that are gathered */
/* What costs less to copy than a call of its own. */
#define SMALL 4096
/* Which the kernel doubles for its own part: some fifteen of the largest records in flight. Who has
 * no privileges gets at most net.core.wmem_max, doubled, with which there are six. */
#define SEND_BUFFER (1 << 19)

#define SMALLEST_RECORD (SM_NET_HDR + SM_ETH_HEADER)
#define LARGEST_RECORD  (SM_NET_HDR + SM_NET_MAX_FRAME)

struct control {
    uint32_t kind, number;
    uint64_t features;
};
_Static_assert(sizeof(struct control) < SMALLEST_RECORD, "a control record is no frame");

struct slot {
    struct virtio_net_hdr_v1 hdr;
    uint8_t frame[SM_NET_MAX_FRAME + 1]; /* one more: a record that is too long */
};
_Static_assert(offsetof(struct slot, frame) == SM_NET_HDR, "a record is read into a slot");

struct sm_frame_socket {
    int fd;
    struct sm_loop_watch *watch;
    uint32_t interest;
    const struct sm_frame_socket_user *user;
    void *arg;

    bool full; /* the kernel takes no more now */
    bool mute; /* the other end is gone, or going: what is put is lost */
    unsigned n_out, out_sent;
    size_t out_used;
    struct iovec out_iov[BATCH];
    struct mmsghdr out_msgs[BATCH];

    bool held; /* a frame was refused */
    unsigned n_in, next_in;
    struct iovec in_iov[SLOTS];
    struct mmsghdr in_msgs[SLOTS];

    uint8_t out[16 * SMALL];
    struct slot in[SLOTS];
};

static void set_interest(struct sm_frame_socket *s, uint32_t interest)
{
    if (s->interest != interest)
        sm_loop_modify(s->watch, interest);
    s->interest = interest;
}

/* ---- out ------------------------------------------------------------------------------------- */

static void drop_out(struct sm_frame_socket *s)
{
    s->n_out = s->out_sent = 0;
    s->out_used = 0;
}

/* What a failed send means for the record at hand. True: it is done with, lost. */
static bool is_lost(struct sm_frame_socket *s)
{
    if (errno == EAGAIN) {
        s->full = true;
        set_interest(s, s->interest | SM_LOOP_OUT);
        return false;
    }
    if (errno != EMSGSIZE && errno != ENOBUFS && errno != ENOMEM && errno != EFAULT &&
        errno != EINTR)
        s->mute = true; /* the loop tells of the end */
    return errno != EINTR;
}

/* False: something is left. */
static bool flush(struct sm_frame_socket *s)
{
    while (s->out_sent < s->n_out && !s->full && !s->mute) {
        int n = sendmmsg(
            s->fd, s->out_msgs + s->out_sent, s->n_out - s->out_sent, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n > 0)
            s->out_sent += (unsigned)n;
        else if (is_lost(s))
            s->out_sent++;
    }
    if (s->out_sent < s->n_out && !s->mute)
        return false;
    drop_out(s);
    return true;
}

static bool send_at_once(struct sm_frame_socket *s, const struct virtio_net_hdr_v1 *hdr,
    const struct iovec *pieces, unsigned n)
{
    struct virtio_net_hdr_v1 raw = *hdr; /* iovec is not const */
    struct iovec iov[1 + SM_NET_MAX_PIECES] = {{.iov_base = &raw, .iov_len = sizeof(raw)}};
    memcpy(iov + 1, pieces, n * sizeof(*pieces));
    struct mmsghdr msg = {.msg_hdr = {.msg_iov = iov, .msg_iovlen = 1 + n}};
    while (sendmmsg(s->fd, &msg, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
        if (is_lost(s))
            break;
        if (s->full)
            return false;
    }
    return true;
}

static void gather(struct sm_frame_socket *s, const void *head, size_t head_len,
    const struct iovec *pieces, unsigned n)
{
    uint8_t *begin = s->out + s->out_used, *to = mempcpy(begin, head, head_len);
    for (unsigned i = 0; i < n; i++)
        to = mempcpy(to, pieces[i].iov_base, pieces[i].iov_len);
    s->out_iov[s->n_out] = (struct iovec){.iov_base = begin, .iov_len = (size_t)(to - begin)};
    s->out_used += s->out_iov[s->n_out].iov_len;
    s->n_out++;
}

bool sm_frame_socket_put_pieces(struct sm_frame_socket *s, const struct virtio_net_hdr_v1 *hdr,
    const struct iovec *pieces, unsigned n, size_t len)
{
    if (s->mute || len < SM_ETH_HEADER || len > SM_NET_MAX_FRAME)
        return true;
    if (s->full)
        return false;
    if (SM_NET_HDR + len > SMALL)
        return flush(s) && send_at_once(s, hdr, pieces, n);
    if ((s->n_out == BATCH || s->out_used + SM_NET_HDR + len > sizeof(s->out)) && !flush(s))
        return false;
    gather(s, hdr, sizeof(*hdr), pieces, n);
    return true;
}

bool sm_frame_socket_put(
    struct sm_frame_socket *s, const struct virtio_net_hdr_v1 *hdr, const void *frame, size_t len)
{
    const struct iovec piece = {.iov_base = (void *)(uintptr_t)frame, .iov_len = len};
    return sm_frame_socket_put_pieces(s, hdr, &piece, 1, len);
}

void sm_frame_socket_flush(struct sm_frame_socket *s)
{
    (void)flush(s);
}

void sm_frame_socket_control(
    struct sm_frame_socket *s, enum sm_frame_control kind, uint32_t number, uint64_t features)
{
    const struct control control = {.kind = kind, .number = number, .features = features};
    drop_out(s);
    gather(s, &control, sizeof(control), NULL, 0);
}

/* ---- in -------------------------------------------------------------------------------------- */

enum got { GOT_RECORDS, GOT_NOTHING, GOT_END };

/* The next records into the slots, which are empty. */
static enum got fill(struct sm_frame_socket *s)
{
    s->n_in = s->next_in = 0;
    int n = recvmmsg(s->fd, s->in_msgs, SLOTS, MSG_DONTWAIT, NULL);
    if (n < 0) /* ECONNRESET: closed with records of ours unread; its own come first */
        return errno == EAGAIN || errno == EINTR || errno == ECONNRESET ? GOT_NOTHING : GOT_END;
    s->n_in = (unsigned)n;
    return n > 0 ? GOT_RECORDS : GOT_NOTHING;
}

static bool take_control(struct sm_frame_socket *s, const struct slot *slot, size_t len)
{
    struct control control;
    if (len != sizeof(control))
        return false;
    memcpy(&control, slot, sizeof(control));
    return (control.kind == SM_FRAME_CONFIGURE || control.kind == SM_FRAME_CONFIGURED) &&
           s->user->control(s->arg, control.kind, control.number, control.features);
}

enum taken { TAKEN, REFUSED, NONSENSE };

/* A record of no length is how the end of the socket reads. */
static enum taken take(struct sm_frame_socket *s, struct slot *slot, size_t len)
{
    if (len < SMALLEST_RECORD)
        return take_control(s, slot, len) ? TAKEN : NONSENSE;
    if (len > LARGEST_RECORD)
        return NONSENSE;
    return s->user->frame(s->arg, &slot->hdr, slot->frame, len - SM_NET_HDR) ? TAKEN : REFUSED;
}

/* Gives what is in the slots. False: nonsense, or the end. */
static bool give(struct sm_frame_socket *s)
{
    while (s->next_in < s->n_in) {
        switch (take(s, &s->in[s->next_in], s->in_msgs[s->next_in].msg_len)) {
        case TAKEN:
            s->next_in++;
            break;
        case REFUSED:
            s->held = true;
            return true;
        case NONSENSE:
            return false;
        }
    }
    return true;
}

static void end(struct sm_frame_socket *s)
{
    sm_loop_remove(s->watch);
    s->watch = NULL;
    s->mute = true;
    s->n_in = s->next_in = 0;
    drop_out(s);
    s->user->gone(s->arg);
}

/* At most a batch: what is left is seen in the loop's next round. */
static void pull(struct sm_frame_socket *s)
{
    bool fine = give(s);
    enum got got = GOT_RECORDS;
    for (unsigned n = 0; fine && !s->held && n < BATCH; n += SLOTS) {
        got = fill(s);
        if (got != GOT_RECORDS)
            break;
        fine = give(s);
        if (s->n_in < SLOTS) /* that was all */
            break;
    }
    s->user->received(s->arg);
    if (!fine || got == GOT_END)
        end(s);
    else
        set_interest(s, (s->interest & SM_LOOP_OUT) | (s->held ? 0 : SM_LOOP_IN));
}

void sm_frame_socket_resume(struct sm_frame_socket *s)
{
    if (!s->held || s->mute)
        return;
    s->held = false;
    pull(s);
}

void sm_frame_socket_forget(struct sm_frame_socket *s)
{
    s->n_in = s->next_in = 0;
    s->held = false;
    if (s->watch)
        set_interest(s, s->interest | SM_LOOP_IN);
}

static void on_event(void *arg, uint32_t events)
{
    struct sm_frame_socket *s = arg;
    bool over = events & (SM_LOOP_ERR | SM_LOOP_HUP);
    if (over && s->held) { /* nobody is there whom to keep waiting */
        end(s);
        return;
    }
    if ((events & SM_LOOP_OUT) && s->full) {
        s->full = false;
        set_interest(s, s->interest & ~SM_LOOP_OUT);
        if (flush(s))
            s->user->room(s->arg);
    }
    if (s->watch && (over || (events & SM_LOOP_IN)))
        pull(s);
}

/* ---- life ------------------------------------------------------------------------------------ */

int sm_frame_socket_pair(int ends[2], sm_error *err)
{
    int pair[2];
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, pair) != 0)
        return sm_error_errno(err, errno, "cannot make a socket for the network card");
    for (int i = 0; i < 2; i++) {
        const int size = SEND_BUFFER; /* a hint: with less there is more waiting */
        if (setsockopt(pair[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)) != 0)
            (void)setsockopt(pair[i], SOL_SOCKET, SO_SNDBUF, &size, sizeof(size));
        ends[i] = pair[i];
    }
    return 0;
}

int sm_frame_socket_create(struct sm_loop *loop, int fd, const struct sm_frame_socket_user *user,
    void *arg, struct sm_frame_socket **socket, sm_error *err)
{
    auto_free struct sm_frame_socket *s = malloc(sizeof(*s));
    if (!s)
        return sm_error_set(err, SM_ENOMEM, "no memory for the network card's socket");
    memset(s, 0, offsetof(struct sm_frame_socket, out)); /* the rest is filled before it is read */
    s->fd = fd;
    s->user = user;
    s->arg = arg;
    s->interest = SM_LOOP_IN;
    for (unsigned i = 0; i < BATCH; i++)
        s->out_msgs[i].msg_hdr = (struct msghdr){.msg_iov = &s->out_iov[i], .msg_iovlen = 1};
    for (unsigned i = 0; i < SLOTS; i++) {
        s->in_iov[i] = (struct iovec){.iov_base = &s->in[i], .iov_len = LARGEST_RECORD + 1};
        s->in_msgs[i].msg_hdr = (struct msghdr){.msg_iov = &s->in_iov[i], .msg_iovlen = 1};
    }
    int rc = sm_loop_add(loop, fd, s->interest, on_event, s, &s->watch, err);
    if (!rc)
        *socket = sm_steal_ptr(&s);
    return rc;
}

void sm_frame_socket_destroy(struct sm_frame_socket *s)
{
    if (!s)
        return;
    sm_loop_remove(s->watch);
    sm_close(s->fd);
    free(s);
}
