/* Which layers of a sandbox this host gives: the role of supermachine-vm that doctor asks. It is
 * confined as a machine's process is, and says what came of it. */
#ifndef SM_MONITOR_LAYERS_H
#define SM_MONITOR_LAYERS_H

/* Writes a line "STATE\tNAME\tREASON" for each layer that an ordinary start gives to the descriptor
 * that it begins with. The status of the program. */
int sm_layers_role(void);

#endif
