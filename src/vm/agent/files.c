/* Files over a connection to the agent. See files.h. */
#include "vm/agent/files.h"

#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/error.h"
#include "util/guest_wait.h"

/* A gigabyte may take hours where the guest kernel is emulated; what does not move at all must not:
 * each frame has the time that an answer has. */
static struct sm_wait *next_step(struct sm_guest_wait *w, const struct sm_channel *channel)
{
    sm_guest_wait_begin(w, sm_channel_clock(channel), SM_AGENT_TIMEOUT_MS);
    return &w->wait;
}

int sm_agent_check_path(const char *path, sm_error *err)
{
    if (*path != '/' || strlen(path) > SM_WIRE_MAX_PATH)
        return sm_error_set(err, SM_EINVAL, "'%.256s' is no absolute path of at most %u bytes",
            path, SM_WIRE_MAX_PATH);
    return 0;
}

int sm_agent_put_file(struct sm_channel *channel, const struct sm_wire_write_file *request,
    const uint8_t *data, sm_error *err)
{
    struct sm_guest_wait wait;
    uint8_t frame[SM_WIRE_MAX_PATH + 64];
    struct sm_wire_writer w = {.buf = frame, .cap = sizeof(frame)};
    sm_wire_put_write_file(&w, request);
    int rc = sm_channel_send(channel, frame, w.len, next_step(&wait, channel), err);
    for (size_t done = 0; !rc && done < request->size;) {
        uint8_t header[SM_WIRE_HEADER];
        size_t n = SM_MIN(request->size - done, (size_t)SM_WIRE_MAX_DATA);
        sm_wire_data_header(header, SM_WIRE_DATA, (uint32_t)n);
        rc = sm_channel_send(channel, header, sizeof(header), next_step(&wait, channel), err);
        if (!rc)
            rc = sm_channel_send(channel, data + done, n, &wait.wait, err);
        done += n;
    }
    /* An agent that refuses says so and closes: its answer tells more than the failed write. */
    sm_error answer;
    int answered = sm_channel_expect(channel, SM_WIRE_OK, NULL, next_step(&wait, channel), &answer);
    if (answered && (!rc || answer.code != SM_EGUEST)) {
        if (err)
            *err = answer;
        return answered;
    }
    return rc;
}

struct contents {
    uint8_t *data;
    size_t size, cap;
};

/* Grows by doubling, so that a guest which promises much and sends little costs little. */
static int append(struct contents *c, const struct sm_wire_frame *frame, size_t max, sm_error *err)
{
    if (frame->len > max - c->size)
        return sm_error_set(err, SM_ELIMIT, "it is larger than %zu bytes", max);
    if (c->size + frame->len > c->cap) {
        size_t cap = SM_MAX(2 * c->cap, c->size + frame->len);
        uint8_t *data = realloc(c->data, cap);
        if (!data)
            return sm_error_set(err, SM_ENOMEM, "no memory for it");
        c->data = data;
        c->cap = cap;
    }
    memcpy(c->data + c->size, frame->payload, frame->len);
    c->size += frame->len;
    return 0;
}

static int receive_file(struct sm_channel *channel, const struct sm_wire_read_file *request,
    struct contents *c, sm_error *err)
{
    struct sm_guest_wait wait;
    uint8_t out[SM_WIRE_MAX_PATH + 64];
    struct sm_wire_writer w = {.buf = out, .cap = sizeof(out)};
    sm_wire_put_read_file(&w, request);
    int rc = sm_channel_send(channel, out, w.len, next_step(&wait, channel), err);
    struct sm_wire_file file;
    if (!rc)
        rc = sm_channel_expect(channel, SM_WIRE_FILE, &file, &wait.wait, err);
    while (!rc) {
        struct sm_wire_frame frame;
        rc = sm_channel_next(channel, &frame, next_step(&wait, channel), err);
        if (rc || (frame.type == SM_WIRE_OK && frame.len == 0))
            return rc;
        rc = frame.type == SM_WIRE_DATA ? append(c, &frame, request->max, err)
                                        : sm_channel_refused(&frame, err);
    }
    return rc;
}

int sm_agent_get_file(struct sm_channel *channel, const struct sm_wire_read_file *request,
    void **data, size_t *size, sm_error *err)
{
    struct contents c = {.data = malloc(1), .cap = 1};
    if (!c.data)
        return sm_error_set(err, SM_ENOMEM, "no memory for it");
    int rc = receive_file(channel, request, &c, err);
    if (rc) {
        free(c.data);
        return rc;
    }
    *data = c.data;
    *size = c.size;
    return 0;
}
