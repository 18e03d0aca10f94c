/* Records of both directions between a client and its VM's machine, as either side reads them. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "control/machine_call.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* What the machine's process is asked: nothing is read beside the body, and texts end in it. */
static void read_request(int socket)
{
    static struct sm_machine_message m;
    const char *texts[SM_START_TEXTS];
    if (sm_machine_take(socket, &m, NULL))
        return;
    size_t at = m.request.start.n_written % (SM_RECORD_MAX + 8);
    const uint8_t *body = sm_machine_body(&m, 0, at);
    if (body && (at > m.body_bytes || body != m.body))
        abort();
    if (sm_machine_texts(&m, at, texts, SM_START_TEXTS)) {
        for (int i = 0; i < SM_START_TEXTS; i++)
            if (texts[i] + strlen(texts[i]) >= (const char *)m.body + m.body_bytes)
                abort();
    }
    sm_machine_message_close(&m);
}

/* What the machine's process says, which nobody believes. */
static void read_reply(int socket)
{
    struct sm_machine_reply reply;
    sm_error err;
    int rc = sm_machine_reply_take(socket, &reply, &err);
    if (rc > 0 || (rc && !memchr(err.message, '\0', sizeof(err.message))))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int ends[2];
    if (size < 1 || size > SM_RECORD_MAX ||
        socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
        return 0;
    unsigned n_fds = data[0] % 3;
    const int fds[] = {ends[0], ends[1]};
    if (sm_record_send(ends[0], data + 1, size - 1, fds, n_fds) == 0) {
        if (data[0] & 4)
            read_request(ends[1]);
        else
            read_reply(ends[1]);
    }
    close(ends[0]);
    close(ends[1]);
    return 0;
}
