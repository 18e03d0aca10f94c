/* From the kernel's hand to a container's root: see boot.c. */
#ifndef SM_AGENT_BOOT_H
#define SM_AGENT_BOOT_H

/* Returns when all is in place; otherwise it says why on the console and ends the machine. */
void boot(const char *hostname, const char *root);

#endif
