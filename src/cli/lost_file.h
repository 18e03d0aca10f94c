/*
 * The command's SIGBUS handler. A snapshot or file system that is cut short while a VM has it
 * mapped takes pages from under our feet; that ends the command with a sentence that names the file
 * and with CLI_EXIT_FAILURE, where it would have died of the signal. The library has no such
 * handler: it would be the whole program's.
 */
#ifndef SM_CLI_LOST_FILE_H
#define SM_CLI_LOST_FILE_H

void cli_lost_file_watch(void);

#endif
