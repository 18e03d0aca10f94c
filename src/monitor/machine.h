/*
 * The machine's process of a VM: KVM, guest memory, devices, and nothing else. It is what a guest
 * takes over that gets out of its VM, so it has nothing that would be worth it: it opens no file
 * and no socket, and asks for nothing (control/machine_call.h has what it is asked, and by which
 * descriptors).
 *
 *     start    what has to be opened in this process is opened: its page map
 *     confined the first stage of src/sandbox: calls that make a VM are left
 *     START    the snapshot is read, or the kernel loaded; devices and vCPUs are made
 *     running  the second stage: what runs one is left. Then the guest runs.
 *
 * Threads: the main thread answers SM_MACHINE_QUICK and watches for the end of the client; one more
 * answers SM_MACHINE_LIFE; then those of vmm/machine.h, and one for each snapshot that is written.
 * The process ends with its client, whose end a pidfd tells: the socket may live on in a child that
 * the client forked.
 */
#ifndef SM_MONITOR_MACHINE_H
#define SM_MONITOR_MACHINE_H

/* The role of the program. Returns its exit status when the client wants it to end. */
int sm_machine_role(void);

#endif
