/* A limit to the memory of this process, which those of its VM inherit and narrow: the last line
 * against a guest that finds a way to have us keep things for it. */
#ifndef SM_CLI_MEMORY_LIMIT_H
#define SM_CLI_MEMORY_LIMIT_H

#include <supermachine.h>

/* Before a VM is made or baked that has so much RAM (0: as the library gives where none is asked
 * for). */
void cli_limit_memory(uint64_t ram_bytes);
/* With the VM in place, where only its snapshot knows how much it has. */
void cli_limit_memory_now(void);

#endif
