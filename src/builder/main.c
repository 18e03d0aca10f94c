/*
 * supermachine-image: makes images ready, in a process of its own.
 *
 *     supermachine-image build --store DIR [OPTION...] REFERENCE
 *     supermachine-image login --user USER [OPTION...] REGISTRY
 *     supermachine-image logout [OPTION...] REGISTRY
 *     supermachine-image save --store DIR --output FILE [--format FORMAT] REFERENCE
 *     supermachine-image load --store DIR [OPTION...] FILE
 *
 * The password is read from stdin. FILE may be "-": descriptor 3. Progress and the result go to
 * standard output as JSON lines (src/image/client.c describes them). The options say how images are
 * got: --NAME VALUE for each row of the table in src/image/fetch.c, as in --platform linux/arm64.
 *
 * With --parent PID it is the library that calls: the program ends when that process does, and
 * reads the same from the first line of its standard input (image/fetch.h), what a password is from
 * what follows.
 */
#include <curl/curl.h>
#include <getopt.h>
#include <jansson.h>
#include <locale.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "builder/fetch_read.h"
#include "builder/load.h"
#include "builder/login.h"
#include "builder/make_image.h"
#include "builder/parsers.h"
#include "builder/save.h"
#include "image/client.h"
#include "image/json.h"
#include "util/archive_format.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/text.h"

enum { MAX_STDIN = 256 << 10 }; /* two paths and a password, each of them escaped */

/* ---- what it says ---------------------------------------------------------------------------- */

static void print_line(json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    if (text)
        printf("%s\n", text);
    fflush(stdout);
    free(text);
    json_decref(line);
}

static void report(void *arg, const sm_progress *p)
{
    json_t *line = json_pack("{s:s, s:I, s:I}", "progress", p->what, "done", (json_int_t)p->done,
        "total", (json_int_t)p->total);
    if (p->layer) {
        json_object_set_new(line, "layer", json_integer(p->layer));
        json_object_set_new(line, "layers", json_integer(p->layers));
    }
    print_line(line);
}

/* The last line, and the status to end with. */
static int finish(sm_error *err, int rc, json_t *result)
{
    if (rc == 0) {
        print_line(json_pack("{s:o}", "result", result));
        return 0;
    }
    json_decref(result);
    sm_text_clean(err->message, false); /* one line, UTF-8: names in archives may be anything */
    print_line(json_pack("{s:{s:i, s:i, s:s}}", "error", "code", (int)err->code, "sys_errno",
        err->sys_errno, "message", err->message));
    return 1;
}

/* ---- what it is told ------------------------------------------------------------------------- */

enum verb { BUILD, SAVE, LOAD, LOGIN, LOGOUT };
static const char *const verbs[] = {"build", "save", "load", "login", "logout"};

struct job {
    enum verb verb;
    const char *store_dir, *user, *output, *operand;
    enum sm_archive_format format;
    bool called; /* by the library */
    struct sm_fetch fetch;
};

static int bad_usage(const char *why, sm_error *err)
{
    return sm_error_set(err, SM_EINVAL,
        "supermachine-image: %s (usage: supermachine-image build|login|logout|save|load [OPTION...] OPERAND)",
        why);
}

/* Whoever started us may have ended before we asked to be told. */
static bool follow_parent(const char *pid)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && (pid_t)atol(pid) == getppid();
}

enum option_id {
    OPT_FETCH = 256, /* and the rows of that table behind it */
    OPT_STORE = OPT_FETCH + SM_FETCH_FIELDS,
    OPT_USER,
    OPT_OUTPUT,
    OPT_FORMAT,
    OPT_PARENT,
};

static int take_option(struct job *job, int opt, sm_error *err)
{
    if (opt >= OPT_FETCH && opt < OPT_FETCH + SM_FETCH_FIELDS)
        return sm_fetch_take_option(&job->fetch, &sm_fetch_fields[opt - OPT_FETCH], optarg, err);
    switch (opt) {
    case OPT_STORE:
        job->store_dir = optarg;
        return 0;
    case OPT_USER:
        job->user = optarg;
        return 0;
    case OPT_OUTPUT:
        job->output = optarg;
        return 0;
    case OPT_FORMAT:
        return sm_archive_format_parse(optarg, &job->format)
                   ? 0
                   : bad_usage(
                         "the format is " SM_ARCHIVE_OCI_NAME " or " SM_ARCHIVE_DOCKER_NAME, err);
    case OPT_PARENT:
        job->called = true;
        return follow_parent(optarg) ? 0 : bad_usage("the process that started it has ended", err);
    default:
        return bad_usage("an option is not known or lacks its value", err);
    }
}

static int take_options(struct job *job, int argc, char **argv, sm_error *err)
{
    struct option options[SM_FETCH_FIELDS + 6] = {{0}};
    size_t n = 0;
    for (; n < SM_FETCH_FIELDS; n++)
        options[n] = (struct option){sm_fetch_fields[n].name,
            sm_fetch_fields[n].kind == SM_FETCH_FLAG ? no_argument : required_argument, NULL,
            OPT_FETCH + (int)n};
    options[n++] = (struct option){"store", required_argument, NULL, OPT_STORE};
    options[n++] = (struct option){"user", required_argument, NULL, OPT_USER};
    options[n++] = (struct option){"output", required_argument, NULL, OPT_OUTPUT};
    options[n++] = (struct option){"format", required_argument, NULL, OPT_FORMAT};
    options[n++] = (struct option){"parent", required_argument, NULL, OPT_PARENT};
    int opt, rc = 0;
    optind = 2;
    opterr = 0;
    while (rc == 0 && (opt = getopt_long(argc, argv, "", options, NULL)) != -1)
        rc = take_option(job, opt, err);
    return rc;
}

