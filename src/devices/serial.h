/*
 * Output-only subset of a 16550 UART and the bounded console log behind it.
 *
 * The guest's early console polls LSR and writes THR; nothing is ever received. Bytes go into a
 * ring of fixed size under a mutex (vCPU threads write, anybody reads the tail). Complete lines are
 * also shown to an observer, which is how a kernel panic is noticed (the guest's root can write
 * them, too).
 */
#ifndef SM_DEVICES_SERIAL_H
#define SM_DEVICES_SERIAL_H

#include "devices/bus.h"
#include "util/cleanup.h"

#define SM_SERIAL_PORTS 8 /* registers */

struct sm_serial;

/* A line without its end, NUL-terminated, cut after 1023 bytes. On the vCPU thread that wrote the
 * newline, no lock held. */
typedef void sm_serial_line_fn(void *arg, const char *line);

/* log_size: bytes kept; 0: 256 KiB. on_line may be NULL. */
int sm_serial_create(struct sm_serial **serial, size_t log_size, sm_serial_line_fn *on_line,
    void *arg, sm_error *err);
void sm_serial_destroy(struct sm_serial *serial);
SM_DEFINE_CLEANUP(struct sm_serial *, sm_serial_destroy)

/* Port window; the device pointer is the struct sm_serial. */
extern const struct sm_bus_ops sm_serial_ops;

/* Copies the newest bytes into buf (NUL-terminated, at most size - 1) and returns how many the log
 * holds. size may be 0. */
size_t sm_serial_tail(struct sm_serial *serial, char *buf, size_t size);

/* True if the line is the kernel's announcement of a panic, or looks like it. */
bool sm_serial_line_is_panic(const char *line);

#endif
