/* Decisions of the egress policy; the order is told in policy.h. */
#include <string.h>
#include <strings.h>

#include "net/policy.h"
#include "util/bytes.h"

static bool all_ports(const struct sm_egress_rule *rule)
{
    return rule->port_lo == 0 && rule->port_hi == 65535;
}

static bool port_matches(const struct sm_egress_rule *rule, int port)
{
    if (port == SM_NO_PORT || (port == SM_ANY_PORT && !rule->allow))
        return all_ports(rule);
    if (port == SM_ANY_PORT)
        return true;
    return port >= rule->port_lo && port <= rule->port_hi;
}

static bool net_matches(const struct sm_egress_rule *rule, const struct sm_ip *ip)
{
    return rule->kind == SM_TARGET_NET && sm_rule_is_v4(rule) == sm_ip_is_v4(ip) &&
           sm_ip_in_prefix(ip, &rule->net, rule->prefix);
}

static bool name_matches(const struct sm_egress_rule *rule, const char *name)
{
    if (rule->kind != SM_TARGET_NAME)
        return false;
    if (!rule->wildcard)
        return strcasecmp(name, rule->name) == 0;
    size_t have = strlen(name), want = strlen(rule->name);
    return have > want + 1 && name[have - want - 1] == '.' &&
           strcasecmp(name + have - want, rule->name) == 0;
}

static bool in_set(const struct sm_name_set *set, size_t i)
{
    return set && (set->bits[i / 64] >> (i % 64) & 1);
}

/* One layer's word on an address that is not the host itself. */
static enum sm_verdict decide_layer(const struct sm_policy *p, unsigned layer,
    const struct sm_ip *ip, enum sm_ip_class class, int port, const struct sm_name_set *names)
{
    struct sm_ip inner[2];
    size_t n_inner = sm_ip_embedded(ip, inner);
    bool by_address = false, by_name = false, has_names = false;
    for (size_t i = 0; i < p->n_rules; i++) {
        const struct sm_egress_rule *rule = &p->rules[i];
        if (rule->layer != layer)
            continue;
        has_names = has_names || rule->kind == SM_TARGET_NAME;
        if (!port_matches(rule, port))
            continue;
        bool match = net_matches(rule, ip);
        for (size_t k = 0; !rule->allow && k < n_inner; k++)
            match = match || net_matches(rule, &inner[k]);
        if (!rule->allow && (match || in_set(names, i)))
            return SM_VERDICT_RULE;
        by_address = by_address || match;
        by_name = by_name || (rule->allow && in_set(names, i));
    }
    if (by_address)
        return SM_VERDICT_ALLOW;
    if (p->mode[layer] != SM_EGRESS_ALL && class == SM_IP_PRIVATE)
        return SM_VERDICT_PRIVATE;
    if (by_name)
        return SM_VERDICT_ALLOW;
    if (has_names && (port == 53 || port == 853))
        return SM_VERDICT_RESOLVER;
    return p->mode[layer] == SM_EGRESS_NONE ? SM_VERDICT_UNLISTED : SM_VERDICT_ALLOW;
}

enum sm_verdict sm_policy_decide(const struct sm_policy *policy, const struct sm_ip *ip, int port,
    const struct sm_name_set *names)
{
    enum sm_ip_class class = sm_ip_classify(ip);
    if (class == SM_IP_THIS_HOST)
        return SM_VERDICT_LOOPBACK;
    for (unsigned layer = 0; layer < policy->n_layers; layer++) {
        enum sm_verdict v = decide_layer(policy, layer, ip, class, port, names);
        if (v != SM_VERDICT_ALLOW)
            return v;
    }
    return SM_VERDICT_ALLOW;
}

static enum sm_verdict decide_own_layer(const struct sm_policy *p, unsigned layer,
    const struct sm_ip *ip, int port, const struct sm_name_set *names)
{
    bool opened = false;
    for (size_t i = 0; i < p->n_rules; i++) {
        const struct sm_egress_rule *rule = &p->rules[i];
        if (rule->layer != layer || !port_matches(rule, port))
            continue;
        bool match = rule->kind == SM_TARGET_HOST || net_matches(rule, ip);
        if (!rule->allow && (match || in_set(names, i)))
            return SM_VERDICT_RULE;
        /* A range is not meant to open the host that happens to be in it. */
        opened = opened ||
                 (rule->allow && match && (rule->kind == SM_TARGET_HOST || rule->prefix == 128));
    }
    return opened ? SM_VERDICT_ALLOW : SM_VERDICT_OWN;
}

