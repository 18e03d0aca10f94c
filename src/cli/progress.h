/* What takes time, on a terminal. */
#ifndef SM_CLI_PROGRESS_H
#define SM_CLI_PROGRESS_H

#include <supermachine.h>

/* NULL (silent) unless stderr is a terminal and `quiet` is not set; the argument is not used. */
sm_progress_fn *cli_progress(bool quiet);
/* Wipes what was drawn. */
void cli_progress_end(void);

#endif
