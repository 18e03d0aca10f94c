/* Options, their values and their help. See options.h. */
#include "cli/options.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/text.h"

#define MAX_OPTIONS 48
#define HELP_ID     0x7fff

/* Whether an argument such as "--name" or "--name=value" has the whole name. */
static bool is_whole(const char *arg, const char *name)
{
    size_t n = strlen(name);
    return strncmp(arg, "--", 2) == 0 && strncmp(arg + 2, name, n) == 0 &&
           (arg[2 + n] == '\0' || arg[2 + n] == '=');
}

int cli_next_option(const struct cli_command *command, int argc, char **argv)
{
    struct option longs[MAX_OPTIONS + 2] = {0};
    char shorts[2 * MAX_OPTIONS + 3] = "+:";
    size_t n = 0, s = 2;
    bool own_h = false;
    for (const struct cli_option *o = command->options; o && o->id && n < MAX_OPTIONS; o++) {
        if (o->name)
            longs[n++] = (struct option){
                .name = o->name,
                .has_arg = o->arg ? required_argument : no_argument,
                .val = o->id,
            };
        own_h = own_h || o->id == 'h';
        if (o->id < 256) {
            shorts[s++] = (char)o->id;
            if (o->arg)
                shorts[s++] = ':';
        }
    }
    longs[n] = (struct option){.name = "help", .val = HELP_ID};
    if (!own_h)
        shorts[s++] = 'h';

    opterr = 0;
    int at = optind ? optind : 1;
    int which = -1;
    int id = getopt_long(argc, argv, shorts, longs, &which);
    /* getopt takes abbreviations, which the next option of ours would make ambiguous. */
    if (which >= 0 && !is_whole(argv[at], longs[which].name)) {
        cli_fail_usage(command, "unknown option '%s'", argv[at]);
        return CLI_OPTIONS_ERROR;
    }
    if (id == 'h' && !own_h)
        id = HELP_ID;
    switch (id) {
    case -1:
        return CLI_OPTIONS_END;
    case HELP_ID:
        cli_print_help(command);
        return CLI_OPTIONS_HELP;
    case ':':
        cli_fail_usage(command, "option '%s' needs a value", argv[optind - 1]);
        return CLI_OPTIONS_ERROR;
    case '?':
        if (optopt && strncmp(argv[at], "--", 2) == 0)
            cli_fail_usage(command, "option '%s' takes no value", argv[at]);
        else if (optopt)
            cli_fail_usage(command, "unknown option '-%c'", optopt);
        else
            cli_fail_usage(command, "unknown option '%s'", argv[at]);
        return CLI_OPTIONS_ERROR;
    default:
        return id;
    }
}

static const char *name_of(const struct cli_command *command, int id)
{
    const struct cli_option *o = command->options;
    while (o->id && o->id != id)
        o++;
    return o->name;
}

bool cli_take_setting(const struct cli_command *command, const struct cli_setting *table, int id,
    void *into, int *status)
{
    const struct cli_setting *s = table;
    *status = CLI_EXIT_OK;
    while (s->id && s->id != id)
        s++;
    if (!s->id)
        return false;
    void *field = (char *)into + s->field;
    switch (s->kind) {
    case CLI_TEXT:
        *(const char **)field = optarg;
        break;
    case CLI_FLAG:
        *(bool *)field = true;
        break;
    case CLI_TIME:
        if (!cli_parse_duration_ms(optarg, field))
            *status = cli_fail_usage(command, "'--%s %s' is not a time such as 10 or 1.5m",
                name_of(command, id), optarg);
        break;
    }
    return true;
}

int cli_take_format(
    const struct cli_command *command, int argc, char **argv, const char *other, bool *json)
{
    int id;
    *json = false;
    while ((id = cli_next_option(command, argc, argv)) > 0) {
        *json = strcmp(optarg, "json") == 0;
        if (!*json && strcmp(optarg, other) != 0) {
            cli_fail_usage(command, "'--format %s' is neither %s nor json", optarg, other);
            return CLI_OPTIONS_ERROR;
        }
    }
    return id;
}

/* A byte sequence that a terminal obeys; JSON must only escape what is below 0x20. Bytes in *length. */
static unsigned control_of(const char *p, int *length)
{
    const unsigned char *c = (const unsigned char *)p;
    *length = *c == 0xc2 ? 2 : 1;
    if (*c == 0x7f)
        return *c;
    return *c == 0xc2 && c[1] < 0xa0 ? c[1] : 0;
}

void cli_print_json(const json_t *value)
{
    char *text = json_dumps(value, JSON_INDENT(2));
    int length;
    for (const char *p = text ? text : ""; *p; p += length) {
        unsigned control = control_of(p, &length);
        if (control)
            printf("\\u%04x", control);
        else
            fwrite(p, 1, (size_t)length, stdout);
    }
    putchar('\n');
    free(text);
}

void cli_print(const char *fmt, ...)
{
    char *text;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return;
    sm_text_clean(text, true);
    fputs(text, stdout);
    free(text);
}

void cli_print_help(const struct cli_command *command)
{
    bool root = !*command->name;
    printf("%s\n\nUsage: supermachine%s%s%s %s\n", command->summary, root ? "" : " ",
        root ? "" : command->name, command->options ? " [OPTION...]" : "", command->synopsis);
    if (command->commands) {
        printf("\nCommands:\n");
        for (const struct cli_command *const *c = command->commands; *c; c++)
            printf("  %-14s %s\n", (*c)->name, (*c)->summary);
    }
    if (command->options) {
        printf("\nOptions:\n");
        for (const struct cli_option *o = command->options; o->id; o++) {
            if (!o->help)
                continue;
            char left[64];
            snprintf(left, sizeof(left), "%c%c%s%s%s%s%s", o->id < 256 ? '-' : ' ',
                o->id < 256 ? o->id : ' ',
                o->id < 256 && o->name ? ", "
                : o->name              ? "  "
                                       : "",
                o->name ? "--" : "", o->name ? o->name : "", o->arg ? " " : "",
                o->arg ? o->arg : "");
            printf("  %-26s %s\n", left, o->help);
        }
    }
    if (command->notes)
        printf("\n%s", command->notes);
}

