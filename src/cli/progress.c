/*
 * A block of lines that is drawn over itself: a bar for each layer that is under way, and below
 * them what the whole is at. Layers that are here have no bar. The state is global, as the terminal
 * is the process's.
 */
#include "cli/progress.h"

#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "cli/values.h"

enum {
    MAX_BARS = 8,
    BAR_WIDTH = 24,
    MAX_LINE = 160,
};

static struct bar {
    unsigned layer, layers;
    char name[16];
    uint64_t done, total;
} bars[MAX_BARS];
static size_t bar_count;
static char whole[MAX_LINE];
static size_t lines_shown;

/* The bar of the layer, in the order of layers, which is made where there is none and room; NULL:
 * it gets none. */
static struct bar *find_bar(const sm_progress *p)
{
    size_t at = 0;
    while (at < bar_count && bars[at].layer < p->layer)
        at++;
    if (at < bar_count && bars[at].layer == p->layer)
        return &bars[at];
    if (bar_count == MAX_BARS)
        return NULL;
    memmove(&bars[at + 1], &bars[at], (bar_count++ - at) * sizeof(*bars));
    return &bars[at];
}

static void remove_bar(struct bar *bar)
{
    bar_count--;
    memmove(bar, bar + 1, (size_t)(&bars[bar_count] - bar) * sizeof(*bar));
}

static void take_layer(const sm_progress *p)
{
    struct bar *bar = find_bar(p);
    if (!bar)
        return;
    *bar = (struct bar){p->layer, p->layers, "", p->done, p->total};
    snprintf(bar->name, sizeof(bar->name), "%s", p->what);
    if (p->done >= p->total)
        remove_bar(bar);
}

static void take_whole(const sm_progress *p)
{
    char a[32], b[32];
    if (p->total)
        snprintf(whole, sizeof(whole), "%.60s %s / %s", p->what, cli_format_size(p->done, a),
            cli_format_size(p->total, b));
    else
        snprintf(whole, sizeof(whole), "%.76s", p->what);
}

static void wipe(void)
{
    if (lines_shown > 1)
        fprintf(stderr, "\033[%zuA", lines_shown - 1);
    if (lines_shown)
        fputs("\r\033[J", stderr);
    lines_shown = 0;
}

static void format_bar(const struct bar *bar, char line[MAX_LINE])
{
    static const char full[] = "########################", empty[] = "------------------------";
    char a[32], b[32];
    int n = (int)(bar->done * BAR_WIDTH / bar->total);
    snprintf(line, MAX_LINE, "layer %u of %u %-12s [%.*s%.*s] %s / %s", bar->layer, bar->layers,
        bar->name, n, full, BAR_WIDTH - n, empty, cli_format_size(bar->done, a),
        cli_format_size(bar->total, b));
}

/* Lines that are cut at the terminal's width, since a line that wraps would be two. */
static void draw(void)
{
    struct winsize size = {0};
    int width =
        ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
    wipe();
    for (size_t i = 0; i < bar_count; i++) {
        char line[MAX_LINE];
        format_bar(&bars[i], line);
        fprintf(stderr, "%.*s\n", width, line);
    }
    fprintf(stderr, "%.*s", width, whole);
    fflush(stderr);
    lines_shown = bar_count + 1;
}

static void show(void *arg, const sm_progress *p)
{
    if (p->layer)
        take_layer(p);
    else
        take_whole(p);
    draw();
}

sm_progress_fn *cli_progress(bool quiet)
{
    return !quiet && isatty(STDERR_FILENO) ? show : NULL;
}

void cli_progress_end(void)
{
    wipe();
    fflush(stderr);
    bar_count = 0;
    *whole = '\0';
}
