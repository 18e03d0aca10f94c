/* A connection to the agent. See channel.h. */
#include "vm/agent/channel.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util/cleanup.h"
#include "util/error.h"
#include "util/text.h"
#include "util/wait.h"
#include "vm/engine.h"

/* How long a lost connection waits for the machine's own end, which tells the reason. */
#define END_WAIT_MS 1000

int sm_channel_init(struct sm_channel *channel, int fd, struct sm_engine *engine, sm_error *err)
{
    int flags = fcntl(fd, F_GETFL);
    uint8_t *in = malloc(SM_CHANNEL_BUFFER);
    if (!in || flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK)) {
        int rc = in ? sm_error_errno(err, errno, "cannot set up the connection to the agent")
                    : sm_error_set(err, SM_ENOMEM, "no memory for a connection to the agent");
        free(in);
        sm_close(fd);
        return rc;
    }
    *channel = (struct sm_channel){.fd = fd, .engine = engine, .in = in};
    return 0;
}

int sm_channel_connect(struct sm_channel *channel, struct sm_engine *engine, sm_error *err)
{
    int fd;
    sm_error why;
    int rc = sm_engine_connect(engine, SM_WIRE_PORT, &fd, &why);
    if (rc) {
        struct sm_wait now = sm_wait_ms(0);
        if (sm_engine_wait(engine, &now, NULL, err) == 0)
            return -SM_EGUEST;
        return sm_error_set(err, why.code, "cannot reach the agent in the VM: %s", why.message);
    }
    return sm_channel_init(channel, fd, engine, err);
}

void sm_channel_close(struct sm_channel *channel)
{
    if (channel->in) {
        sm_close(channel->fd);
        free(channel->in);
    }
    *channel = (struct sm_channel){.fd = -1};
}

const struct sm_guest_clock *sm_channel_clock(const struct sm_channel *channel)
{
    return sm_engine_clock(channel->engine);
}

int sm_channel_lost(const struct sm_channel *channel, sm_error *err)
{
    struct sm_wait wait = sm_wait_ms(END_WAIT_MS);
    if (channel->engine && sm_engine_wait(channel->engine, &wait, NULL, err) == 0)
        return -SM_EGUEST;
    if (channel->engine && sm_engine_has_halted(channel->engine))
        return sm_error_set(err, SM_EGUEST, "the guest halted");
    return sm_error_set(err, SM_EGUEST, "the agent in the VM closed the connection");
}

int sm_channel_refused(const struct sm_wire_frame *frame, sm_error *err)
{
    static const enum sm_code codes[] = {
        [SM_WIRE_E_INTERNAL] = SM_EGUEST,
        [SM_WIRE_E_PROTOCOL] = SM_EPROTOCOL,
        [SM_WIRE_E_NOT_FOUND] = SM_ENOTFOUND,
        [SM_WIRE_E_CANNOT_EXEC] = SM_ENOEXEC,
        [SM_WIRE_E_NO_USER] = SM_EINVAL,
        [SM_WIRE_E_BAD_CWD] = SM_EINVAL,
        [SM_WIRE_E_TOO_BIG] = SM_ELIMIT,
        [SM_WIRE_E_TIMEOUT] = SM_ETIMEOUT,
        [SM_WIRE_E_BAD_VALUE] = SM_EINVAL,
        [SM_WIRE_E_NO_PROCESS] = SM_ENOTFOUND,
    };
    struct sm_wire_error e;
    if (!sm_wire_get_error(frame, &e))
        return sm_error_set(err, SM_EPROTOCOL, "the agent in the VM sent %s where it must not",
            sm_wire_type_name(frame->type));
    char text[SM_WIRE_MAX_MESSAGE + 1];
    snprintf(text, sizeof(text), "%s", e.message);
    sm_text_clean(text, false); /* the guest wrote it */
    enum sm_code code = e.kind < sizeof(codes) / sizeof(codes[0]) ? codes[e.kind] : SM_OK;
    /* "not there" says itself that it is; otherwise the reason is what the kernel said. */
    const char *why = code != SM_ENOTFOUND && e.errnum > 0 ? strerrordesc_np(e.errnum) : NULL;
    return sm_error_set(
        err, code ? code : SM_EGUEST, "%s%s%s", text, why ? ": " : "", why ? why : "");
}

int sm_channel_parse(struct sm_channel *channel, struct sm_wire_frame *frame, sm_error *err)
{
    int rc = sm_wire_parse(channel->in + channel->begin, channel->end - channel->begin, frame);
    if (rc == 0 && channel->end - channel->begin >= SM_WIRE_HEADER &&
        frame->len > SM_CHANNEL_BUFFER - SM_WIRE_HEADER)
        rc = -1; /* of a type that is valid, but longer than what an agent may send */
    if (rc < 0)
        return sm_error_set(err, SM_EPROTOCOL, "the agent in the VM sent what is no message");
    if (rc > 0)
        channel->begin += SM_WIRE_HEADER + frame->len;
    return rc;
}