bool cli_parse_number(const char *text, uint64_t lo, uint64_t hi, uint64_t *value)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno || *end || v < lo || v > hi)
        return false;
    *value = v;
    return true;
}

bool cli_parse_size(const char *text, uint64_t *bytes)
{
    if (*text < '0' || *text > '9')
        return false;
    char *end;
    errno = 0;
    unsigned long long v = strtoull(text, &end, 10);
    if (errno)
        return false;
    static const struct {
        const char *suffix;
        unsigned shift;
    } units[] = {{"", 0}, {"b", 0}, {"k", 10}, {"kb", 10}, {"kib", 10}, {"m", 20}, {"mb", 20},
        {"mib", 20}, {"g", 30}, {"gb", 30}, {"gib", 30}, {"t", 40}, {"tb", 40}, {"tib", 40}};
    for (size_t i = 0; i < SM_ARRAY_LEN(units); i++) {
        if (strcasecmp(end, units[i].suffix) == 0) {
            *bytes = (uint64_t)v << units[i].shift;
            return *bytes >> units[i].shift == v;
        }
    }
    return false;
}

bool cli_parse_duration_ms(const char *text, int *ms)
{
    if ((*text < '0' || *text > '9') && *text != '.')
        return false;
    char *end;
    double v = strtod(text, &end);
    double factor;
    if (!*end || strcmp(end, "s") == 0)
        factor = 1e3;
    else if (strcmp(end, "ms") == 0)
        factor = 1;
    else if (strcmp(end, "m") == 0)
        factor = 60e3;
    else if (strcmp(end, "h") == 0)
        factor = 3600e3;
    else
        return false;
    v *= factor;
    if (!(v >= 1) || v > 2e9) /* also refuses NaN */
        return false;
    *ms = (int)v;
    return true;
}

static void *checked(void *p)
{
    if (!p) {
        cli_fail("out of memory");
        exit(CLI_EXIT_FAILURE);
    }
    return p;
}

void cli_strings_add(struct cli_strings *list, const char *text)
{
    list->items = checked(reallocarray(list->items, list->count + 2, sizeof(*list->items)));
    list->items[list->count++] = checked(strdup(text));
    list->items[list->count] = NULL;
}

void cli_strings_free(struct cli_strings *list)
{
    for (size_t i = 0; i < list->count; i++)
        free(list->items[i]);
    free(list->items);
    *list = (struct cli_strings){0};
}

bool cli_env_add(struct cli_strings *env, const char *text)
{
    const char *eq = strchr(text, '=');
    if (!*text || eq == text)
        return false;
    if (eq) {
        cli_strings_add(env, text);
        return true;
    }
    const char *value = getenv(text);
    if (value) {
        auto_free char *pair = NULL;
        if (asprintf(&pair, "%s=%s", text, value) < 0)
            pair = NULL;
        cli_strings_add(env, checked(pair));
    }
    return true;
}

/* What keeps a line of an environment file from being one, as docker has it; NULL: nothing. */
static const char *env_line_fault(const char *line, size_t size)
{
    json_t *text = json_stringn(line, size);
    bool is_utf8 = text && strlen(line) == size;
    json_decref(text);
    if (!is_utf8)
        return "is no text in UTF-8";
    size_t name = strcspn(line, "=");
    if (name == 0)
        return "has no name before the '='";
    if (strcspn(line, " \t") < name)
        return "has white space in the variable's name";
    return NULL;
}

int cli_env_add_file(struct cli_strings *env, const char *path)
{
    static const char bom[] = "\xef\xbb\xbf";
    auto_file file = fopen(path, "re");
    if (!file)
        return cli_fail("cannot read the environment file '%s': %s", path, strerror(errno));
    auto_free char *line = NULL;
    size_t size = 0, number = 0;
    ssize_t n;
    while ((n = getline(&line, &size, file)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        const char *text = line;
        if (number++ == 0 && strncmp(text, bom, strlen(bom)) == 0)
            text += strlen(bom);
        text += strspn(text, " \t");
        if ((!*text && text == line + n) || *text == '#')
            continue;
        const char *fault = env_line_fault(text, (size_t)(line + n - text));
        if (fault)
            return cli_fail("line %zu of the environment file '%s' %s", number, path, fault);
        cli_env_add(env, text);
    }
    if (ferror(file))
        return cli_fail("cannot read the environment file '%s': %s", path, strerror(errno));
    return CLI_EXIT_OK;
}

const char *cli_format_size(uint64_t bytes, char buf[32])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    double v = (double)bytes;
    size_t i = 0;
    for (; v >= 999.5 && i + 1 < SM_ARRAY_LEN(units); i++)
        v /= 1024;
    snprintf(buf, 32, i && v < 9.95 ? "%.1f %s" : "%.0f %s", v, units[i]);
    return buf;
}

void cli_print_snapshot_stats(const sm_snapshot_stats *stats)
{
    char data[32], ram[32];
    printf("%s of %s of memory; the guest stood still for %.1f ms, writing took %.1f ms\n",
        cli_format_size(stats->data_bytes, data), cli_format_size(stats->ram_bytes, ram),
        (double)stats->pause_us / 1e3, (double)stats->write_us / 1e3);
}
