/* Credential helpers (docker-credential-helpers' protocol). What a helper says on stderr goes
 * nowhere, what it answers is bounded, and it is killed when it takes too long. */
#include "builder/credential_helper.h"

#include <ctype.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "image/json.h"
#include "util/clock.h"
#include "util/error.h"

enum {
    MAX_ANSWER = 64 << 10,
    TIMEOUT_MS = 30000, /* by the clock: it may wait for a person, or for a machine elsewhere */
};

static bool name_valid(const char *name)
{
    if (!*name || strlen(name) > 64)
        return false;
    for (const char *p = name; *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("._-", *p))
            return false;
    return true;
}

static int start(const char *program, const char *verb, int in, int out, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return rc;
    char *argv[] = {(char *)(uintptr_t)program, (char *)(uintptr_t)verb, NULL};
    if ((rc = posix_spawn_file_actions_adddup2(&actions, in, 0)) == 0 &&
        (rc = posix_spawn_file_actions_adddup2(&actions, out, 1)) == 0 &&
        (rc = posix_spawn_file_actions_addopen(&actions, 2, "/dev/null", O_WRONLY, 0)) == 0)
        rc = posix_spawnp(pid, program, &actions, NULL, argv, environ);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* Reads to the end, within the time. */
static int read_answer(int fd, char *buf, size_t *size, const char *program, sm_error *err)
{
    int64_t deadline = sm_deadline(TIMEOUT_MS);
    *size = 0;
    while (true) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, sm_deadline_left(deadline)) == 0)
            return sm_error_set(
                err, SM_ETIMEOUT, "%s took more than %d seconds", program, TIMEOUT_MS / 1000);
        ssize_t n = read(fd, buf + *size, MAX_ANSWER - *size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sm_error_errno(err, errno, "cannot read from %s", program);
        if (n == 0)
            return 0;
        *size += (size_t)n;
        if (*size == MAX_ANSWER)
            return sm_error_set(err, SM_ELIMIT, "%s wrote too much", program);
    }
}

/* Runs the helper; *failed: it said no. The answer is the caller's to wipe and free. */
static int run(const char *name, const char *verb, const char *input, char **answer, size_t *size,
    bool *failed, sm_error *err)
{
    char program[96];
    if (!name_valid(name))
        return sm_error_set(err, SM_EINVAL, "the name of a credential helper is not valid");
    snprintf(program, sizeof(program), "docker-credential-%s", name);
    int to[2], from[2];
    if (pipe2(to, O_CLOEXEC) != 0)
        return sm_error_errno(err, errno, "cannot make a pipe");
    auto_fd to_read = to[0];
    auto_fd to_write = to[1];
    if (pipe2(from, O_CLOEXEC) != 0)
        return sm_error_errno(err, errno, "cannot make a pipe");
    auto_fd from_read = from[0];
    auto_fd from_write = from[1];
    auto_free char *buf = malloc(MAX_ANSWER);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    /* The input is shorter than a pipe holds, so this cannot wait for the helper. */
    size_t n = strlen(input);
    if (n > 4096 || write(to_write, input, n) != (ssize_t)n)
        return sm_error_set(err, SM_ELIMIT, "what %s is to be told is too long", program);
    sm_close(sm_steal_fd(&to_write));
    pid_t pid;
    int rc = start(program, verb, to_read, from_write, &pid);
    if (rc)
        return sm_error_errno(err, rc, "cannot start the credential helper %s", program);
    sm_close(sm_steal_fd(&from_write));
    rc = read_answer(from_read, buf, size, program, err);
    if (rc)
        kill(pid, SIGKILL);
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    *failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    *answer = sm_steal_ptr(&buf);
    return rc;
}

static void wipe(char *secret, size_t size)
{
    if (secret)
        explicit_bzero(secret, size);
    free(secret);
}

int sm_helper_answer(
    const char *name, const char *answer, size_t size, struct sm_credentials *c, sm_error *err)
{
    auto_json *root = NULL;
    int rc = sm_json_parse(answer, size, "the credential helper's answer", &root, err);
    if (rc)
        return rc;
    const char *user = sm_json_string(root, "Username"), *secret = sm_json_string(root, "Secret");
    if (!user || !secret)
        return sm_error_set(err, SM_EPROTOCOL, "docker-credential-%s gives no credentials", name);
    if (strcmp(user, "<token>") == 0) {
        c->identity_token = strdup(secret);
        return c->identity_token ? 0 : sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    c->user = strdup(user);
    c->password = strdup(secret);
    return c->user && c->password ? 0 : sm_error_set(err, SM_ENOMEM, "out of memory");
}

int sm_helper_get(const char *name, const char *server, struct sm_credentials *c, sm_error *err)
{
    char *answer = NULL;
    size_t size = 0;
    bool failed = false;
    int rc = run(name, "get", server, &answer, &size, &failed, err);
    if (rc == 0 && !failed) /* a helper that knows no credentials fails, too */
        rc = sm_helper_answer(name, answer, size, c, err);
    wipe(answer, answer ? MAX_ANSWER : 0);
    return rc;
}

static int tell(const char *name, const char *verb, const char *input, sm_error *err)
{
    char *answer = NULL;
    size_t size = 0;
    bool failed = false;
    int rc = run(name, verb, input, &answer, &size, &failed, err);
    wipe(answer, answer ? MAX_ANSWER : 0);
    if (rc == 0 && failed)
        rc =
            sm_error_set(err, SM_EIO, "docker-credential-%s cannot %s the credentials", name, verb);
    return rc;
}

int sm_helper_store(
    const char *name, const char *server, const char *user, const char *password, sm_error *err)
{
    auto_json *root =
        json_pack("{s:s, s:s, s:s}", "ServerURL", server, "Username", user, "Secret", password);
    char *text = root ? json_dumps(root, JSON_COMPACT) : NULL;
    int rc = text ? tell(name, "store", text, err) : sm_error_set(err, SM_ENOMEM, "out of memory");
    wipe(text, text ? strlen(text) : 0);
    return rc;
}

int sm_helper_erase(const char *name, const char *server, sm_error *err)
{
    return tell(name, "erase", server, err);
}
