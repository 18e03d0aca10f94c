/* Numbers, sizes and times as people write and read them. */
#ifndef SM_CLI_VALUES_H
#define SM_CLI_VALUES_H

#include <stdbool.h>
#include <stdint.h>

/* Whether `text` is a number in lo..hi, or a size such as 256m, 1g, 512MiB (1024-based). */
bool cli_parse_number(const char *text, uint64_t lo, uint64_t hi, uint64_t *value);
bool cli_parse_size(const char *text, uint64_t *bytes);
/* Seconds, with a fraction or with the unit ms, s, m or h. */
bool cli_parse_duration_ms(const char *text, int *ms);

/* "1.5 GiB" for people: the units in which memory is asked for. */
const char *cli_format_size(uint64_t bytes, char buf[32]);

#endif
