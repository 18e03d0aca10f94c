/* What the benchmarks share. See bench.h. */
#include "bench.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

double bench_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec * 1e-3;
}

void bench_add(struct bench_samples *s, double us)
{
    if (s->n < BENCH_MAX_RUNS)
        s->v[s->n++] = us;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

double bench_quantile(struct bench_samples *s, double q)
{
    if (!s->n)
        return 0;
    qsort(s->v, s->n, sizeof(s->v[0]), by_value);
    return s->v[(size_t)(q * (double)(s->n - 1) + 0.5)];
}

void bench_die(const char *what, const sm_error *err)
{
    fprintf(stderr, "bench: %s: %s\n", what, err ? err->message : strerror(errno));
    exit(1);
}

static void cell(const json_t *value, char *text, size_t size)
{
    if (json_is_string(value))
        snprintf(text, size, "%s", json_string_value(value));
    else if (json_is_real(value))
        snprintf(text, size, "%.*f", json_real_value(value) < 100 ? 2 : 0, json_real_value(value));
    else if (json_is_integer(value))
        snprintf(text, size, "%lld", (long long)json_integer_value(value));
    else
        snprintf(text, size, "-");
}

void bench_print_table(const json_t *rows)
{
    enum { COLUMNS = 16 };
    size_t width[COLUMNS] = {0}, i;
    char text[128];
    const char *key;
    json_t *row, *value;
    json_t *first = json_array_get(rows, 0);
    size_t c = 0;
    json_object_foreach(first, key, value) if (c < COLUMNS) width[c++] = strlen(key);
    json_array_foreach(rows, i, row)
    {
        c = 0;
        json_object_foreach(first, key, value)
        {
            cell(json_object_get(row, key), text, sizeof(text));
            if (c < COLUMNS && strlen(text) > width[c])
                width[c] = strlen(text);
            c++;
        }
    }
    c = 0;
    json_object_foreach(first, key, value)
    {
        printf(c ? "  %*s" : "%-*s", (int)width[c], key);
        c++;
    }
    putchar('\n');
    json_array_foreach(rows, i, row)
    {
        c = 0;
        json_object_foreach(first, key, value)
        {
            cell(json_object_get(row, key), text, sizeof(text));
            printf(c ? "  %*s" : "%-*s", (int)width[c], text);
            c++;
        }
        putchar('\n');
    }
}

static void cpu_model(char *text, size_t size)
{
    snprintf(text, size, "unknown");
    FILE *f = fopen("/proc/cpuinfo", "re");
    char line[256];
    while (f && fgets(line, sizeof(line), f)) {
        if (!strncmp(line, "model name", 10) && strchr(line, ':')) {
            snprintf(text, size, "%.*s", (int)strcspn(strchr(line, ':') + 2, "\n"),
                strchr(line, ':') + 2);
            break;
        }
    }
    if (f)
        fclose(f);
}

void bench_write_json(json_t *report, const char *path)
{
    struct utsname u;
    char cpu[128];
    uname(&u);
    cpu_model(cpu, sizeof(cpu));
    json_object_set_new(report, "machine",
        json_pack("{s:s, s:s, s:i}", "kernel", u.release, "cpu", cpu, "cores",
            (int)sysconf(_SC_NPROCESSORS_ONLN)));
    if (json_dump_file(report, path, JSON_INDENT(2)))
        bench_die(path, NULL);
}
