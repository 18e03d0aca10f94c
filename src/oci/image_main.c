/*
 * supermachine-image: makes images ready, in a process of its own.
 *
 *     supermachine-image build --store DIR [--platform OS/ARCH] [--parent PID] [--max-bytes N] REFERENCE
 *
 * Progress and the result go to standard output as JSON lines (src/oci/builder.c describes them). With
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
#include <time.h>
#include <unistd.h>

#include "oci/build.h"
#include "util/cleanup.h"
#include "util/error.h"

enum { PROGRESS_MS = 100 };

enum option_id { OPT_STORE = 256, OPT_PLATFORM, OPT_PARENT, OPT_MAX_BYTES, OPT_TLS_CA, OPT_AUTHFILE, OPT_INSECURE,
    OPT_STALL };

static const struct option options[] = {
    {"store", required_argument, NULL, OPT_STORE},
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

/* Names in errors come from archives and may be anything; JSON wants UTF-8. */
static void make_printable(char *text)
{
    for (char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || (unsigned char)*p >= 0x7f)
            *p = '?';
}

struct reporter {
    struct timespec last;
    char what[128];
};

static void report(void *arg, const char *what, uint64_t done, uint64_t total)
{
    struct reporter *r = arg;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    long ms = (now.tv_sec - r->last.tv_sec) * 1000 + (now.tv_nsec - r->last.tv_nsec) / 1000000;
    if (ms < PROGRESS_MS && strcmp(what, r->what) == 0)
        return;
    r->last = now;
    snprintf(r->what, sizeof(r->what), "%s", what);
    print_line(json_pack("{s:s, s:I, s:I}", "progress", what, "done", (json_int_t)done, "total",
        (json_int_t)total));
}

/* Whoever started us may have ended before we asked to be told. */
static bool follow_parent(const char *pid)
{
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 && (pid_t)atol(pid) == getppid();
}

static int build(const char *store_dir, const char *reference, struct sm_build_options *how)
{
    sm_error err = {0};
    struct reporter reporter = {0};
    struct sm_imgstore *store = NULL;
    char digest[SM_DIGEST_LEN + 1];
    how->progress = report;
    how->progress_arg = &reporter;
    int rc = sm_imgstore_open(&store, store_dir, &err);
    if (rc == 0)
        rc = sm_build(store, reference, how, digest, &err);
    sm_imgstore_close(store);
    if (rc) {
        make_printable(err.message);
        return print_error(&err);
    }
    print_line(json_pack("{s:{s:s}}", "result", "digest", digest));
    return 0;
}

static int usage(const char *why)
{
    sm_error err;
    sm_error_set(&err, SM_EINVAL, "supermachine-image: %s (usage: supermachine-image build --store DIR "
        "[OPTION...] REFERENCE)", why);
    return print_error(&err);
}

int main(int argc, char **argv)
{
    setlocale(LC_CTYPE, "C.UTF-8"); /* names in tar archives are UTF-8, whatever the user's locale */
    signal(SIGPIPE, SIG_IGN);
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (argc < 2 || strcmp(argv[1], "build") != 0)
        return usage("the command is not known");
    struct sm_build_options how = {0};
    const char *store_dir = NULL;
    int opt;
    optind = 2;
    opterr = 0;
    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (opt) {
        case OPT_STORE:
            store_dir = optarg;
            break;
        case OPT_PLATFORM:
            how.platform = optarg;
            break;
        case OPT_PARENT:
            if (!follow_parent(optarg))
                return usage("the process that started it has ended");
            break;
        case OPT_MAX_BYTES:
            how.limits.bytes = strtoull(optarg, NULL, 10);
            break;
        case OPT_TLS_CA:
            how.tls_ca = optarg;
            break;
        case OPT_AUTHFILE:
            how.authfile = optarg;
            break;
        case OPT_INSECURE:
            how.insecure_registry = true;
            break;
        case OPT_STALL:
            how.stall_s = (unsigned)strtoul(optarg, NULL, 10);
            break;
        default:
            return usage("an option is not known or lacks its value");
        }
    }
    if (optind != argc - 1)
        return usage("one reference is needed");
    return build(store_dir, argv[optind], &how);
}
