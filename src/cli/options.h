/* Options of a command from its table, with getopt_long's rules; they end at the first operand, so
 * that what follows IMAGE belongs to the command in the VM. */
#ifndef SM_CLI_OPTIONS_H
#define SM_CLI_OPTIONS_H

#include <stddef.h>

#include "cli/cli.h"
#include "util/strv.h"

/* What cli_next_option returns beside an option's id. */
enum {
    CLI_OPTIONS_END = 0,    /* operands begin at argv[optind] */
    CLI_OPTIONS_HELP = -1,  /* --help was given and the help was printed */
    CLI_OPTIONS_ERROR = -2, /* a message was printed */
};

/* The next option's id; its argument is in optarg. Set optind to 0 before the first call. */
int cli_next_option(const struct cli_command *command, int argc, char **argv);
/* The same for who can take a flag back: *off where it is said that it is not ("--flag=false"),
 * which cli_next_option skips. */
int cli_next_flag(const struct cli_command *command, int argc, char **argv, bool *off);

/* The exit code of a command that stops because cli_next_option returned HELP or ERROR. */
static inline int cli_options_exit(int result)
{
    return result == CLI_OPTIONS_HELP ? CLI_EXIT_OK : CLI_EXIT_FAILURE;
}

/*
 * Where the value of an option goes, for those that only set a field: a row of a table that ends
 * with id 0, such as {CLI_SETS_TEXT('u', struct run, exec.user)}.
 *     CLI_SETS_TEXT  const char *: the argument as it is
 *     CLI_SETS_FLAG  bool: true
 *     CLI_SETS_TIME  int: milliseconds (cli_parse_duration_ms)
 *     CLI_SETS_LIST  struct sm_strv: the argument is one more
 *     CLI_SETS_WORDS the same with each word of the argument, between commas
 */
struct cli_setting {
    int id;
    enum { CLI_TEXT, CLI_FLAG, CLI_TIME, CLI_LIST, CLI_WORDS } kind;
    size_t field;
};

/* The place of a field; a division by 0, which no compiler takes, where its type is another. */
#define CLI_FIELD(type, field, as)                                                                 \
    (offsetof(type, field) /                                                                       \
        (size_t)__builtin_types_compatible_p(__typeof__(((type *)0)->field), as))
#define CLI_SETS_TEXT(id, type, field)  id, CLI_TEXT, CLI_FIELD(type, field, const char *)
#define CLI_SETS_FLAG(id, type, field)  id, CLI_FLAG, CLI_FIELD(type, field, bool)
#define CLI_SETS_LIST(id, type, field)  id, CLI_LIST, CLI_FIELD(type, field, struct sm_strv)
#define CLI_SETS_WORDS(id, type, field) id, CLI_WORDS, CLI_FIELD(type, field, struct sm_strv)
#define CLI_SETS_TIME(id, type, field)  id, CLI_TIME, CLI_FIELD(type, field, int)

/* Takes the option, whose value is in optarg, if the table has it, into the structure at `into`.
 * *status: 0, or the exit code after a message. */
bool cli_take_setting(const struct cli_command *command, const struct cli_setting *table, int id,
    void *into, int *status);

/* The flag is not set, if the table has one of that id. */
void cli_unset(const struct cli_setting *table, int id, void *into);

/* For commands that have no other option than --format: takes all options and returns what ended
 * them. `other` is the format beside json, which is printed unless asked otherwise. */
int cli_take_format(
    const struct cli_command *command, int argc, char **argv, const char *other, bool *json);

/* The row of --format in the table of such a command. */
#define CLI_FORMAT_OPTION(formats, help)                                                           \
    {                                                                                              \
        0x1f0, "format", formats, help                                                             \
    }

#endif
