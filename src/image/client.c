/*
 * The library's end of `supermachine-image`: the program is started with its standard output on a
 * pipe and writes one JSON object a line:
 *
 *     {"progress": "unpacking layer 2 of 3", "done": 1048576, "total": 7340032}
 *     {"progress": "12ab34cd56ef", "done": 65536, "total": 7340032, "layer": 3, "layers": 3}   (what of it is here)
 *     {"result": {"digest": "sha256:..."}}                 (of `load`: "loaded", names, a line each)
 *     {"error": {"code": 11, "sys_errno": 0, "message": "..."}}
 *
 * The last line decides. What comes is bounded (line length, silence) and checked like any input: the
 * program has read hostile archives. It ends with us (PR_SET_PDEATHSIG, which it sets itself and then
 * checks that we are still there), and is killed when we stop listening to it.
 */
#include "image/client.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "image/index.h"
#include "image/json.h"
#include "util/error.h"
#include "util/locate.h"
#include "util/text.h"

enum {
    MAX_LINE = 16384,
    MAX_SILENCE_MS = 10 * 60 * 1000,
    MAX_ARGS = 24,
    MAX_SECRET = 4096,
};

struct lines {
    char buf[MAX_LINE];
    size_t have;
    bool decided;
    int rc;
    char digest[SM_DIGEST_LEN + 1];
    char loaded[MAX_LINE]; /* names, a line each */
};

static void take_line(struct lines *lines, const char *line, size_t size,
    const struct sm_ensure_options *options, sm_error *err)
{
    auto_json *object = NULL;
    if (sm_json_parse(line, size, "a line of supermachine-image", &object, NULL) != 0)
        return;
    const char *what = sm_json_string(object, "progress");
    if (what && options->progress) {
        char text[128];
        snprintf(text, sizeof(text), "%s", what);
        sm_text_clean(text, false);
        sm_progress p = {.what = text};
        uint64_t layer = 0, layers = 0;
        sm_json_size(object, "done", &p.done);
        sm_json_size(object, "total", &p.total);
        if (sm_json_size(object, "layer", &layer) && sm_json_size(object, "layers", &layers) &&
            layer <= layers && layers <= SM_MAX_LAYERS) {
            p.layer = (unsigned)layer;
            p.layers = (unsigned)layers;
        }
        options->progress(options->progress_arg, &p);
    }
    const json_t *result = json_object_get(object, "result");
    if (json_is_object(result)) {
        const char *digest = sm_json_string(result, "digest");
        if (sm_digest_valid(digest))
            memcpy(lines->digest, digest, SM_DIGEST_LEN + 1);
        const char *loaded = sm_json_string(result, "loaded");
        snprintf(lines->loaded, sizeof(lines->loaded), "%s", loaded ? loaded : "");
        lines->decided = true;
        lines->rc = 0;
    }
    const json_t *error = json_object_get(object, "error");
    const char *message = sm_json_string(error, "message");
    if (message && *message) {
        json_int_t code = json_integer_value(json_object_get(error, "code"));
        if (code <= SM_OK || code > SM_ENETWORK)
            code = SM_EIO;
        lines->decided = true;
        lines->rc = sm_error_set(err, (enum sm_code)code, "%s", message);
        if (err)
            err->sys_errno = (int)json_integer_value(json_object_get(error, "sys_errno"));
    }
}

/* Takes what can be read; 0 at the end, 1 when there may be more. */
static int take_bytes(
    int fd, struct lines *lines, const struct sm_ensure_options *options, sm_error *err)
{
    ssize_t n = read(fd, lines->buf + lines->have, sizeof(lines->buf) - lines->have);
    if (n < 0)
        return errno == EINTR ? 1
                              : sm_error_errno(err, errno, "cannot read from supermachine-image");
    if (n == 0)
        return 0;
    lines->have += (size_t)n;
    char *start = lines->buf, *end = lines->buf + lines->have, *newline;
    while ((newline = memchr(start, '\n', (size_t)(end - start)))) {
        take_line(lines, start, (size_t)(newline - start), options, err);
        start = newline + 1;
    }
    lines->have = (size_t)(end - start);
    memmove(lines->buf, start, lines->have);
    if (lines->have == sizeof(lines->buf))
        return sm_error_set(err, SM_EPROTOCOL, "supermachine-image wrote a line that is too long");
    return 1;
}

/* What the program and its threads have run; 0: it is gone. */
static uint64_t cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Silence is judged by what the program does: one that runs a little at times waits for somebody who lives (a lock; a registry,
 * for which it has limits of its own) or for a CPU, and goes on. One that stands still all the time, or has run for
 * all of it and said nothing, is given up. */
