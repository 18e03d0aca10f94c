/* What the reader does: see parser.h. It believes the program, and nobody else. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "builder/inflate.h"
#include "builder/parser.h"
#include "builder/parser_mains.h"
#include "builder/tar_index.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"

struct reader {
    int socket;
    bool gone; /* nobody listens any more */
    struct sm_parser_message message;
};

static void tell(struct reader *r, uint32_t type, const void *data, size_t size)
{
    r->gone = r->gone || sm_parser_send(r->socket, type, data, size, NULL, 0) < 0;
}

/* ---- a layer --------------------------------------------------------------------------------- */

static void was_read(void *arg, size_t size)
{
    uint64_t bytes = size;
    tell(arg, SM_PARSER_READ, &bytes, sizeof(bytes));
}

static int take(void *arg, const void *data, size_t size, sm_error *err)
{
    struct reader *r = arg;
    for (const char *from = data; size > 0 && !r->gone;) {
        size_t n = SM_MIN(size, (size_t)SM_PARSER_MOST);
        tell(r, SM_PARSER_DATA, from, n);
        from += n;
        size -= n;
    }
    return r->gone ? sm_error_set(err, SM_ECANCELLED, "nobody listens") : 0;
}

/* Asks for more of a blob that grows. */
static int wait_for_more(
    struct sm_blob *blob, uint64_t have, int64_t deadline, uint64_t *available, sm_error *err)
{
    struct reader *r = *(struct reader **)blob->arg;
    struct sm_parser_available there;
    tell(r, SM_PARSER_WAIT, &have, sizeof(have));
    if (r->gone || sm_parser_receive(r->socket, SM_NO_DEADLINE, &r->message) <= 0 ||
        r->message.type != SM_PARSER_AVAILABLE || r->message.size != sizeof(there))
        return sm_error_set(err, SM_ECANCELLED, "nobody answers");
    memcpy(&there, r->message.data, sizeof(there));
    *available = there.bytes;
    return sm_parser_take_end(&there.end, err);
}

static void inflate(struct reader *r)
{
    static const struct sm_inflate_ops ops = {.read = was_read, .take = take};
    struct sm_parser_inflate what;
    sm_error err = {0};
    memcpy(&what, r->message.data, sizeof(what));
    auto_blob blob = {.fd = sm_steal_fd(&r->message.fds[0]),
        .offset = what.offset,
        .size = what.size,
        .checked = what.checked,
        .wait = what.grows ? wait_for_more : NULL};
    struct reader **me = malloc(sizeof(struct reader *));
    blob.arg = me;
    int rc = me ? 0 : sm_error_set(&err, SM_ENOMEM, "out of memory");
    if (rc == 0) {
        *me = r;
        rc = sm_inflate(&blob, &what.d, &ops, r, &err);
    }
    r->gone = r->gone || sm_parser_send_end(r->socket, rc, &err) < 0;
}

/* ---- an archive ------------------------------------------------------------------------------ */

static void tell_member(struct reader *r, const struct sm_tar_member *m)
{
    struct sm_parser_member head = {
        m->offset, m->size, (uint32_t)strlen(m->name), m->link ? (uint32_t)strlen(m->link) : 0};
    char *at = (char *)r->message.data;
    memcpy(at, &head, sizeof(head));
    memcpy(at + sizeof(head), m->name, head.name);
    if (m->link)
        memcpy(at + sizeof(head) + head.name, m->link, head.link);
    tell(r, SM_PARSER_MEMBER, at, sizeof(head) + head.name + head.link);
}

static void index_archive(struct reader *r)
{
    sm_error err = {0};
    struct sm_tar_members members = {0};
    auto_fd fd = sm_steal_fd(&r->message.fds[0]);
    auto_fd tmp = sm_steal_fd(&r->message.fds[1]);
    int rc = tmp < 0 ? 0 : sm_tar_unpack(fd, tmp, &err);
    if (rc == 0)
        rc = sm_tar_index(tmp < 0 ? fd : tmp, &members, &err);
    for (size_t i = 0; rc == 0 && i < members.count; i++)
        tell_member(r, &members.items[i]);
    sm_tar_members_clear(&members);
    r->gone = r->gone || sm_parser_send_end(r->socket, rc, &err) < 0;
}

void sm_parser_reader(int socket)
{
    struct reader *r = calloc(1, sizeof(*r));
    if (!r)
        return;
    r->socket = socket;
    while (!r->gone && sm_parser_receive(socket, SM_NO_DEADLINE, &r->message) > 0) {
        if (r->message.type == SM_PARSER_INFLATE &&
            r->message.size == sizeof(struct sm_parser_inflate))
            inflate(r);
        else if (r->message.type == SM_PARSER_INDEX)
            index_archive(r);
        else
            break;
    }
    free(r);
}
