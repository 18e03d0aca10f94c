/*
 * Egress policy: what a guest may reach. Parsing and deciding only; net/egress.h applies it to
 * frames.
 *
 * A policy is a stack of layers and what any layer denies is denied. The command line makes one
 * layer; restoring a snapshot puts the new layer on top of the saved ones, so that a snapshot can
 * only ever become narrower. A policy without layers is "nobody has decided yet": the Internet and
 * private networks are allowed. Whoever captures a VM for others to restore saves that as `layer
 * all`.
 *
 * Within a layer, first match decides:
 *   1. loopback and unspecified addresses: denied, by whatever disguise. The one way to the host's
 *      loopback is the gateway address, for ports that every layer allows with `host-loopback`.
 *      Other addresses of this host, which the parser of rules cannot know, are decided by
 *      themselves (sm_policy_decide_own).
 *   2. deny rules, also for the IPv4 address inside of a translated or tunnelled IPv6 one;
 *   3. allow rules for addresses;
 *   4. allow rules for names: an address that our DNS gave for a matching name, as long as that
 *      entry lives. They never open private ranges where the mode denies those (DNS rebinding);
 *   5. ports 53 and 853 where the layer has rules for names: denied, or another resolver would be
 *      the way around them;
 *   6. the mode: all, public (everything but private, link-local, shared, multicast and reserved
 *      ranges) or none.
 * Rules with ports do not match protocols without ports (ICMP echo).
 *
 * Text form, one item a line; also the form that is stored:
 *     layer all|public|none
 *     allow|deny TARGET
 * The words may be written as the command's options (--egress MODE, --allow TARGET, --deny TARGET),
 * which is what messages say then. TARGET: CIDR, ADDRESS, [V6-CIDR], NAME or *.NAME, host-loopback,
 * each with an optional :PORT[-PORT]; an IPv6 target with ports is written in brackets.
 */
#ifndef SM_NET_POLICY_H
#define SM_NET_POLICY_H

#include <supermachine.h>

#include "net/addr.h"
#include "util/cleanup.h"

#define SM_POLICY_MAX_LAYERS 8
#define SM_POLICY_MAX_RULES  256 /* of all layers */
#define SM_POLICY_MAX_TEXT   (128 * 1024)
#define SM_NAME_MAX          254 /* "a.b.c" with NUL; DNS allows 253 characters */

enum sm_egress_mode { SM_EGRESS_ALL, SM_EGRESS_PUBLIC, SM_EGRESS_NONE };

enum sm_target_kind { SM_TARGET_NET, SM_TARGET_NAME, SM_TARGET_HOST };

struct sm_egress_rule {
    bool allow;
    bool wildcard; /* NAME: *.name */
    uint8_t layer;
    uint8_t kind;              /* enum sm_target_kind */
    uint8_t prefix;            /* NET: of the 16-byte form */
    uint16_t port_lo, port_hi; /* 0..65535: any */
    struct sm_ip net;
    char name[SM_NAME_MAX]; /* lower case, no trailing dot */
};

/* IPv4 rules match IPv4 alone, and IPv6 rules ([::/0] too) IPv6 alone. */
static inline bool sm_rule_is_v4(const struct sm_egress_rule *rule)
{
    return rule->prefix >= 96 && sm_ip_is_v4(&rule->net);
}

struct sm_policy {
    unsigned n_layers;
    uint8_t mode[SM_POLICY_MAX_LAYERS]; /* enum sm_egress_mode */
    size_t n_rules;
    struct sm_egress_rule *rules;
};

/* Which name rules an address belongs to, by index of the rule. */
struct sm_name_set {
    uint64_t bits[SM_POLICY_MAX_RULES / 64];
};

enum sm_verdict {
    SM_VERDICT_ALLOW = 0,
    SM_VERDICT_LOOPBACK, /* the host itself, */
    SM_VERDICT_OWN,      /* by another of its addresses */
    SM_VERDICT_PRIVATE,  /* a range that the mode denies */
    SM_VERDICT_RULE,     /* a deny rule */
    SM_VERDICT_UNLISTED, /* mode none and no allow rule */
    SM_VERDICT_RESOLVER, /* another DNS server while names are enforced */
    SM_VERDICT_NAME,     /* a name that may not be looked up */
    SM_VERDICT_REBIND,   /* a DNS answer that names a denied address */
    SM_VERDICT_COUNT
};
const char *sm_verdict_text(enum sm_verdict verdict);

#define SM_NO_PORT  (-1)
#define SM_ANY_PORT (-2) /* some port at all */

void sm_policy_clear(struct sm_policy *policy);
#define auto_policy SM_CLEANUP(sm_policy_clear) struct sm_policy

/* Reads a mode's name; false: none of them. */
bool sm_egress_mode_parse(const char *text, enum sm_egress_mode *mode);

/* Puts a layer on top / adds a rule to the top layer. */
int sm_policy_add_layer(struct sm_policy *policy, enum sm_egress_mode mode, sm_error *err);
int sm_policy_add_rule(struct sm_policy *policy, bool allow, const char *target, sm_error *err);

/* Puts all layers of `other` on top, leaving out those that are there already. */
int sm_policy_narrow(struct sm_policy *policy, const struct sm_policy *other, sm_error *err);

/* Text to policy and back; the text of format is malloc'ed. *policy is overwritten, only on
 * success. */
int sm_policy_parse(const char *text, size_t len, struct sm_policy *policy, sm_error *err);
int sm_policy_format(const struct sm_policy *policy, char **text, sm_error *err);

/* May the guest talk to this address? `names`: the name rules the address was learned for, or
 * NULL. */
enum sm_verdict sm_policy_decide(const struct sm_policy *policy, const struct sm_ip *ip, int port,
    const struct sm_name_set *names);

/* The same for an address of this host (own_address.h): every layer has to open it, by a rule for
 * this very address or by `host-loopback`. */
enum sm_verdict sm_policy_decide_own(const struct sm_policy *policy, const struct sm_ip *ip,
    int port, const struct sm_name_set *names);

/* May the guest reach this port of the host's loopback? */
enum sm_verdict sm_policy_decide_host(const struct sm_policy *policy, int port);
bool sm_policy_opens_host(const struct sm_policy *policy); /* any port at all */

/* May this name (any case, no trailing dot) be looked up? */
enum sm_verdict sm_policy_decide_name(const struct sm_policy *policy, const char *name);

/* May an allowed name be an alias (CNAME) of this one? Only deny rules speak here. */
enum sm_verdict sm_policy_decide_alias(const struct sm_policy *policy, const char *name);

/* May a DNS answer name this address? ALLOW, or REBIND. */
enum sm_verdict sm_policy_decide_answer(const struct sm_policy *policy, const struct sm_ip *ip);

bool sm_policy_has_names(const struct sm_policy *policy);
/* Adds the name rules that the name matches; true if there are any. */
bool sm_policy_match_names(
    const struct sm_policy *policy, const char *name, struct sm_name_set *set);

#endif