int sm_channel_fill(struct sm_channel *channel, sm_error *err)
{
    if (channel->begin == channel->end) {
        channel->begin = channel->end = 0;
    } else if (channel->begin) {
        channel->end -= channel->begin;
        memmove(channel->in, channel->in + channel->begin, channel->end);
        channel->begin = 0;
    }
    for (;;) {
        ssize_t n =
            recv(channel->fd, channel->in + channel->end, SM_CHANNEL_BUFFER - channel->end, 0);
        if (n > 0) {
            channel->end += (size_t)n;
            return 1;
        }
        if (n == 0 || errno == ECONNRESET)
            return 0;
        if (errno == EAGAIN)
            return 1;
        if (errno != EINTR)
            return sm_error_errno(err, errno, "cannot read from the agent");
    }
}

/* Waits until the channel can be read or written. */
static int wait_for(struct sm_channel *channel, short events, struct sm_wait *wait, sm_error *err)
{
    for (;;) {
        struct pollfd fds[2] = {
            {.fd = channel->fd, .events = events},
            {.fd = channel->engine ? sm_engine_end_fd(channel->engine) : -1, .events = POLLIN},
        };
        int n = poll(fds, 2, sm_wait_slice(wait));
        if (n < 0 && errno != EINTR)
            return sm_error_errno(err, errno, "cannot wait for the agent");
        if (n > 0 && fds[0].revents)
            return 0;
        if (n > 0)
            return sm_channel_lost(channel, err);
        if (n == 0 && sm_wait_over(wait))
            return sm_wait_failed(wait, err, "the agent in the VM did not answer");
    }
}

int sm_channel_send(
    struct sm_channel *channel, const void *data, size_t size, struct sm_wait *wait, sm_error *err)
{
    const uint8_t *p = data;
    while (size) {
        ssize_t n = send(channel->fd, p, size, MSG_NOSIGNAL);
        if (n >= 0) {
            p += n;
            size -= (size_t)n;
        } else if (errno == EAGAIN) {
            int rc = wait_for(channel, POLLOUT, wait, err);
            if (rc)
                return rc;
        } else if (errno == EPIPE || errno == ECONNRESET) {
            return sm_channel_lost(channel, err);
        } else if (errno != EINTR) {
            return sm_error_errno(err, errno, "cannot write to the agent");
        }
    }
    return 0;
}

int sm_channel_send_message(struct sm_channel *channel, enum sm_wire_type type, const void *message,
    struct sm_wait *wait, sm_error *err)
{
    struct sm_wire_writer w = {0};
    sm_wire_put(&w, type, message);
    if (w.failed || w.len > SM_WIRE_HEADER + SM_WIRE_MAX_PAYLOAD)
        return sm_error_set(err, SM_ELIMIT, "a message to the agent in the VM has at most %u bytes",
            SM_WIRE_MAX_PAYLOAD);
    auto_free uint8_t *frame = malloc(w.len);
    if (!frame)
        return sm_error_set(err, SM_ENOMEM, "no memory for a message to the agent");
    w = (struct sm_wire_writer){.buf = frame, .cap = w.len};
    sm_wire_put(&w, type, message);
    return sm_channel_send(channel, frame, w.len, wait, err);
}

int sm_channel_next(
    struct sm_channel *channel, struct sm_wire_frame *frame, struct sm_wait *wait, sm_error *err)
{
    for (;;) {
        int rc = sm_channel_parse(channel, frame, err);
        if (rc)
            return rc < 0 ? rc : 0;
        rc = wait_for(channel, POLLIN, wait, err);
        if (rc)
            return rc;
        rc = sm_channel_fill(channel, err);
        if (rc <= 0)
            return rc ? rc : sm_channel_lost(channel, err);
    }
}

int sm_channel_expect(struct sm_channel *channel, enum sm_wire_type type, void *message,
    struct sm_wait *wait, sm_error *err)
{
    struct sm_wire_frame frame;
    int rc = sm_channel_next(channel, &frame, wait, err);
    if (rc)
        return rc;
    if (frame.type == type && (message ? sm_wire_get(&frame, type, message) : frame.len == 0))
        return 0;
    return sm_channel_refused(&frame, err);
}

int sm_channel_ask(struct sm_channel *channel, enum sm_wire_type type, const void *message,
    enum sm_wire_type answer, void *to, struct sm_wait *wait, sm_error *err)
{
    int rc = sm_channel_send_message(channel, type, message, wait, err);
    return rc ? rc : sm_channel_expect(channel, answer, to, wait, err);
}
