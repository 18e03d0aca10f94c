/* The agent's requests, and with them the whole agent but for its machine: see requests.c. */
#ifndef SM_AGENT_REQUESTS_H
#define SM_AGENT_REQUESTS_H

/* The loop is there, and conns that are added to it are served. -1 and errno on failure. */
int requests_init(void);

#endif
