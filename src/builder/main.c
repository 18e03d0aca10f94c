/*
 * supermachine-image: makes images ready, in a process of its own.
 *
 *     supermachine-image build --store DIR [OPTION...] REFERENCE
 *     supermachine-image login --user USER [OPTION...] REGISTRY     (the password is read from stdin)
 *     supermachine-image logout [OPTION...] REGISTRY
 *     supermachine-image save --store DIR --output FILE REFERENCE
 *     supermachine-image load --store DIR [OPTION...] FILE
 *
 * FILE may be "-": descriptor 3. Progress and the result go to standard output as JSON lines (src/image/client.c describes them). With
 * --parent it ends when that process does.
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

#include "builder/credentials.h"
#include "builder/http.h"
#include "builder/make_image.h"
#include "builder/transfer.h"
#include "image/client.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/text.h"

enum option_id {
    OPT_STORE = 256,
    OPT_USER,
    OPT_OUTPUT,
    OPT_PLATFORM,
    OPT_PARENT,
    OPT_MAX_BYTES,
    OPT_TLS_CA,
    OPT_AUTHFILE,
    OPT_INSECURE,
    OPT_STALL,
};

static const struct option options[] = {
    {"store", required_argument, NULL, OPT_STORE},
    {"user", required_argument, NULL, OPT_USER},
    {"output", required_argument, NULL, OPT_OUTPUT},
    {"platform", required_argument, NULL, OPT_PLATFORM},
    {"parent", required_argument, NULL, OPT_PARENT},
    {"max-bytes", required_argument, NULL, OPT_MAX_BYTES},
    {"tls-ca", required_argument, NULL, OPT_TLS_CA},
    {"authfile", required_argument, NULL, OPT_AUTHFILE},
    {"insecure-registry", no_argument, NULL, OPT_INSECURE},
    {"stall-timeout", required_argument, NULL, OPT_STALL},
    {0},
};

static void print_line(json_t *line)
{
    char *text = line ? json_dumps(line, JSON_COMPACT) : NULL;
    if (text)
        printf("%s\n", text);
    fflush(stdout);
    free(text);
    json_decref(line);
}

static int print_error(const sm_error *err)
{
    print_line(json_pack("{s:{s:i, s:i, s:s}}", "error", "code", (int)err->code, "sys_errno",
        err->sys_errno, "message", err->message));
    return 1;
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

/* Whoever started us may have ended before we asked to be told. */
static bool follow_parent(const char *pid)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && (pid_t)atol(pid) == getppid();
}

enum verb { BUILD, SAVE, LOAD, LOGIN, LOGOUT };
static const char *const verbs[] = {"build", "save", "load", "login", "logout"};

/* What the command line says. */
struct job {
    enum verb verb;
    const char *store_dir, *user, *output, *operand;
    struct sm_build_options how;
};

static int finish(sm_error *err, int rc, json_t *result)
{
    if (rc) {
        json_decref(result);
        sm_text_clean(err->message, false); /* one line, UTF-8: names in archives may be anything */
        return print_error(err);
    }
    print_line(json_pack("{s:o}", "result", result));
    return 0;
}

/* "-" is the caller's standard input or output. */
static int stream_of(const char *path)
{
    return strcmp(path, "-") == 0 ? SM_BUILDER_STREAM : -1;
}

static int with_store(struct job *job)
{
    sm_error err = {0};
    struct sm_imgstore *store = NULL;
    char digest[SM_DIGEST_LEN + 1];
    auto_free char *loaded = NULL;
    json_t *result = NULL;
    job->how.progress = report;
    int rc = sm_imgstore_open(&store, job->store_dir, &err);
    if (rc == 0 && job->verb == BUILD) {
        rc = sm_build(store, job->operand, &job->how, digest, &err);
        result = rc ? NULL : json_pack("{s:s}", "digest", digest);
    } else if (rc == 0 && job->verb == LOAD) {
        rc = sm_image_load(store, job->operand, stream_of(job->operand), &job->how, &loaded, &err);
        result = rc ? NULL : json_pack("{s:s}", "loaded", loaded);
    } else if (rc == 0) {
        rc = sm_image_save(store, job->operand, job->output, stream_of(job->output), &err);
        result = json_object();
    }
    sm_imgstore_close(store);
    return finish(&err, rc, result);
}

