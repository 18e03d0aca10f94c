/* What commands print on standard output. */
#ifndef SM_CLI_PRINT_H
#define SM_CLI_PRINT_H

#include <jansson.h>

#include "supermachine.h"

/* What --format json prints: on standard output, indented, with a line break at the end. Control
 * characters are escaped, also those that JSON lets pass. */
void cli_print_json(const json_t *value);

/* printf for what others wrote (names, configurations, snapshots): it comes out as text
 * (util/text.h). */
void cli_print(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* One line on stdout about a snapshot that was made. */
void cli_print_snapshot_stats(const sm_snapshot_stats *stats);

#endif
