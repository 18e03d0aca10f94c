/* How long a test waits for what must come. Only what hangs takes so long: nothing is judged by it,
 * however busy the host. */
#ifndef PATIENCE_H
#define PATIENCE_H

#include <sys/time.h>

#define PATIENCE_MS 600000

/* For SO_RCVTIMEO. */
static const struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};

#endif
