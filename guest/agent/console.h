/* How the agent ends: see console.c. */
#ifndef SM_AGENT_CONSOLE_H
#define SM_AGENT_CONSOLE_H

/* One line on the console, then the machine goes down. errnum 0: no number to tell. */
_Noreturn void die(const char *what, const char *on, int errnum);
_Noreturn void power_off(void);

#endif
