/* What a command says when it fails: one sentence on standard error, whatever text of others is in
 * it, and the exit code that is ours. Threads may fail at once: a line is not torn. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/cli.h"
#include "util/text.h"

static void print_sentence(const char *fmt, va_list ap)
{
    char *text;
    if (vasprintf(&text, fmt, ap) < 0)
        text = NULL;
    if (text)
        sm_text_clean(text, true);
    fprintf(stderr, "supermachine: %s", text ? text : fmt);
    free(text);
}

int cli_fail(const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    flockfile(stderr);
    print_sentence(fmt, ap);
    fputc('\n', stderr);
    funlockfile(stderr);
    va_end(ap);
    return CLI_EXIT_FAILURE;
}

int cli_fail_error(const sm_error *err)
{
    return cli_fail("%s", err->message);
}

int cli_fail_usage(const struct cli_command *command, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    print_sentence(fmt, ap);
    va_end(ap);
    fprintf(stderr, "; see 'supermachine%s%s --help'\n", *command->name ? " " : "", command->name);
    return CLI_EXIT_FAILURE;
}
