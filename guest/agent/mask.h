/* What of /proc and /sys a container is not to see, or not to change: see mask.c. */
#ifndef SM_AGENT_MASK_H
#define SM_AGENT_MASK_H

/* In the container's mount namespace, when all is mounted. 0, or -1 and errno. */
int mask_paths(void);

#endif
