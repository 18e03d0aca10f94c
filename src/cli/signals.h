/*
 * Signals of the `run` command. All that matter are blocked in every thread and taken by one thread
 * with sigtimedwait, so that nothing ever runs in a signal handler. Until a command is started in
 * the VM they end the process as they would by default, with the terminal put back. From then on
 * they are passed on to it: SIGTERM as the image's StopSignal, the others as they are. A command
 * that runs on when the stop timeout is over since SIGTERM is ended with its VM, and so is
 * everything at the third request to end within ten seconds: neither asks the guest, which may
 * hang. The VM is ended by a thread of its own: the next request ends the process, whatever that
 * one waits for.
 */
#ifndef SM_CLI_SIGNALS_H
#define SM_CLI_SIGNALS_H

#include <supermachine.h>

/* Before any other thread is started. */
bool cli_signals_start(void);
/* A command is being started in the VM: signals wait until it is attached, since it may run
 * already. */
void cli_signals_hold(sm_vm *vm, int stop_timeout_ms);
/* From now on signals and changes of the terminal's size go to this exec. */
void cli_signals_attach(sm_exec *exec, bool tty);
/* It is over, or could not be started: neither it nor the VM is touched any more. True: we have
 * ended the VM. */
bool cli_signals_release(void);

#endif
