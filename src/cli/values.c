/* See values.h. All of it is text that the user wrote: what is not whole is refused. */
#include "cli/values.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/bytes.h"

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