static int listen_to(
    int fd, pid_t pid, struct lines *lines, const struct sm_ensure_options *options, sm_error *err)
{
    uint64_t spoke_ns = 0, looked_ns = 0;
    struct pollfd fds[2] = {{.fd = fd, .events = POLLIN},
        {.fd = options->cancel_fd > 0 ? options->cancel_fd : -1, .events = POLLIN}};
    while (true) {
        int n = poll(fds, 2, MAX_SILENCE_MS);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return sm_error_errno(err, errno, "cannot wait for supermachine-image");
        if (n == 0) {
            uint64_t ran_ns = cpu_ns(pid);
            if (ran_ns == looked_ns || ran_ns - spoke_ns >= MAX_SILENCE_MS * 1000000ull)
                return sm_error_set(err, SM_ETIMEOUT,
                    "supermachine-image said nothing for %d minutes", MAX_SILENCE_MS / 60000);
            looked_ns = ran_ns;
            continue;
        }
        if (fds[1].revents)
            return sm_error_set(err, SM_ECANCELLED, "making the image ready was cancelled");
        int rc = take_bytes(fd, lines, options, err);
        spoke_ns = looked_ns = cpu_ns(pid);
        if (rc <= 0)
            return rc;
    }
}

/* Starts the program in a process group of its own, so that a terminal's Ctrl-C reaches the caller
 * alone, which decides. It gets no descriptor of ours but these; `stream` (or -1) is above them. */
static int start(char *const argv[], int in, int out, int stream, pid_t *pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    int rc = posix_spawn_file_actions_init(&actions);
    if (rc)
        return rc;
    rc = posix_spawnattr_init(&attr);
    if (rc) {
        posix_spawn_file_actions_destroy(&actions);
        return rc;
    }
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    sigdelset(&all, SIGKILL);
    sigdelset(&all, SIGSTOP);
    if ((rc = posix_spawn_file_actions_adddup2(&actions, in, 0)) == 0 &&
        (rc = posix_spawn_file_actions_adddup2(&actions, out, 1)) == 0 &&
        (stream < 0 ||
            (rc = posix_spawn_file_actions_adddup2(&actions, stream, SM_BUILDER_STREAM)) == 0) &&
        (rc = posix_spawn_file_actions_addclosefrom_np(
             &actions, SM_BUILDER_STREAM + (stream >= 0))) == 0 &&
        (rc = posix_spawnattr_setsigmask(&attr, &none)) == 0 &&
        (rc = posix_spawnattr_setsigdefault(&attr, &all)) == 0 &&
        (rc = posix_spawnattr_setpgroup(&attr, 0)) == 0 &&
        (rc = posix_spawnattr_setflags(
             &attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP)) == 0)
        rc = posix_spawn(pid, argv[0], &actions, &attr, argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&actions);
    return rc;
}

/* Collects the end of the program; what it died of goes into the error unless it has said why. */
static int finish(pid_t pid, const struct lines *lines, sm_error *err)
{
    int status = 0;
    pid_t got;
    do
        got = waitpid(pid, &status, 0);
    while (got < 0 && errno == EINTR);
    if (lines->decided)
        return lines->rc;
    if (got == pid && WIFSIGNALED(status))
        return sm_error_set(err, SM_EIO, "supermachine-image was ended by signal %d (%s)",
            WTERMSIG(status), strsignal(WTERMSIG(status)));
    return sm_error_set(err, SM_EIO, "supermachine-image ended with status %d and without a result",
        got == pid ? WEXITSTATUS(status) : -1);
}

struct args {
    const char *list[MAX_ARGS];
    size_t count;
    char parent[16]; /* our process id */
};

/* An option, where it has a value. */
static void add_option(struct args *args, const char *name, const char *value)
{
    if (value) {
        args->list[args->count++] = name;
        args->list[args->count++] = value;
    }
}

/* Runs the program to its end; `input` is what it can read. */
static int run(struct args *args, const char *input, int stream_fd,
    const struct sm_ensure_options *options, struct lines *lines, sm_error *err)
{
    auto_free char *path = NULL;
    int rc = options->builder
                 ? 0
                 : sm_locate("supermachine-image", "SUPERMACHINE_LIBEXEC_DIR", "", &path, err);
    if (rc)
        return rc;
    args->list[0] = options->builder ? options->builder : path;
    snprintf(args->parent, sizeof(args->parent), "%d", (int)getpid());
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return sm_error_errno(err, errno, "cannot make a pipe");
    auto_fd in = ends[0];
    auto_fd out = ends[1];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return sm_error_errno(err, errno, "cannot make a pipe");
    auto_fd input_read = ends[0];
    auto_fd input_write = ends[1];
    /* Shorter than a pipe holds, so this does not wait for a reader. */
    size_t size = strlen(input);
    if (size > MAX_SECRET || write(input_write, input, size) != (ssize_t)size)
        return sm_error_set(err, SM_EINVAL, "the password is longer than %d bytes", MAX_SECRET);
    sm_close(sm_steal_fd(&input_write));
    /* Options come in front of the operands, which begin behind "--". */
    for (size_t i = args->count; i > 2; i--)
        args->list[i + 1] = args->list[i - 1];
    args->list[2] = "--parent";
    args->list[3] = args->parent;
    args->list[args->count + 2] = NULL;
    /* Above the descriptors that it is to be moved to. */
    auto_fd stream = stream_fd < 0 ? -1 : fcntl(stream_fd, F_DUPFD_CLOEXEC, SM_BUILDER_STREAM + 1);
    if (stream_fd >= 0 && stream < 0)
        return sm_error_errno(err, errno, "cannot use the standard %s",
            stream_fd == STDIN_FILENO ? "input" : "output");
    pid_t pid;
    rc = start((char *const *)(uintptr_t)args->list, input_read, out, stream, &pid);
    if (rc)
        return sm_error_errno(err, rc, "cannot start %s", args->list[0]);
    sm_close(sm_steal_fd(&out));
    rc = listen_to(in, pid, lines, options, err);
    if (rc < 0) {
        kill(pid, SIGKILL);
        lines->decided = true;
        lines->rc = rc;
    }
    return finish(pid, lines, err);
}

