/*
 * The program is started with its standard output on a pipe and writes one JSON object a line:
 *
 *     {"progress": "unpacking layer 2 of 3", "done": 1048576, "total": 7340032}
 *     {"progress": "12ab34cd56ef", "done": 65536, "total": 7340032, "layer": 3, "layers": 3}
 *     {"result": {"digest": "sha256:..."}}
 *     {"error": {"code": 11, "sys_errno": 0, "message": "..."}}
 *
 * Progress with a layer tells what of it is here; the result of `load` is "loaded": names, a line
 * each. The last line decides. What comes is bounded (line length, silence) and checked like any
 * input: the program has read hostile archives. It ends with us (PR_SET_PDEATHSIG, which it sets
 * itself and then checks that we are still there), and is killed when we stop listening to it.
 *
 * What it is to do is in its arguments, for all to see in a list of processes. How (struct
 * sm_fetch), and the password of a login, it reads from its standard input, a file in memory: that
 * holds any length before anybody reads.
 */
#include "image/client.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "image/index.h"
#include "image/json.h"
#include "util/archive_format.h"
#include "util/error.h"
#include "util/file.h"
#include "util/locate.h"
#include "util/text.h"

#ifndef MFD_NOEXEC_SEAL /* of Linux 6.3 */
#define MFD_NOEXEC_SEAL 0x0008U
#endif

enum {
    MAX_LINE = 16384,
    MAX_SILENCE_MS = 10 * 60 * 1000,
    MAX_ARGS = 16,
};

/* ---- what it says ---------------------------------------------------------------------------- */

struct lines {
    char buf[MAX_LINE];
    size_t have;
    bool decided;
    int rc;
    char digest[SM_DIGEST_LEN + 1];
    char loaded[MAX_LINE]; /* names, a line each */
};

static void take_progress(
    const json_t *object, const char *what, const struct sm_builder_options *o)
{
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
    o->progress(o->progress_arg, &p);
}

static void take_result(struct lines *lines, const json_t *result)
{
    const char *digest = sm_json_string(result, "digest"),
               *loaded = sm_json_string(result, "loaded");
    if (sm_digest_valid(digest))
        memcpy(lines->digest, digest, SM_DIGEST_LEN + 1);
    snprintf(lines->loaded, sizeof(lines->loaded), "%s", loaded ? loaded : "");
    lines->decided = true;
    lines->rc = 0;
}

static void take_error(struct lines *lines, const json_t *error, const char *message, sm_error *err)
{
    json_int_t code = json_integer_value(json_object_get(error, "code"));
    if (code <= SM_OK || code > SM_ENETWORK)
        code = SM_EIO;
    lines->decided = true;
    lines->rc = sm_error_set(err, (enum sm_code)code, "%s", message);
    if (err)
        err->sys_errno = (int)json_integer_value(json_object_get(error, "sys_errno"));
}

static void take_line(struct lines *lines, const char *line, size_t size,
    const struct sm_builder_options *options, sm_error *err)
{
    auto_json *object = NULL;
    if (sm_json_parse(line, size, "a line of supermachine-image", &object, NULL) != 0)
        return;
    const char *what = sm_json_string(object, "progress");
    if (what && options->progress)
        take_progress(object, what, options);
    const json_t *result = json_object_get(object, "result");
    if (json_is_object(result))
        take_result(lines, result);
    const json_t *error = json_object_get(object, "error");
    const char *message = sm_json_string(error, "message");
    if (message && *message)
        take_error(lines, error, message, err);
}

/* Takes what can be read; 0 at the end, 1 when there may be more. */
static int take_bytes(
    int fd, struct lines *lines, const struct sm_builder_options *options, sm_error *err)
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

/* ---- the process ----------------------------------------------------------------------------- */