enum sm_verdict sm_policy_decide_own(const struct sm_policy *policy, const struct sm_ip *ip,
    int port, const struct sm_name_set *names)
{
    if (sm_ip_classify(ip) == SM_IP_THIS_HOST)
        return SM_VERDICT_LOOPBACK;
    enum sm_verdict v = policy->n_layers ? SM_VERDICT_ALLOW : SM_VERDICT_OWN;
    for (unsigned layer = 0; layer < policy->n_layers && v == SM_VERDICT_ALLOW; layer++)
        v = decide_own_layer(policy, layer, ip, port, names);
    return v;
}

enum sm_verdict sm_policy_decide_host(const struct sm_policy *policy, int port)
{
    if (policy->n_layers == 0)
        return SM_VERDICT_LOOPBACK;
    for (unsigned layer = 0; layer < policy->n_layers; layer++) {
        bool allowed = false;
        for (size_t i = 0; i < policy->n_rules; i++) {
            const struct sm_egress_rule *rule = &policy->rules[i];
            if (rule->layer != layer || rule->kind != SM_TARGET_HOST || !port_matches(rule, port))
                continue;
            if (!rule->allow)
                return SM_VERDICT_RULE;
            allowed = true;
        }
        if (!allowed)
            return SM_VERDICT_LOOPBACK;
    }
    return SM_VERDICT_ALLOW;
}

bool sm_policy_opens_host(const struct sm_policy *policy)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        if (policy->rules[i].kind == SM_TARGET_HOST && policy->rules[i].allow)
            return true;
    }
    return false;
}

enum sm_verdict sm_policy_decide_name(const struct sm_policy *policy, const char *name)
{
    for (unsigned layer = 0; layer < policy->n_layers; layer++) {
        bool allowed = policy->mode[layer] != SM_EGRESS_NONE;
        for (size_t i = 0; i < policy->n_rules; i++) {
            const struct sm_egress_rule *rule = &policy->rules[i];
            if (rule->layer != layer || !name_matches(rule, name))
                continue;
            if (rule->allow)
                allowed = true;
            else if (all_ports(rule))
                return SM_VERDICT_NAME;
        }
        if (!allowed)
            return SM_VERDICT_NAME;
    }
    return SM_VERDICT_ALLOW;
}

enum sm_verdict sm_policy_decide_alias(const struct sm_policy *policy, const char *name)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        const struct sm_egress_rule *rule = &policy->rules[i];
        if (!rule->allow && all_ports(rule) && name_matches(rule, name))
            return SM_VERDICT_NAME;
    }
    return SM_VERDICT_ALLOW;
}

/* Is it allowed or denied as an address, whatever its ports and names? An answer may name an
 * address that only a name rule opens, and one for which an allow rule opens some port. */
static bool layer_refuses_answer(
    const struct sm_policy *p, unsigned layer, const struct sm_ip *ip, enum sm_ip_class class)
{
    struct sm_ip inner[2];
    size_t n_inner = sm_ip_embedded(ip, inner);
    bool allowed = false;
    for (size_t i = 0; i < p->n_rules; i++) {
        const struct sm_egress_rule *rule = &p->rules[i];
        if (rule->layer != layer)
            continue;
        bool match = net_matches(rule, ip);
        for (size_t k = 0; !rule->allow && k < n_inner; k++)
            match = match || net_matches(rule, &inner[k]);
        if (match && !rule->allow && all_ports(rule))
            return true;
        allowed = allowed || (match && rule->allow);
    }
    return !allowed && class == SM_IP_PRIVATE && p->mode[layer] != SM_EGRESS_ALL;
}

enum sm_verdict sm_policy_decide_answer(const struct sm_policy *policy, const struct sm_ip *ip)
{
    enum sm_ip_class class = sm_ip_classify(ip);
    if (policy->n_layers > 0 && class == SM_IP_THIS_HOST)
        return SM_VERDICT_REBIND;
    for (unsigned layer = 0; layer < policy->n_layers; layer++) {
        if (layer_refuses_answer(policy, layer, ip, class))
            return SM_VERDICT_REBIND;
    }
    return SM_VERDICT_ALLOW;
}

bool sm_policy_has_names(const struct sm_policy *policy)
{
    for (size_t i = 0; i < policy->n_rules; i++) {
        if (policy->rules[i].kind == SM_TARGET_NAME)
            return true;
    }
    return false;
}

bool sm_policy_match_names(
    const struct sm_policy *policy, const char *name, struct sm_name_set *set)
{
    bool any = false;
    for (size_t i = 0; i < policy->n_rules; i++) {
        if (name_matches(&policy->rules[i], name)) {
            set->bits[i / 64] |= 1ULL << (i % 64);
            any = true;
        }
    }
    return any;
}
