/* Loopback and the network card: see net.c. What can change later is in system.h. */
#ifndef SM_AGENT_NET_H
#define SM_AGENT_NET_H

/* At boot; ends the machine if it cannot be done. */
void network_up(void);

#endif
