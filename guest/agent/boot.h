/* From the kernel's hand to a container's root: see boot.c. */
#ifndef SM_AGENT_BOOT_H
#define SM_AGENT_BOOT_H

/* Returns when everything is in place; otherwise it says why on the console and ends the machine.
 */
void boot(const char *hostname, const char *root);

/* Loopback and the network card: see net.c. */
void network_up(void);

/* One line on the console, then the machine goes down. errnum 0: no number to tell. */
_Noreturn void die(const char *what, const char *on, int errnum);
_Noreturn void power_off(void);

#endif