/* What differs between the commands. */
struct command {
    const char *verb, *store, *user, *output, *operand, *input;
    bool loads; /* the operand is a file */
};

/* Which of our descriptors the program is to have. */
static int stream_of(const struct command *c)
{
    if (c->loads && strcmp(c->operand, "-") == 0)
        return STDIN_FILENO;
    return c->output && strcmp(c->output, "-") == 0 ? STDOUT_FILENO : -1;
}

static int run_command(const struct command *c, const struct sm_ensure_options *options,
    struct lines *lines, sm_error *err)
{
    struct args args = {{NULL, c->verb}, 2};
    add_option(&args, "--store", c->store);
    add_option(&args, "--user", c->user);
    add_option(&args, "--output", c->output);
    add_option(&args, "--platform", options->platform);
    add_option(&args, "--tls-ca", options->tls_ca);
    add_option(&args, "--authfile", options->authfile);
    if (options->insecure_registry)
        args.list[args.count++] = "--insecure-registry";
    add_option(&args, "--", c->operand);
    return run(&args, c->input ? c->input : "", stream_of(c), options, lines, err);
}

static int run_simple(
    const struct command *c, const struct sm_image_options *options, sm_error *err)
{
    auto_free struct lines *lines = calloc(1, sizeof(*lines));
    if (!lines)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    struct sm_ensure_options o = {0};
    if (options) {
        o.tls_ca = options->tls_ca;
        o.authfile = options->authfile;
        o.insecure_registry = options->insecure_registry;
        o.cancel_fd = options->cancel_fd;
    }
    return run_command(c, &o, lines, err);
}

int sm_builder_run(struct sm_imgstore *store, const char *reference,
    const struct sm_ensure_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    auto_free struct lines *lines = calloc(1, sizeof(*lines));
    if (!lines)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    const struct command c = {
        .verb = "build", .store = sm_imgstore_path(store), .operand = reference};
    int rc = run_command(&c, options, lines, err);
    if (rc == 0 && !*lines->digest)
        return sm_error_set(err, SM_EPROTOCOL, "supermachine-image gave no digest");
    memcpy(digest, lines->digest, SM_DIGEST_LEN + 1);
    return rc;
}

int sm_builder_load(struct sm_imgstore *store, const char *path,
    const struct sm_image_options *options, char **loaded, sm_error *err)
{
    auto_free struct lines *lines = calloc(1, sizeof(*lines));
    if (!lines)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    struct sm_ensure_options o = {0};
    if (options) {
        o.platform = options->platform;
        o.progress = options->progress;
        o.progress_arg = options->progress_arg;
        o.cancel_fd = options->cancel_fd;
    }
    const struct command c = {
        .verb = "load", .store = sm_imgstore_path(store), .operand = path, .loads = true};
    int rc = run_command(&c, &o, lines, err);
    char *text = rc ? NULL : strdup(lines->loaded);
    if (rc == 0 && !text)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    if (rc == 0)
        *loaded = text;
    return rc;
}

int sm_builder_save(
    struct sm_imgstore *store, const char *reference, const char *path, sm_error *err)
{
    const struct command c = {
        .verb = "save", .store = sm_imgstore_path(store), .output = path, .operand = reference};
    return run_simple(&c, NULL, err);
}

int sm_builder_login(const char *host, const char *user, const char *password,
    const struct sm_image_options *options, sm_error *err)
{
    const struct command c = {.verb = "login", .user = user, .operand = host, .input = password};
    return run_simple(&c, options, err);
}

int sm_builder_logout(const char *host, const struct sm_image_options *options, sm_error *err)
{
    const struct command c = {.verb = "logout", .operand = host};
    return run_simple(&c, options, err);
}
