/* The port proxy: see proxy.c. */
#ifndef SM_AGENT_PROXY_H
#define SM_AGENT_PROXY_H

/* Accepts the host's connections to ports of the guest on it from now on. */
int proxy_listen(int listener);
/* Takes such a connection over. */
void proxy_serve(int fd);

#endif
