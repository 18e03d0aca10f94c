/* The host's terminal: raw while a command in a VM owns it, and always put back. */
#ifndef SM_CLI_TERMINAL_H
#define SM_CLI_TERMINAL_H

#include <stdbool.h>
#include <stdint.h>

/* Puts the terminal `fd` in raw mode and has it put back at exit; again after a stop (SIGCONT). */
bool cli_terminal_raw(int fd);
/* Puts it back now; any thread, any number of times. */
void cli_terminal_restore(void);
/* The same for a signal handler after which nothing else runs: no lock. */
void cli_terminal_restore_now(void);
/* Again raw, if it was raw before the process was stopped. */
void cli_terminal_continue(void);
/* Rows and columns of the terminal that is stdin, stdout or stderr. */
bool cli_terminal_size(uint16_t *rows, uint16_t *columns);

#endif
