/* Calls of the machine's process. See machine_call.h. */
#include "control/machine_call.h"

#include <errno.h>
#include <string.h>

#include "util/cleanup.h"
#include "util/error.h"

int sm_machine_add(struct sm_machine_message *m, const void *data, size_t bytes, sm_error *err)
{
    if (bytes > sizeof(m->body) - m->body_bytes)
        return sm_error_set(
            err, SM_ELIMIT, "a request to the machine has more than %u bytes", SM_RECORD_MAX);
    if (bytes)
        memcpy(m->body + m->body_bytes, data, bytes);
    m->body_bytes += bytes;
    return 0;
}

int sm_machine_add_text(struct sm_machine_message *m, const char *text, sm_error *err)
{
    m->request.n_texts++;
    return sm_machine_add(m, text ? text : "", text ? strlen(text) + 1 : 1, err);
}

int sm_machine_send(int socket, const struct sm_machine_message *m, sm_error *err)
{
    _Static_assert(offsetof(struct sm_machine_message, body) == sizeof(m->request), "one record");
    /* There is room: one call at a time is under way, unless nobody reads. */
    int rc = sm_record_send_now(socket, m, sizeof(m->request) + m->body_bytes, m->fds, m->n_fds);
    if (rc == -EPIPE || rc == -ECONNRESET)
        return sm_error_set(err, SM_EGUEST, "the VM's machine has ended");
    return rc ? sm_error_errno(err, -rc, "cannot ask the VM's machine") : 0;
}

int sm_machine_take(int socket, struct sm_machine_message *m, sm_error *err)
{
    m->n_fds = 0;
    ssize_t n = sm_record_take(
        socket, m, sizeof(m->request) + sizeof(m->body), m->fds, SM_RECORD_MAX_FDS, &m->n_fds);
    if (n == 0)
        return 1;
    if (n < 0)
        return sm_error_errno(err, (int)-n, "cannot read what is asked");
    if ((size_t)n < sizeof(m->request)) {
        sm_machine_message_close(m);
        return sm_error_set(err, SM_EPROTOCOL, "a request to the machine is cut short");
    }
    m->body_bytes = (size_t)n - sizeof(m->request);
    return 0;
}

void sm_machine_message_close(struct sm_machine_message *m)
{
    for (unsigned i = 0; i < m->n_fds; i++)
        sm_close(m->fds[i]);
    m->n_fds = 0;
}

const void *sm_machine_body(const struct sm_machine_message *m, size_t at, size_t bytes)
{
    return at <= m->body_bytes && bytes <= m->body_bytes - at ? m->body + at : NULL;
}

bool sm_machine_texts(const struct sm_machine_message *m, size_t at, const char **texts, unsigned n)
{
    if (at > m->body_bytes || m->request.n_texts != n)
        return false;
    const char *p = (const char *)m->body + at, *end = (const char *)m->body + m->body_bytes;
    for (unsigned i = 0; i < n; i++) {
        const char *nul = memchr(p, '\0', (size_t)(end - p));
        if (!nul)
            return false;
        texts[i] = p;
        p = nul + 1;
    }
    return p == end;
}

void sm_machine_reply_failed(struct sm_machine_reply *reply, int rc, const sm_error *err)
{
    reply->rc = rc;
    reply->sys_errno = err->sys_errno;
    memcpy(reply->text, err->message, sizeof(reply->text));
}

int sm_machine_reply_send(int socket, const struct sm_machine_reply *reply)
{
    return sm_record_send(socket, reply, sizeof(*reply), NULL, 0);
}

int sm_machine_reply_take(int socket, struct sm_machine_reply *reply, sm_error *err)
{
    ssize_t n = sm_record_take(socket, reply, sizeof(*reply), NULL, 0, NULL);
    if (n == 0 || n == -EPIPE)
        return sm_error_set(err, SM_EGUEST, "the VM's machine has ended");
    if (n < 0)
        return sm_error_errno(err, (int)-n, "cannot read what the VM's machine says");
    if (n != sizeof(*reply) || !memchr(reply->text, '\0', sizeof(reply->text)) || reply->rc > 0 ||
        reply->rc < -SM_ENETWORK)
        return sm_error_set(err, SM_EPROTOCOL, "the VM's machine said what is no answer");
    if (!reply->rc)
        return 0;
    int rc = sm_error_set(err, (enum sm_code) - reply->rc, "%s", reply->text);
    if (err)
        err->sys_errno = reply->sys_errno;
    return rc;
}
