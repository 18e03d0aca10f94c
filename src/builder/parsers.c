/* Asking the parsers. See parsers.h. */
#include "builder/parsers.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "builder/digest.h"
#include "builder/parser_mains.h"
#include "rootfs/tree.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/text.h"

enum { TICK_MS = 100 };

/* ---- life ------------------------------------------------------------------------------------ */

int sm_parsers_open(uint64_t max_bytes, struct sm_parsers **out, sm_error *err)
{
    struct sm_parsers *p = calloc(1, sizeof(*p));
    if (!p)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    p->reader =
        (struct sm_parser){.who = "the process that reads archives", .main = sm_parser_reader};
    p->writer =
        (struct sm_parser){.who = "the process that writes file systems", .main = sm_parser_writer};
    p->file_limit = max_bytes > SM_ROOTFS_MAX_BYTES ? max_bytes : SM_ROOTFS_MAX_BYTES;
    /* libcrypto reads its configuration at the first sum: they could not. */
    sm_sha256_free(sm_sha256_new());
    int rc = sm_parser_start(&p->reader, p->file_limit, err);
    if (rc == 0)
        rc = sm_parser_start(&p->writer, p->file_limit, err);
    if (rc)
        sm_parsers_close(p);
    else
        *out = p;
    return rc;
}

void sm_parsers_close(struct sm_parsers *parsers)
{
    if (!parsers)
        return;
    sm_parser_stop(&parsers->reader);
    sm_parser_stop(&parsers->writer);
    free(parsers);
}

static int broke_rules(struct sm_parser *parser, sm_error *err)
{
    sm_parser_stop(parser);
    return sm_error_set(err, SM_ECORRUPT, "%s said what makes no sense", parser->who);
}

/* The next message; until then the caller is told that time passes. */
static int next(struct sm_parsers *p, struct sm_parser *parser, sm_parsers_tick_fn *tick, void *arg,
    sm_error *err)
{
    int rc;
    while ((rc = sm_parser_next(parser, tick ? TICK_MS : -1, &p->message, err)) == 0)
        if (tick)
            tick(arg);
    return rc < 0 ? rc : 0;
}

/* A message that is an end. */
static int take_end(struct sm_parsers *p, struct sm_parser *parser, sm_error *err)
{
    if (p->message.size != sizeof(struct sm_parser_end))
        return broke_rules(parser, err);
    return sm_parser_take_end((const void *)p->message.data, err);
}

/* ---- the reader ------------------------------------------------------------------------------ */

struct inflating {
    struct sm_parsers *p;
    struct sm_blob *blob;
    const struct sm_inflate_ops *ops;
    sm_parsers_tick_fn *tick;
    void *arg;
    uint64_t read; /* bytes of the blob that it says it has read */
    sm_error *err;
};

/* More of the blob, for a reader that waits. */
static int answer_wait(struct inflating *in)
{
    struct sm_parser_available there = {0};
    uint64_t have;
    memcpy(&have, in->p->message.data, sizeof(have));
    there.bytes = in->blob->size;
    int rc = 0;
    if (in->blob->wait && have < in->blob->size)
        while ((rc = in->blob->wait(in->blob, have, sm_deadline(TICK_MS), &there.bytes,
                    &there.end.err)) == -SM_ETIMEOUT)
            if (in->tick)
                in->tick(in->arg);
    there.end.rc = rc;
    return sm_parser_tell(&in->p->reader, SM_PARSER_AVAILABLE, &there, sizeof(there), NULL, 0,
        &in->p->message, in->err);
}

static int answer_read(struct inflating *in)
{
    uint64_t size;
    memcpy(&size, in->p->message.data, sizeof(size));
    if (size > in->blob->size - in->read)
        return broke_rules(&in->p->reader, in->err);
    in->read += size;
    if (in->ops->read)
        in->ops->read(in->arg, (size_t)size);
    return 0;
}

/* 1: that was the end. */
static int take_message(struct inflating *in)
{
    const struct sm_parser_message *m = &in->p->message;
    if (m->type == SM_PARSER_DATA)
        return in->ops->take(in->arg, m->data, m->size, in->err);
    if (m->type == SM_PARSER_READ && m->size == sizeof(uint64_t))
        return answer_read(in);
    if (m->type == SM_PARSER_WAIT && m->size == sizeof(uint64_t))
        return answer_wait(in);
    if (m->type != SM_PARSER_END)
        return broke_rules(&in->p->reader, in->err);
    int rc = take_end(in->p, &in->p->reader, in->err);
    return rc ? rc : 1;
}

