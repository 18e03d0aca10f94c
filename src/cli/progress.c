/* Progress on a terminal. See progress.h. */
#include "cli/progress.h"

#include <stdio.h>
#include <unistd.h>

#include "cli/options.h"

static bool shown;

static void show(void *arg, const char *what, uint64_t done, uint64_t total)
{
    char a[32], b[32];
    if (total)
        fprintf(stderr, "\r\033[K%.60s %s / %s", what, cli_format_size(done, a),
            cli_format_size(total, b));
    else
        fprintf(stderr, "\r\033[K%.76s", what);
    fflush(stderr);
    shown = true;
}

sm_progress_fn *cli_progress(bool quiet)
{
    return !quiet && isatty(STDERR_FILENO) ? show : NULL;
}

void cli_progress_end(void)
{
    if (shown)
        fputs("\r\033[K", stderr);
    shown = false;
}
