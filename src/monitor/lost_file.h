/*
 * The SIGBUS handler of the machine's process. A snapshot or file system that is cut short while a
 * VM has it mapped takes pages from under our feet. Where the guest touches one its machine ends
 * with a sentence (vmm/memory.c); an access of ours (devices, a capture, the assist) is this
 * signal. It ends the process, and with it the VM, with the same sentence as its last word; the
 * client's program, whose handlers are its own affair, lives.
 */
#ifndef SM_MONITOR_LOST_FILE_H
#define SM_MONITOR_LOST_FILE_H

struct sm_machine;

/* From now on, of this machine. Before the first list of system calls: a handler cannot be set
 * afterwards. */
void sm_lost_file_watch(void);
void sm_lost_file_of(const struct sm_machine *machine);

#endif
