/* A published port: which one of the host leads to which one of the guest, and its text form. */
#ifndef SM_NET_PORTS_SPEC_H
#define SM_NET_PORTS_SPEC_H

#include <supermachine.h>

#include "net/addr.h"

struct sm_port_spec {
    struct sm_ip ip;    /* of the host */
    uint16_t host_port; /* 0: any that is free */
    uint16_t guest_port;
    uint8_t protocol; /* 6 or 17 */
    bool found;       /* nobody asked for it (found.h) */
};

/* "[[IP:]HOST:]GUEST[/tcp|udp]", IPv6 addresses in brackets; an empty HOST is any free port.
 * Without IP it is 127.0.0.1. */
int sm_port_spec_parse(const char *text, struct sm_port_spec *spec, sm_error *err);

#endif
