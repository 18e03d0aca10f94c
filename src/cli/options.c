/* Options and their help. See options.h. */
#include "cli/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/lists.h"
#include "cli/values.h"

#define MAX_OPTIONS 192
#define HELP_ID     0x7fff

/* Whether an argument such as "--name" or "--name=value" has the whole name. */
static bool is_whole(const char *arg, const char *name)
{
    size_t n = strlen(name);
    return strncmp(arg, "--", 2) == 0 && strncmp(arg + 2, name, n) == 0 &&
           (arg[2 + n] == '\0' || arg[2 + n] == '=');
}

/* What getopt wants to know of them. */
struct tables {
    struct option longs[MAX_OPTIONS + 2];
    char shorts[2 * MAX_OPTIONS + 4];
    size_t n_longs, n_shorts;
    bool own_h;
};

static void add_table(struct tables *t, const struct cli_option *o)
{
    for (; o && o->id && t->n_longs < MAX_OPTIONS; o++) {
        bool must = o->arg && *o->arg != '=';
        if (o->name)
            t->longs[t->n_longs++] = (struct option){
                .name = o->name,
                .has_arg = must ? required_argument : optional_argument,
                .val = o->id,
            };
        t->own_h = t->own_h || o->id == 'h';
        if (o->id < 256) {
            t->shorts[t->n_shorts++] = (char)o->id;
            if (must)
                t->shorts[t->n_shorts++] = ':';
        }
    }
}

static void add_tables(struct tables *t, const struct cli_command *command)
{
    *t = (struct tables){.shorts = "+:", .n_shorts = 2};
    add_table(t, command->options);
    add_table(t, command->also);
    t->longs[t->n_longs] = (struct option){.name = "help", .val = HELP_ID};
    if (!t->own_h)
        t->shorts[t->n_shorts++] = 'h';
}

static const struct cli_option *find(const struct cli_command *command, int id)
{
    const struct cli_option *tables[] = {command->options, command->also};
    for (size_t i = 0; i < 2; i++)
        for (const struct cli_option *o = tables[i]; o && o->id; o++)
            if (o->id == id)
                return o;
    return NULL;
}

/* "--flag=true" is the flag, "--flag=false" is that it is not, whatever was said before. */
static bool is_boolean(const char *text, bool *value)
{
    *value = strcmp(text, "true") == 0 || strcmp(text, "1") == 0;
    return *value || strcmp(text, "false") == 0 || strcmp(text, "0") == 0;
}

static int refuse(const struct cli_command *command, const char *arg, int id)
{
    bool is_long = strncmp(arg, "--", 2) == 0;
    if (id == ':')
        cli_fail_usage(command, "option '%s' needs a value", arg);
    else if (optopt && is_long)
        cli_fail_usage(command, "option '%s' takes no value", arg);
    else if (optopt)
        cli_fail_usage(command, "unknown option '-%c'", optopt);
    else
        cli_fail_usage(command, "unknown option '%s'", arg);
    return CLI_OPTIONS_ERROR;
}

/* One option, whatever it is; *off: it was said that it is not. */
static int next(const struct cli_command *command, int argc, char **argv, bool *off)
{
    struct tables t;
    add_tables(&t, command);
    opterr = 0;
    *off = false;
    int at = optind ? optind : 1;
    int which = -1;
    int id = getopt_long(argc, argv, t.shorts, t.longs, &which);
    /* getopt takes abbreviations, which the next option of ours would make ambiguous. */
    if (which >= 0 && !is_whole(argv[at], t.longs[which].name)) {
        cli_fail_usage(command, "unknown option '%s'", argv[at]);
        return CLI_OPTIONS_ERROR;
    }
    if (id == 'h' && !t.own_h)
        id = HELP_ID;
    if (id == ':')
        return refuse(command, argv[optind - 1], id);
    if (id == '?')
        return refuse(command, argv[at], id);
    const struct cli_option *o = find(command, id);
    bool on = true, may = o && o->arg && *o->arg == '=';
    if (o && optarg && (!o->arg || may) && !is_boolean(optarg, &on)) {
        cli_fail_usage(
            command, "option '%s' takes no value%s", argv[at], may ? " but true and false" : "");
        return CLI_OPTIONS_ERROR;
    }
    if (may && optarg) {
        static char words[][sizeof("false")] = {"false", "true"};
        optarg = words[on];
    }
    *off = o && !o->arg && !on;
    return id;
}

int cli_next_option(const struct cli_command *command, int argc, char **argv)
{
    bool off;
    int id;
    do
        id = cli_next_flag(command, argc, argv, &off);
    while (off);
    return id;
}

int cli_next_flag(const struct cli_command *command, int argc, char **argv, bool *off)
{
    int id = next(command, argc, argv, off);
    if (id == HELP_ID)
        cli_print_help(command);
    return id == -1 ? CLI_OPTIONS_END : id == HELP_ID ? CLI_OPTIONS_HELP : id;
}

static const char *name_of(const struct cli_command *command, int id)
{
    return find(command, id)->name;
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
    case CLI_LIST:
        cli_list_add(field, optarg);
        break;
    case CLI_WORDS:
        cli_list_add_words(field, optarg);
        break;
    case CLI_TIME:
        if (!cli_parse_duration_ms(optarg, field))
            *status = cli_fail_usage(command, "'--%s %s' is not a time such as 10 or 1.5m",
                name_of(command, id), optarg);
        break;
    }
    return true;
}

void cli_unset(const struct cli_setting *table, int id, void *into)
{
    for (const struct cli_setting *s = table; s->id; s++)
        if (s->id == id && s->kind == CLI_FLAG)
            *(bool *)((char *)into + s->field) = false;
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
            bool may = o->arg && *o->arg == '=';
            snprintf(left, sizeof(left), "%c%c%s%s%s%s%s%s", o->id < 256 ? '-' : ' ',
                o->id < 256 ? o->id : ' ',
                o->id < 256 && o->name ? ", "
                : o->name              ? "  "
                                       : "",
                o->name ? "--" : "", o->name ? o->name : "",
                may      ? "["
                : o->arg ? " "
                         : "",
                o->arg ? o->arg : "", may ? "]" : "");
            printf("  %-26s %s\n", left, o->help);
        }
    }
    if (command->notes)
        printf("\n%s", command->notes);
}
