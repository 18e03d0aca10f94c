/* The role "network" of supermachine-vm. */
#ifndef SM_MONITOR_NETWORK_H
#define SM_MONITOR_NETWORK_H

/* Returns the exit status. Its descriptors and what it is told: net/process_message.h. */
int sm_network_role(void);

#endif
