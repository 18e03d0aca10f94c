/* What listens in the guest, and is it idle: see probe.c. */
#ifndef SM_AGENT_PROBE_H
#define SM_AGENT_PROBE_H

#include "conn.h"

void probe_listeners(struct conn *c);
void probe_wait_listen(struct conn *c, const struct sm_wire_wait_listen *m);
void probe_wait_idle(struct conn *c, const struct sm_wire_wait_idle *m);

/* Opens what tells whether the guest is idle: once, as a look must not itself be what keeps it
 * busy, and before there is a container, which may have another file by that name. */
void probe_open(void);

/* A SOCKETS frame, made in place behind the output of a conn. */
struct probe {
    struct buffer *buffer;
    uint8_t *frame;
    uint32_t count, max;
    uint16_t want;       /* a TCP port to look for */
    bool any_tcp, found; /* there is one; it is there */
};

/* Looks at the kernel's sockets. False: it cannot be done, and ERROR was sent. Otherwise the frame
 * is then sent or dropped. */
bool probe_look(struct conn *c, struct probe *p, bool tcp_only);
void probe_send(struct conn *c, const struct probe *p);
void probe_drop(struct conn *c, const struct probe *p);

/* For the tests: the path of /proc/uptime, before the first look. */
void probe_set_uptime(const char *path);

#endif
