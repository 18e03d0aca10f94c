/* See print.h. What a guest, an image or a registry wrote is never obeyed by the terminal. */
#include "cli/print.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "cli/values.h"
#include "util/text.h"

/* A byte sequence that a terminal obeys; JSON must only escape what is below 0x20. Bytes in
 * *length. */
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

void cli_print_snapshot_stats(const sm_snapshot_stats *stats)
{
    char data[32], ram[32];
    printf("%s of %s of memory; the guest stood still for %.1f ms, writing took %.1f ms\n",
        cli_format_size(stats->data_bytes, data), cli_format_size(stats->ram_bytes, ram),
        (double)stats->pause_us / 1e3, (double)stats->write_us / 1e3);
}
