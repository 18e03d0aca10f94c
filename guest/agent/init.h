/* The small init: see init.c. */
#ifndef SM_AGENT_INIT_H
#define SM_AGENT_INIT_H

/* What the agent's program is executed as to be it. */
#define INIT_NAME "supermachine-init"

/* Its main. */
int init_main(int argc, char **argv);

#endif
