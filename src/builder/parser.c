/* The life of a parser. See parser.h. */
#include "builder/parser.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "sandbox/calls.h"
#include "sandbox/sandbox.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/text.h"

/* A tree of a million names takes some 300 MiB, a decompressor 130; beyond is a bomb. */
#define DATA_LIMIT       (2ULL << 30)
#define DESCRIPTOR_LIMIT 64
/* What a parser has: the first three lead nowhere. */
enum { SOCKET = 3, TOLD, FIRST_OTHER };

/* Only what it is given stays: neither standard output, which our caller believes, nor the
 * store. */
static bool keep_only(int socket, int told)
{
    int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
    int fds[] = {nowhere, nowhere, nowhere, socket, told};
    for (int i = 0; i < FIRST_OTHER; i++) /* none of them may lie where another is put */
        if ((fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, 2 * FIRST_OTHER)) < 0)
            return false;
    for (int i = 0; i < FIRST_OTHER; i++)
        if (dup2(fds[i], i) < 0)
            return false;
    return close_range(FIRST_OTHER, ~0U, 0) == 0;
}

/* Does not return. */
static void be_parser(
    const struct sm_parser *parser, pid_t program, uint64_t file_limit, int socket, int told)
{
    struct sm_sandbox_layers layers;
    sm_error err = {0};
    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != program || !keep_only(socket, told))
        _exit(1);
    const struct sm_sandbox_spec spec = {
        .who = parser->who,
        .data_limit = DATA_LIMIT,
        .file_limit = file_limit,
        .descriptor_limit = DESCRIPTOR_LIMIT,
        .calls = &sm_calls_image,
        .trap_fd = TOLD,
    };
    int rc = sm_sandbox_enter(&spec, &layers, &err);
    if (rc)
        sm_parser_send_end(SOCKET, rc, &err);
    else
        parser->main(SOCKET);
    _exit(rc ? 1 : 0);
}

static int patience_of(const struct sm_parser *parser)
{
    return parser->patience_ms ? parser->patience_ms : SM_PARSER_PATIENCE_MS;
}

/* Nobody holds the program up by half a message, or by taking none. */
static bool bound_waits(int socket, int patience_ms)
{
    const struct timeval most = {patience_ms / 1000, patience_ms % 1000 * 1000};
    return setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &most, sizeof(most)) == 0 &&
           setsockopt(socket, SOL_SOCKET, SO_SNDTIMEO, &most, sizeof(most)) == 0;
}

int sm_parser_start(struct sm_parser *parser, uint64_t file_limit, sm_error *err)
{
    int ends[2], told[2];
    pid_t program = getpid();
    if (parser->pid)
        return 0;
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) < 0)
        return sm_error_errno(err, errno, "cannot start %s", parser->who);
    if (!bound_waits(ends[0], patience_of(parser)) || pipe2(told, O_CLOEXEC) < 0) {
        int errnum = errno;
        sm_close(ends[0]);
        sm_close(ends[1]);
        return sm_error_errno(err, errnum, "cannot start %s", parser->who);
    }
    pid_t pid = fork();
    int errnum = errno;
    if (pid == 0)
        be_parser(parser, program, file_limit, ends[1], told[1]);
    sm_close(ends[1]);
    sm_close(told[1]);
    if (pid < 0) {
        sm_close(ends[0]);
        sm_close(told[0]);
        return sm_error_errno(err, errnum, "cannot start %s", parser->who);
    }
    parser->pid = pid;
    parser->socket = ends[0];
    parser->told = told[0];
    return 0;
}

void sm_parser_stop(struct sm_parser *parser)
{
    if (!parser->pid)
        return;
    kill(parser->pid, SIGKILL);
    while (waitpid(parser->pid, NULL, 0) < 0 && errno == EINTR)
        ;
    sm_close(parser->socket);
    sm_close(parser->told);
    parser->pid = 0;
}

/* It has closed its socket, or said what no parser says. */
static int ended(struct sm_parser *parser, sm_error *err)
{
    char line[256];
    siginfo_t how = {0};
    /* It ends by itself, or is ended: a parser that talks nonsense has no say in it. */
    kill(parser->pid, SIGKILL);
    while (waitid(P_PID, (id_t)parser->pid, &how, WEXITED | WNOWAIT) < 0 && errno == EINTR)
        ;
    ssize_t n = read(parser->told, line, sizeof(line) - 1);
    line[n > 0 ? n : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    sm_text_clean(line, false);
    const char *who = parser->who;
    sm_parser_stop(parser);
    if (*line)
        return sm_error_set(
            err, SM_ECORRUPT, "%s: it was ended; what it read is not to be trusted", line);
    if (sm_sandbox_was_refused(how.si_code, how.si_status))
        return sm_error_set(err, SM_ECORRUPT, "%s was refused a system call, and ended", who);
    return sm_error_set(err, SM_EIO, "%s ended without a word (%s %d)", who,
        how.si_code == CLD_EXITED ? "status" : "signal", how.si_status);
}

static int stalled(struct sm_parser *parser, sm_error *err)
{
    sm_parser_stop(parser);
    return sm_error_set(err, SM_ETIMEOUT,
        "%s neither finished nor took a message for %d s, and was ended; try again, and where it "
        "happens again do not trust what it reads",
        parser->who, (patience_of(parser) + 999) / 1000);
}

int sm_parser_next(
    struct sm_parser *parser, int timeout_ms, struct sm_parser_message *message, sm_error *err)
{
    struct pollfd on = {.fd = parser->socket, .events = POLLIN};
    if (!parser->pid)
        return sm_error_set(err, SM_EIO, "%s is not there", parser->who);
    int ready = poll(&on, 1, timeout_ms);
    if (ready == 0 || (ready < 0 && errno == EINTR))
        return 0;
    int rc = sm_parser_receive(parser->socket, sm_deadline(patience_of(parser)), message);
    int errnum = errno;
    for (int i = 0; i < SM_PARSER_FDS; i++)
        sm_close(message->fds[i]); /* a parser has none to give */
    if (rc < 0 && errnum == ETIMEDOUT)
        return stalled(parser, err);
    return rc > 0 ? 1 : ended(parser, err);
}

/* What it said at last, if it does so in time, or how it ended. */
static int last_word(struct sm_parser *parser, struct sm_parser_message *message, sm_error *err)
{
    int64_t deadline = sm_deadline(patience_of(parser));
    while (sm_deadline_left(deadline) > 0) {
        int rc = sm_parser_next(parser, sm_deadline_left(deadline), message, err);
        if (rc > 0 && message->type == SM_PARSER_END &&
            message->size == sizeof(struct sm_parser_end))
            rc = sm_parser_take_end((const void *)message->data, err);
        if (rc < 0) {
            sm_parser_stop(parser);
            return rc;
        }
    }
    return stalled(parser, err);
}

int sm_parser_tell(struct sm_parser *parser, uint32_t type, const void *data, size_t size,
    const int *fds, unsigned n_fds, struct sm_parser_message *message, sm_error *err)
{
    if (sm_parser_send(parser->socket, type, data, size, fds, n_fds) == 0)
        return 0;
    return errno == ETIMEDOUT ? stalled(parser, err) : last_word(parser, message, err);
}