/* Strips what users put around a registry's name. */
static int parse_host(const char *text, struct sm_reference **ref, sm_error *err)
{
    const char *host = strncmp(text, "https://", 8) == 0 ? text + 8 : text;
    size_t n = strcspn(host, "/");
    auto_free char *name = NULL;
    if (asprintf(&name, "%.*s/x", (int)n, host) < 0) {
        name = NULL;
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    int rc = sm_reference_parse(name, ref, err);
    if (rc == 0 && ((*ref)->kind != SM_REF_REGISTRY || (*ref)->short_name)) {
        sm_reference_free(*ref);
        *ref = NULL;
        rc = -SM_EINVAL;
    }
    return rc ? sm_error_set(err, SM_EINVAL,
                    "%.200s is not the name of a registry, as docker.io or "
                    "localhost:5000",
                    text)
              : 0;
}

static int read_password(char *buf, size_t room, sm_error *err)
{
    size_t have = 0;
    ssize_t n;
    while (have < room && (n = read(0, buf + have, room - have)) > 0)
        have += (size_t)n;
    if (have == room)
        return sm_error_set(err, SM_EINVAL, "the password is longer than %zu bytes", room - 1);
    buf[have] = '\0';
    buf[strcspn(buf, "\r\n")] = '\0';
    return *buf ? 0 : sm_error_set(err, SM_EINVAL, "the password is empty");
}

static int login(const struct sm_reference *ref, const char *user,
    const struct sm_build_options *how, sm_error *err)
{
    char password[4097];
    struct sm_http *http = NULL;
    int rc = user ? read_password(password, sizeof(password), err)
                  : sm_error_set(err, SM_EINVAL, "a user is needed");
    const struct sm_http_options session = {
        .host = ref->host,
        .user = user,
        .password = password,
        .tls_ca = how->tls_ca,
        .insecure = how->insecure_registry,
        .stall_s = how->stall_s,
    };
    if (rc == 0)
        rc = sm_http_new(&session, &http, err);
    if (rc == 0)
        rc = sm_http_check_login(http, err);
    if (rc == 0)
        rc = sm_credentials_store(ref->host, user, password, how->authfile, err);
    explicit_bzero(password, sizeof(password));
    sm_http_free(http);
    return rc;
}

static int with_registry(const struct job *job)
{
    sm_error err = {0};
    auto_reference ref = NULL;
    int rc = parse_host(job->operand, &ref, &err);
    if (rc == 0 && job->verb == LOGIN)
        rc = login(ref, job->user, &job->how, &err);
    else if (rc == 0)
        rc = sm_credentials_erase(ref->host, job->how.authfile, &err);
    return finish(&err, rc, json_object());
}

static int usage(const char *why)
{
    sm_error err;
    sm_error_set(&err, SM_EINVAL,
        "supermachine-image: %s (usage: supermachine-image build|login|"
        "logout|save|load [OPTION...] OPERAND)",
        why);
    return print_error(&err);
}

/* Takes one option; a sentence where it cannot. */
static const char *take_option(struct job *job, int opt)
{
    struct sm_build_options *how = &job->how;
    switch (opt) {
    case OPT_STORE:
        job->store_dir = optarg;
        return NULL;
    case OPT_USER:
        job->user = optarg;
        return NULL;
    case OPT_OUTPUT:
        job->output = optarg;
        return NULL;
    case OPT_PLATFORM:
        how->platform = optarg;
        return NULL;
    case OPT_PARENT:
        return follow_parent(optarg) ? NULL : "the process that started it has ended";
    case OPT_MAX_BYTES:
        how->limits.bytes = strtoull(optarg, NULL, 10);
        return NULL;
    case OPT_TLS_CA:
        how->tls_ca = optarg;
        return NULL;
    case OPT_AUTHFILE:
        how->authfile = optarg;
        return NULL;
    case OPT_INSECURE:
        how->insecure_registry = true;
        return NULL;
    case OPT_STALL:
        how->stall_s = (unsigned)strtoul(optarg, NULL, 10);
        return NULL;
    default:
        return "an option is not known or lacks its value";
    }
}

int main(int argc, char **argv)
{
    setlocale(
        LC_CTYPE, "C.UTF-8"); /* names in tar archives are UTF-8, whatever the user's locale */
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    struct job job = {0};
    size_t verb = 0;
    while (verb < SM_ARRAY_LEN(verbs) && (argc < 2 || strcmp(argv[1], verbs[verb]) != 0))
        verb++;
    if (verb == SM_ARRAY_LEN(verbs))
        return usage("the command is not known");
    job.verb = (enum verb)verb;
    int opt;
    optind = 2;
    opterr = 0;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        const char *why = take_option(&job, opt);
        if (why)
            return usage(why);
    }
    if (optind != argc - 1)
        return usage("one operand is needed");
    if (job.verb == SAVE && !job.output)
        return usage("--output is needed");
    job.operand = argv[optind];
    return job.verb == LOGIN || job.verb == LOGOUT ? with_registry(&job) : with_store(&job);
}
