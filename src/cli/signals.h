/*
 * Signals of the `run` command. All that matter are blocked in every thread and taken by one thread with
 * sigwait, so that nothing ever runs in a signal handler. Until a command runs in the VM they end the
 * process as they would by default, with the terminal put back. Once it runs they are passed on
 * to it: SIGTERM as the image's StopSignal, the others as they are. The third request to end within
 * ten seconds kills the command, the next one ends the process whatever the guest does.
 */
#ifndef SM_CLI_SIGNALS_H
#define SM_CLI_SIGNALS_H

#include <supermachine.h>

/* Before any other thread is started. */
bool cli_signals_start(void);
/* A command is being started: signals wait until it is attached, since it may run already. */
void cli_signals_hold(void);
/* From now on signals and changes of the terminal's size go to this exec; NULL: it is over, or
 * could not be started. */
void cli_signals_attach(sm_exec *exec, bool tty);

#endif
