/* The command line's own parsing: options of a command, numbers, sizes, times, environment
 * files. */
#include <getopt.h>
#include <stdarg.h>

#include "cli/lists.h"
#include "cli/options.h"
#include "cli/values.h"
#include "fuzz.h"

/* What options.c needs of message.c. */
int cli_fail(const char *fmt, ...)
{
    return CLI_EXIT_FAILURE;
}

int cli_fail_usage(const struct cli_command *command, const char *fmt, ...)
{
    va_list ap;
    char text[512];
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return CLI_EXIT_FAILURE;
}

static const struct cli_option options[] = {
    {'e', "env", "NAME=VALUE", ""},
    {'i', NULL, NULL, ""},
    {'t', "tty", NULL, ""},
    {0x101, "env-file", "FILE", ""},
    {0x102, "environment", NULL, NULL},
    {0},
};
static const struct cli_command command = {.name = "run", .options = options};

#define MAX_WORDS 32

/* Words end with NULs. */
static void read_options(struct fuzz_input *in)
{
    char *words[MAX_WORDS + 2] = {strdup("run")}, *argv[MAX_WORDS + 2];
    int n = 1, id;
    while (in->left > 0 && n <= MAX_WORDS)
        words[n++] = fuzz_text(in, '\0');
    memcpy(argv, words, sizeof(argv)); /* no word may get lost */
    optind = 0;
    while ((id = cli_next_option(&command, n, argv)) > 0)
        fuzz_demand(id == 'i' || id == 't' || id == 0x102 || optarg);
    fuzz_demand(optind <= n);
    for (int i = 0; i < n; i++)
        free(words[i]);
}

static void read_number(struct fuzz_input *in)
{
    char *text = fuzz_text(in, '\0');
    uint64_t value, bytes;
    int ms;
    if (cli_parse_number(text, 2, 1000, &value))
        fuzz_demand(value >= 2 && value <= 1000);
    (void)cli_parse_size(text, &bytes);
    if (cli_parse_duration_ms(text, &ms))
        fuzz_demand(ms > 0);
    free(text);
}

static void read_env_file(struct fuzz_input *in)
{
    struct sm_strv env = {0};
    char path[32];
    int fd = fuzz_file(in->data, in->left, path);
    (void)cli_env_add_file(&env, path);
    for (size_t i = 0; i < env.count; i++)
        fuzz_demand(strchr(env.items[i], '=') > env.items[i]);
    sm_strv_clear(&env);
    close(fd);
}

/* Input: what it is, and its text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    static FILE *quiet;
    if (!quiet)
        quiet = freopen("/dev/null", "w", stdout); /* --help prints */
    switch (fuzz_take(&in, 1) % 3) {
    case 0:
        read_options(&in);
        break;
    case 1:
        read_number(&in);
        break;
    default:
        read_env_file(&in);
    }
    return 0;
}