static int read_arguments(struct job *job, int argc, char **argv, sm_error *err)
{
    size_t verb = 0;
    while (verb < SM_ARRAY_LEN(verbs) && (argc < 2 || strcmp(argv[1], verbs[verb]) != 0))
        verb++;
    if (verb == SM_ARRAY_LEN(verbs))
        return bad_usage("the command is not known", err);
    job->verb = (enum verb)verb;
    int rc = take_options(job, argc, argv, err);
    if (rc)
        return rc;
    if (optind != argc - 1)
        return bad_usage("one operand is needed", err);
    if (job->verb == SAVE && !job->output)
        return bad_usage("--output is needed", err);
    job->operand = argv[optind];
    return 0;
}

/* The standard input, as one text; *text is the caller's to wipe and free. */
static int read_input(char **text, sm_error *err)
{
    size_t have = 0;
    ssize_t n;
    auto_free char *buf = malloc(MAX_STDIN);
    if (!buf)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    while (have < MAX_STDIN && (n = read(STDIN_FILENO, buf + have, MAX_STDIN - have)) > 0)
        have += (size_t)n;
    if (have == MAX_STDIN)
        return sm_error_set(
            err, SM_EINVAL, "the standard input is longer than %d bytes", MAX_STDIN);
    buf[have] = '\0';
    *text = sm_steal_ptr(&buf);
    return 0;
}

/* Takes the first line off, which says how images are got; see fetch_read.h. */
static int take_fetch(struct job *job, char **text, json_t **owner, sm_error *err)
{
    size_t size = strcspn(*text, "\n");
    int rc = sm_fetch_read(*text, size, &job->fetch, owner, err);
    *text += size + ((*text)[size] == '\n');
    return rc;
}

static int check_password(char *password, sm_error *err)
{
    password[strcspn(password, "\r\n")] = '\0';
    return strlen(password) <= SM_BUILDER_MAX_SECRET
               ? 0
               : sm_error_set(
                     err, SM_EINVAL, "the password is longer than %d bytes", SM_BUILDER_MAX_SECRET);
}

/* ---- what it does ---------------------------------------------------------------------------- */

/* "-" is the caller's standard input or output. */
static int stream_of(const char *path)
{
    return strcmp(path, "-") == 0 ? SM_BUILDER_STREAM : -1;
}

static int with_store(
    const struct job *job, struct sm_parsers *parsers, json_t **result, sm_error *err)
{
    struct sm_imgstore *store = NULL;
    char digest[SM_DIGEST_LEN + 1];
    auto_free char *loaded = NULL;
    const struct sm_make_options how = {
        .fetch = job->fetch, .parsers = parsers, .progress = report, .stream = SM_BUILDER_STREAM};
    int rc = sm_imgstore_open(&store, job->store_dir, err);
    if (rc == 0 && job->verb == BUILD) {
        rc = sm_make_image(store, job->operand, &how, digest, err);
        *result = rc ? NULL : json_pack("{s:s}", "digest", digest);
    } else if (rc == 0 && job->verb == LOAD) {
        rc = sm_image_load(store, job->operand, stream_of(job->operand), &how, &loaded, err);
        *result = rc ? NULL : json_pack("{s:s}", "loaded", loaded);
    } else if (rc == 0) {
        rc = sm_image_save(
            store, parsers, job->operand, job->format, job->output, stream_of(job->output), err);
        *result = json_object();
    }
    sm_imgstore_close(store);
    return rc;
}

/* `input` is what there is on the standard input, or NULL where nobody looks. */
static int do_job(
    struct job *job, struct sm_parsers *parsers, char *input, json_t **result, sm_error *err)
{
    auto_json *owner = NULL;
    int rc = job->called ? take_fetch(job, &input, &owner, err) : 0;
    if (rc == 0 && job->verb == LOGIN)
        rc = check_password(input, err);
    if (rc)
        return rc;
    if (job->verb != LOGIN && job->verb != LOGOUT)
        return with_store(job, parsers, result, err);
    *result = json_object();
    return job->verb == LOGIN ? sm_login(job->operand, job->user, input, &job->fetch, err)
                              : sm_logout(job->operand, &job->fetch, err);
}

int main(int argc, char **argv)
{
    /* names in tar archives are UTF-8, whatever the user's locale */
    setlocale(LC_CTYPE, "C.UTF-8");
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    sm_error err = {0};
    struct job job = {0};
    char *input = NULL;
    json_t *result = NULL;
    struct sm_parsers *parsers = NULL;
    int rc = read_arguments(&job, argc, argv, &err);
    /* Before a password is read, or a thread is made. */
    if (rc == 0 && job.verb != LOGIN && job.verb != LOGOUT)
        rc = sm_parsers_open(job.fetch.max_bytes, &parsers, &err);
    if (rc == 0 && (job.called || job.verb == LOGIN))
        rc = read_input(&input, &err);
    if (rc == 0)
        rc = do_job(&job, parsers, input, &result, &err);
    if (input)
        explicit_bzero(input, strlen(input));
    free(input);
    sm_parsers_close(parsers);
    return finish(&err, rc, result);
}
