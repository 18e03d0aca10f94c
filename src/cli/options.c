/* Options and their help. See options.h. */
#include "cli/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "cli/values.h"

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
