/* What the benchmarks share: the clock, medians, a table that is also JSON. */
#ifndef BENCH_BENCH_H
#define BENCH_BENCH_H

#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include <supermachine.h>

/* Microseconds of CLOCK_MONOTONIC. */
double bench_now(void);

/* Samples of one measure. */
#define BENCH_MAX_RUNS 1000
struct bench_samples {
    size_t n;
    double v[BENCH_MAX_RUNS];
};

void bench_add(struct bench_samples *samples, double us);
/* Quantile 0..1; 0.5 is the median. 0 if there is no sample. */
double bench_quantile(struct bench_samples *samples, double q);

/* Ends the program with the sentence. */
void bench_die(const char *what, const sm_error *err) __attribute__((noreturn));

/* Prints `rows` (an array of objects that all have the keys of the first) as a table; the first
 * column left-aligned. */
void bench_print_table(const json_t *rows);

/* Adds what the machine is (CPU, kernel, cores) to `report` and writes it to `path`. */
void bench_write_json(json_t *report, const char *path);

#endif