/* What the program and its threads have run; 0: it is gone. */
static uint64_t cpu_ns(pid_t pid)
{
    clockid_t clock;
    struct timespec t;
    if (clock_getcpuclockid(pid, &clock) != 0 || clock_gettime(clock, &t) != 0)
        return 0;
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* Silence is judged by what the program does: one that runs a little at times waits for somebody
 * who lives (a lock; a registry, for which it has limits of its own) or for a CPU, and goes on. One
 * that stands still all the time, or has run for all of it and said nothing, is given up. */
static int listen_to(
    int fd, pid_t pid, struct lines *lines, const struct sm_builder_options *options, sm_error *err)
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
static int spawn(char *const argv[], int in, int out, int stream, pid_t *pid)
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

/* ---- calls ----------------------------------------------------------------------------------- */

/* What differs between the commands. */
struct command {
    const char *verb, *store, *user, *output, *format, *operand, *password;
    bool reads_stream; /* our standard input */
};

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

static void list_args(struct args *args, const char *program, const struct command *c)
{
    *args = (struct args){{program, c->verb}, 2, ""};
    snprintf(args->parent, sizeof(args->parent), "%d", (int)getpid());
    add_option(args, "--parent", args->parent);
    add_option(args, "--store", c->store);
    add_option(args, "--user", c->user);
    add_option(args, "--output", c->output);
    add_option(args, "--format", c->format);
    add_option(args, "--", c->operand);
}

/* Hosts may refuse files in memory that could be executed (vm.memfd_noexec=2); kernels before 6.3
 * know no others. */
static int make_memory_file(void)
{
    int fd = memfd_create("supermachine-image", MFD_CLOEXEC | MFD_NOEXEC_SEAL);
    return fd < 0 && errno == EINVAL ? memfd_create("supermachine-image", MFD_CLOEXEC) : fd;
}

/* Its standard input. */
static int make_input(
    const struct command *c, const struct sm_fetch *fetch, int *input, sm_error *err)
{
    auto_free char *line = NULL;
    const char *password = c->password ? c->password : "";
    if (strlen(password) > SM_BUILDER_MAX_SECRET)
        return sm_error_set(
            err, SM_EINVAL, "the password is longer than %d bytes", SM_BUILDER_MAX_SECRET);
    int rc = sm_fetch_write(fetch, &line, err);
    if (rc)
        return rc;
    auto_fd fd = make_memory_file();
    if (fd < 0 || sm_write_all(fd, line, strlen(line)) != 0 || sm_write_all(fd, "\n", 1) != 0 ||
        sm_write_all(fd, password, strlen(password)) != 0 || lseek(fd, 0, SEEK_SET) != 0)
        return sm_error_errno(err, errno, "cannot write what supermachine-image is to read");
    *input = sm_steal_fd(&fd);
    return 0;
}

/* Which of our descriptors the program is to have; -1: none. */
static int stream_of(const struct command *c)
{
    if (c->reads_stream)
        return STDIN_FILENO;
    return c->output && strcmp(c->output, "-") == 0 ? STDOUT_FILENO : -1;
}

/* A copy of it, above the descriptors that it is to be moved to. */
static int open_stream(const struct command *c, int *stream, sm_error *err)
{
    int fd = stream_of(c);
    if (fd == STDIN_FILENO && isatty(fd))
        return sm_error_set(err, SM_EINVAL, "the standard input is a terminal and no archive");
    *stream = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, SM_BUILDER_STREAM + 1);
    return fd < 0 || *stream >= 0 ? 0
                                  : sm_error_errno(err, errno, "cannot use the standard %s",
                                        fd == STDIN_FILENO ? "input" : "output");
}

