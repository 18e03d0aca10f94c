/*
 * The guest's name server: forwards to the resolvers of the host's resolv.conf and sees every
 * question and answer, so that rules for names can be enforced.
 *
 * A question for a name that the policy denies is answered with NXDOMAIN and goes nowhere. Of an
 * answer every address is checked: one in a denied range makes the whole answer NXDOMAIN (DNS
 * rebinding), and addresses of names that rules speak of are learned for as long as their TTL says.
 *
 * Each question goes out from a socket of its own, connected to the resolver, with a fresh random
 * id: answers can be neither spoofed from aside nor mixed up. One that is silent for SM_DNS_TRY_MS,
 * cannot be reached or answers that it cannot help (SERVFAIL, NOTIMP, REFUSED) is followed by the
 * next; the first answer that helps is taken, and the last where none does. Questions under way are
 * bounded in number and time; resolv.conf is read again when it has changed.
 *
 * A question goes on as it came. By UDP an answer of more than the asker takes (SM_DNS_MAX_UDP at
 * most) comes cut, with the flag that says so; who then asks over TCP (dns_stream.h) has the
 * resolvers asked over TCP, which give it whole.
 */
#ifndef SM_NET_DNS_PROXY_H
#define SM_NET_DNS_PROXY_H

#include "net/dns_message.h"
#include "net/egress.h"
#include "util/loop.h"

#define SM_DNS_MAX_PENDING 256
#define SM_DNS_TRY_MS      1000  /* before the next resolver is asked, too */
#define SM_DNS_TRIES       3     /* of all resolvers together */
#define SM_DNS_GIVE_UP_MS  4500  /* a guest's own patience is 5 s, as a rule */
#define SM_DNS_PREFER_MS   60000 /* the resolver that answered for one that was silent */

/* Who asked; handed back with the answer. */
struct sm_dns_client {
    bool v6;
    uint16_t port;
    uint32_t stream; /* its number, of the caller's choice; 0: a datagram */
};

typedef void sm_dns_answer_fn(
    void *arg, const struct sm_dns_client *client, const uint8_t *msg, size_t len);

struct sm_dns_proxy;

/* `resolv_conf` NULL: /etc/resolv.conf; a name server may be written [ADDRESS]:PORT. egress (and
 * with it the policy) outlives the proxy. */
int sm_dns_proxy_create(struct sm_loop *loop, struct sm_egress *egress, const char *resolv_conf,
    sm_dns_answer_fn *answer, void *arg, struct sm_dns_proxy **proxy, sm_error *err);
void sm_dns_proxy_destroy(struct sm_dns_proxy *proxy);

/* From now on no file is read: somebody else does, whom `asked` tells that there is a question. */
void sm_dns_proxy_have_told(struct sm_dns_proxy *proxy, void (*asked)(void *arg), void *arg);
/* The contents of resolv.conf, which is written to. Questions under way that are asked once more
 * are asked of the new name servers. */
void sm_dns_proxy_tell(struct sm_dns_proxy *proxy, char *text);
SM_DEFINE_CLEANUP(struct sm_dns_proxy *, sm_dns_proxy_destroy)

/* Takes a question; the answer may come before this returns. False: it is none, or longer than
 * SM_DNS_MAX_UDP, and there will be no answer. */
bool sm_dns_proxy_ask(
    struct sm_dns_proxy *proxy, const struct sm_dns_client *client, const void *msg, size_t len);

/* Forgets what came by this stream. */
void sm_dns_proxy_forget(struct sm_dns_proxy *proxy, uint32_t stream);

/* Forgets all that is under way. */
void sm_dns_proxy_reset(struct sm_dns_proxy *proxy);

#endif
