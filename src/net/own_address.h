/*
 * The addresses of this host: what is sent to them reaches what listens here, as its loopback does,
 * whatever a firewall before the host keeps away.
 *
 * The kernel is asked where it would route a packet (RTM_GETROUTE): that is true at any time, of
 * ranges that are local as of single addresses, and takes 3 us. Answers are kept for a second, for
 * the packets of UDP.
 *
 * Threads: one at a time.
 */
#ifndef SM_NET_OWN_ADDRESS_H
#define SM_NET_OWN_ADDRESS_H

#include <supermachine.h>

#include "net/addr.h"
#include "util/cleanup.h"

#define SM_OWN_ADDRESS_MS 1000

struct sm_own_address;

int sm_own_address_create(struct sm_own_address **own, sm_error *err);
void sm_own_address_destroy(struct sm_own_address *own);
SM_DEFINE_CLEANUP(struct sm_own_address *, sm_own_address_destroy)

/* Is it one of this host, or does it carry an IPv4 address that is? True when the kernel does not
 * say. Also for `own` NULL: then none is. */
bool sm_own_address_has(struct sm_own_address *own, const struct sm_ip *ip, uint64_t now_ms);

#endif
