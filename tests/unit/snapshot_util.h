/* What the tests of the snapshot room share: golden files, temporary directories, machine state. */
#ifndef TESTS_SNAPSHOT_UTIL_H
#define TESTS_SNAPSHOT_UTIL_H

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "snapshot/snapshot.h"

/* The bytes of tests/fixtures/snapshot/NAME.hex; free() them. */
uint8_t *golden(const char *name, size_t *len);

/* A new directory under $TMPDIR (else in memory: quicker, and the file systems' own differences are
 * what tests/integration/snapshot.bats is for), and its removal with all it holds. */
char *make_dir(void);
void remove_dir(char *dir);

/* A file of these bytes in the directory; free() the path. */
char *make_file(const char *dir, const char *name, const void *data, size_t len);

/* The whole file; free() it. */
uint8_t *slurp(const char *path, size_t *len);

/* A snapshot with a bit of everything, for `memory_bytes` of RAM at 0. */
struct sm_snapshot *make_snapshot(uint64_t memory_bytes, bool marked);

/* RAM that looks like a guest's: mappings of zero and random pages, the same for the same seed. */
uint8_t *make_ram(uint64_t bytes, unsigned seed);

#endif