/* Starts the program; `out` is where its output can be read. */
static int start(const struct command *c, const struct sm_builder_options *options, int *out,
    pid_t *pid, sm_error *err)
{
    auto_free char *path = NULL;
    auto_fd input = -1;
    auto_fd stream = -1;
    struct args args;
    int ends[2];
    int rc = options->program
                 ? 0
                 : sm_locate("supermachine-image", "SUPERMACHINE_LIBEXEC_DIR", "", &path, err);
    if (rc == 0)
        rc = make_input(c, &options->fetch, &input, err);
    if (rc == 0)
        rc = open_stream(c, &stream, err);
    if (rc)
        return rc;
    if (pipe2(ends, O_CLOEXEC) != 0)
        return sm_error_errno(err, errno, "cannot make a pipe");
    auto_fd reading = ends[0];
    auto_fd writing = ends[1];
    list_args(&args, options->program ? options->program : path, c);
    rc = spawn((char *const *)(uintptr_t)args.list, input, writing, stream, pid);
    if (rc)
        return sm_error_errno(err, rc, "cannot start %s", args.list[0]);
    *out = sm_steal_fd(&reading);
    return 0;
}

/* Runs the program to its end. */
static int run(const struct command *c, const struct sm_builder_options *options,
    struct lines *lines, sm_error *err)
{
    static const struct sm_builder_options defaults = {0};
    auto_fd out = -1;
    pid_t pid;
    if (!options)
        options = &defaults;
    int rc = start(c, options, &out, &pid, err);
    if (rc)
        return rc;
    rc = listen_to(out, pid, lines, options, err);
    if (rc < 0) {
        kill(pid, SIGKILL);
        lines->decided = true;
        lines->rc = rc;
    }
    return finish(pid, lines, err);
}

static struct lines *lines_new(sm_error *err)
{
    struct lines *lines = calloc(1, sizeof(*lines));
    if (!lines)
        sm_error_set(err, SM_ENOMEM, "out of memory");
    return lines;
}

/* A command that has no answer but that it went well. */
static int run_simple(
    const struct command *c, const struct sm_builder_options *options, sm_error *err)
{
    auto_free struct lines *lines = lines_new(err);
    return lines ? run(c, options, lines, err) : -SM_ENOMEM;
}

int sm_builder_build(struct sm_imgstore *store, const char *reference,
    const struct sm_builder_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    auto_free struct lines *lines = lines_new(err);
    if (!lines)
        return -SM_ENOMEM;
    auto_reference ref = NULL;
    const struct command c = {.verb = "build",
        .store = sm_imgstore_path(store),
        .operand = reference,
        .reads_stream =
            sm_reference_parse(reference, &ref, NULL) == 0 && sm_reference_is_stream(ref)};
    int rc = run(&c, options, lines, err);
    if (rc == 0 && !*lines->digest)
        return sm_error_set(err, SM_EPROTOCOL, "supermachine-image gave no digest");
    memcpy(digest, lines->digest, SM_DIGEST_LEN + 1);
    return rc;
}

int sm_builder_load(struct sm_imgstore *store, const char *path,
    const struct sm_builder_options *options, char **loaded, sm_error *err)
{
    auto_free struct lines *lines = lines_new(err);
    if (!lines)
        return -SM_ENOMEM;
    const struct command c = {.verb = "load",
        .store = sm_imgstore_path(store),
        .operand = path,
        .reads_stream = strcmp(path, "-") == 0};
    int rc = run(&c, options, lines, err);
    if (rc)
        return rc;
    char *text = strdup(lines->loaded);
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    *loaded = text;
    return 0;
}

int sm_builder_save(struct sm_imgstore *store, const char *reference, enum sm_archive_format format,
    const char *path, sm_error *err)
{
    const struct command c = {.verb = "save",
        .store = sm_imgstore_path(store),
        .output = path,
        .format = sm_archive_format_name(format),
        .operand = reference};
    return run_simple(&c, NULL, err);
}

int sm_builder_login(const char *host, const char *user, const char *password,
    const struct sm_builder_options *options, sm_error *err)
{
    const struct command c = {.verb = "login", .user = user, .operand = host, .password = password};
    return run_simple(&c, options, err);
}

int sm_builder_logout(const char *host, const struct sm_builder_options *options, sm_error *err)
{
    const struct command c = {.verb = "logout", .operand = host};
    return run_simple(&c, options, err);
}