int sm_parsers_inflate(struct sm_parsers *p, struct sm_blob *blob, const struct sm_descriptor *d,
    const struct sm_inflate_ops *ops, sm_parsers_tick_fn *tick, void *arg, sm_error *err)
{
    struct sm_parser_inflate what = {.d = *d,
        .offset = blob->offset,
        .size = blob->size,
        .checked = blob->checked,
        .grows = blob->wait != NULL};
    struct inflating in = {p, blob, ops, tick, arg, 0, err};
    int rc = sm_parser_start(&p->reader, p->file_limit, err);
    if (rc)
        return rc;
    rc = sm_parser_tell(
        &p->reader, SM_PARSER_INFLATE, &what, sizeof(what), &blob->fd, 1, &p->message, err);
    while (rc == 0 && (rc = next(p, &p->reader, tick, arg, err)) == 0)
        rc = take_message(&in);
    if (rc < 0)
        sm_parser_stop(&p->reader); /* it may still have something to say */
    return rc < 0 ? rc : 0;
}

/* A member, from the words of the reader: they are copied, and cleaned once more. */
static int add_member(struct sm_parsers *p, struct sm_tar_members *members, sm_error *err)
{
    const struct sm_parser_message *m = &p->message;
    struct sm_parser_member head;
    if (m->type != SM_PARSER_MEMBER || m->size < sizeof(head))
        return broke_rules(&p->reader, err);
    memcpy(&head, m->data, sizeof(head));
    const char *text = (const char *)m->data + sizeof(head);
    if (head.name == 0 || head.name >= SM_TREE_MAX_PATH || head.link >= SM_TREE_MAX_PATH ||
        m->size != sizeof(head) + head.name + head.link)
        return broke_rules(&p->reader, err);
    struct sm_tar_member member = {
        .name = strndup(text, head.name),
        .link = head.link ? strndup(text + head.name, head.link) : NULL,
        .offset = head.offset,
        .size = head.size,
    };
    if (member.name)
        sm_path_clean(member.name);
    if (member.link)
        sm_path_clean(member.link);
    if (member.name && (member.link || !head.link))
        return sm_tar_members_add(members, &member, err);
    free(member.name);
    free(member.link);
    return sm_error_set(err, SM_ENOMEM, "out of memory");
}

int sm_parsers_index(
    struct sm_parsers *p, int fd, int tmp, struct sm_tar_members *members, sm_error *err)
{
    const int fds[] = {fd, tmp};
    int rc = sm_parser_start(&p->reader, p->file_limit, err);
    if (rc == 0)
        rc = sm_parser_tell(
            &p->reader, SM_PARSER_INDEX, NULL, 0, fds, tmp < 0 ? 1 : 2, &p->message, err);
    if (rc)
        return rc;
    while ((rc = next(p, &p->reader, NULL, NULL, err)) == 0 && p->message.type != SM_PARSER_END)
        if ((rc = add_member(p, members, err)))
            break;
    if (rc == 0)
        rc = take_end(p, &p->reader, err);
    if (rc)
        sm_parser_stop(&p->reader);
    sm_tar_members_sort(members);
    return rc;
}

/* ---- the writer ------------------------------------------------------------------------------ */

static int send_writer(struct sm_parsers *p, uint32_t type, const void *data, size_t size,
    const int *fds, unsigned n_fds, sm_error *err)
{
    return sm_parser_tell(&p->writer, type, data, size, fds, n_fds, &p->message, err);
}

/* What became of what it was told. */
static int wait_for_writer(struct sm_parsers *p, sm_parsers_tick_fn *tick, void *arg, sm_error *err)
{
    int rc = next(p, &p->writer, tick, arg, err);
    if (rc == 0 && p->message.type != SM_PARSER_END)
        return broke_rules(&p->writer, err);
    if (rc == 0)
        rc = take_end(p, &p->writer, err);
    if (rc)
        sm_parser_stop(&p->writer);
    return rc;
}

int sm_parsers_begin(
    struct sm_parsers *p, int fd, const struct sm_rootfs_limits *limits, sm_error *err)
{
    int rc = sm_parser_start(&p->writer, p->file_limit, err);
    if (rc == 0)
        rc = send_writer(p, SM_PARSER_BEGIN, limits, sizeof(*limits), &fd, 1, err);
    return rc ? rc : wait_for_writer(p, NULL, NULL, err);
}

int sm_parsers_layer(struct sm_parsers *p, sm_error *err)
{
    return send_writer(p, SM_PARSER_LAYER, NULL, 0, NULL, 0, err);
}

int sm_parsers_give(struct sm_parsers *p, const void *data, size_t size, sm_error *err)
{
    return send_writer(p, SM_PARSER_DATA, data, size, NULL, 0, err);
}

int sm_parsers_layer_end(struct sm_parsers *p, sm_parsers_tick_fn *tick, void *arg, sm_error *err)
{
    int rc = send_writer(p, SM_PARSER_LAYER_END, NULL, 0, NULL, 0, err);
    return rc ? rc : wait_for_writer(p, tick, arg, err);
}

int sm_parsers_finish(struct sm_parsers *p, const unsigned char id[32], sm_error *err)
{
    int rc = send_writer(p, SM_PARSER_FINISH, id, 32, NULL, 0, err);
    if (rc == 0)
        rc = wait_for_writer(p, NULL, NULL, err);
    sm_parser_stop(&p->writer);
    return rc;
}
