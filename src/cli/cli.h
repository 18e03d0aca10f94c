/*
 * The command line: every subcommand is one `struct cli_command` with the table of its options, in
 * the file of the command or of its group; parsing and help texts both come from that table.
 */
#ifndef SM_CLI_CLI_H
#define SM_CLI_CLI_H

#include <supermachine.h>

/* Exit codes of our own; otherwise `run` returns that of the command, or 128 + the signal that
 * ended it. */
enum {
    CLI_EXIT_OK = 0,
    CLI_EXIT_TIMEOUT = 124,  /* --timeout was over, as timeout(1) has it */
    CLI_EXIT_FAILURE = 125,  /* supermachine itself failed */
    CLI_EXIT_NOEXEC = 126,   /* the command cannot be invoked */
    CLI_EXIT_NOTFOUND = 127, /* no such command in the image */
};

struct cli_option {
    int id;           /* the short option's letter, or a value above 255 where there is none */
    const char *name; /* of the long option; NULL: there is none */
    /* what its argument is called; NULL: it takes none but "=true" and "=false", and with that is
     * not there; "=BOOL": it may have one */
    const char *arg;
    const char *help; /* NULL: accepted, but not listed */
};

struct cli_command {
    const char *name;                 /* "run", "image ls" */
    const char *synopsis;             /* what follows the options: "IMAGE [COMMAND [ARG...]]" */
    const char *summary;              /* one line */
    const char *notes;                /* more lines for the help of the command; NULL: none */
    const struct cli_option *options; /* the last has id 0; NULL: none */
    const struct cli_option *also;    /* more of them; NULL: none */
    int (*run)(const struct cli_command *self, int argc, char **argv);
    const struct cli_command *const *commands; /* of a group, NULL at the end; then run is NULL */
};

extern const struct cli_command cli_run, cli_pull, cli_login, cli_logout, cli_bake, cli_image,
    cli_snapshot, cli_cache, cli_doctor, cli_port, cli_version, cli_help;
extern const struct cli_command cli_image_tag, cli_image_prune, cli_image_save, cli_image_load,
    cli_image_history;
extern const struct cli_command cli_root;

/* Prints "supermachine: sentence" on stderr and returns CLI_EXIT_FAILURE. */
int cli_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
/* The same for an error of the library. */
int cli_fail_error(const sm_error *err);
/* As cli_fail, with the hint where the help of the command is. */
int cli_fail_usage(const struct cli_command *command, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

void cli_print_help(const struct cli_command *command);

#endif
