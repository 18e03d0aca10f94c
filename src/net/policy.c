/* Egress rules as text, and the stack of layers. See policy.h; deciding is policy_decide.c's. What
 * comes is the command line's or a snapshot's, and both are parsed by the same strict words. */
#include "net/policy.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

#include "util/bytes.h"
#include "util/error.h"

#define HOST_LOOPBACK "host-loopback"
#define OPTION        "--"

static const char *const mode_names[] = {"all", "public", "none"};

const char *sm_verdict_text(enum sm_verdict verdict)
{
    static const char *const texts[SM_VERDICT_COUNT] = {
        [SM_VERDICT_ALLOW] = "allowed",
        [SM_VERDICT_LOOPBACK] = "loopback of the host",
        [SM_VERDICT_OWN] = "address of this host",
        [SM_VERDICT_PRIVATE] = "private or reserved range",
        [SM_VERDICT_RULE] = "deny rule",
        [SM_VERDICT_UNLISTED] = "not on the allow list",
        [SM_VERDICT_RESOLVER] = "foreign resolver while names are enforced",
        [SM_VERDICT_NAME] = "name not allowed",
        [SM_VERDICT_REBIND] = "DNS answer names a denied address",
    };
    return verdict < SM_VERDICT_COUNT ? texts[verdict] : "unknown";
}

void sm_policy_clear(struct sm_policy *policy)
{
    free(policy->rules);
    *policy = (struct sm_policy){0};
}

bool sm_egress_mode_parse(const char *text, enum sm_egress_mode *mode)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(mode_names); i++) {
        if (strcmp(text, mode_names[i]) == 0) {
            *mode = (enum sm_egress_mode)i;
            return true;
        }
    }
    return false;
}

int sm_policy_add_layer(struct sm_policy *policy, enum sm_egress_mode mode, sm_error *err)
{
    if (policy->n_layers == SM_POLICY_MAX_LAYERS)
        return sm_error_set(err, SM_ELIMIT,
            "a network policy has at most %d layers; bake the snapshot anew", SM_POLICY_MAX_LAYERS);
    policy->mode[policy->n_layers++] = mode;
    return 0;
}

/* ---- targets ------------------------------------------------------------------------------- */

static bool parse_number(const char **p, unsigned max, unsigned *value)
{
    const char *s = *p;
    if (!isdigit((unsigned char)*s))
        return false;
    unsigned v = 0;
    for (; isdigit((unsigned char)*s); s++) {
        v = v * 10 + (unsigned)(*s - '0');
        if (v > max)
            return false;
    }
    *value = v;
    *p = s;
    return true;
}

/* "80" or "8000-8080" */
static bool parse_ports(const char *text, struct sm_egress_rule *rule)
{
    unsigned lo;
    if (!parse_number(&text, 65535, &lo))
        return false;
    unsigned hi = lo;
    if (*text == '-') {
        text++;
        if (!parse_number(&text, 65535, &hi))
            return false;
    }
    if (*text || lo == 0 || hi < lo)
        return false;
    rule->port_lo = (uint16_t)lo;
    rule->port_hi = (uint16_t)hi;
    return true;
}

/* Address or CIDR; bits beyond the prefix are cleared. */
static bool parse_net(char *text, struct sm_egress_rule *rule)
{
    char *slash = strchr(text, '/');
    if (slash)
        *slash = '\0';
    if (!sm_ip_parse(text, &rule->net))
        return false;
    unsigned width = strchr(text, ':') ? 128 : 32;
    unsigned prefix = width;
    if (slash) {
        const char *p = slash + 1;
        if (!parse_number(&p, width, &prefix) || *p)
            return false;
    }
    prefix += 128 - width;
    for (unsigned i = prefix; i < 128; i++)
        rule->net.b[i / 8] &= (uint8_t) ~(0x80u >> (i % 8));
    rule->prefix = (uint8_t)prefix;
    rule->kind = SM_TARGET_NET;
    return true;
}

static bool parse_name(const char *text, struct sm_egress_rule *rule)
{
    rule->kind = SM_TARGET_NAME;
    if (text[0] == '*' && text[1] == '.') {
        rule->wildcard = true;
        text += 2;
    }
    size_t len = strlen(text);
    if (len > 0 && text[len - 1] == '.')
        len--;
    if (len == 0 || len >= SM_NAME_MAX)
        return false;
    size_t label = 0;
    bool letter = false;
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)text[i];
        if (c == '.') {
            if (label == 0)
                return false;
            label = 0;
            letter = false;
        } else if (isalnum(c) || c == '-' || c == '_') {
            if (++label > 63)
                return false;
            letter = letter || !isdigit(c);
        } else {
            return false;
        }
        rule->name[i] = (char)tolower(c);
    }
    /* "1.2.3" would be a mistyped address: a top-level name is never all digits. Other spellings of
     * the reserved word would turn into it when they are stored. */
    return label > 0 && letter && strcmp(rule->name, HOST_LOOPBACK) != 0;
}

static bool parse_target(const char *target, struct sm_egress_rule *rule)
{
    char text[SM_NAME_MAX + 16];
    size_t len = strlen(target);
    if (len == 0 || len >= sizeof(text))
        return false;
    memcpy(text, target, len + 1);
    rule->port_hi = 65535;
    char *ports = NULL;
    if (text[0] == '[') {
        char *end = strchr(text, ']');
        if (!end || (end[1] && end[1] != ':'))
            return false;
        if (end[1])
            ports = end + 2;
        *end = '\0';
        if (ports && !parse_ports(ports, rule))
            return false;
        return strchr(text + 1, ':') && parse_net(text + 1, rule);
    }
    ports = strchr(text, ':');
    if (ports && strchr(ports + 1, ':')) /* bare IPv6 */
        return parse_net(text, rule);
    if (ports) {
        *ports++ = '\0';
        if (!parse_ports(ports, rule))
            return false;
    }
    if (strcmp(text, HOST_LOOPBACK) == 0) {
        rule->kind = SM_TARGET_HOST;
        return true;
    }
    if (strchr(text, '/'))
        return parse_net(text, rule);
    return parse_net(text, rule) || parse_name(text, rule);
}

int sm_policy_add_rule(struct sm_policy *policy, bool allow, const char *target, sm_error *err)
{
    if (policy->n_layers == 0)
        return sm_error_set(err, SM_EINVAL, "a network rule needs a mode before it");
    if (policy->n_rules == SM_POLICY_MAX_RULES)
        return sm_error_set(
            err, SM_ELIMIT, "a network policy has at most %d rules", SM_POLICY_MAX_RULES);
    struct sm_egress_rule rule = {.allow = allow};
    if (!parse_target(target, &rule))
        return sm_error_set(err, SM_EINVAL,
            "'%.200s' is no network target; write ADDRESS[/PREFIX], NAME, "
            "*.NAME or host-loopback, each with an optional :PORT[-PORT], "
            "IPv6 with ports as [ADDRESS]:PORT",
            target);
    rule.layer = (uint8_t)(policy->n_layers - 1);
    struct sm_egress_rule *rules = reallocarray(policy->rules, policy->n_rules + 1, sizeof(*rules));
    if (!rules)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the network policy");
    rules[policy->n_rules++] = rule;
    policy->rules = rules;
    return 0;
}

/* ---- layers -------------------------------------------------------------------------------- */

static bool same_rule(const struct sm_egress_rule *a, const struct sm_egress_rule *b)
{
    return a->allow == b->allow && a->wildcard == b->wildcard && a->kind == b->kind &&
           a->prefix == b->prefix && a->port_lo == b->port_lo && a->port_hi == b->port_hi &&
           sm_ip_equal(&a->net, &b->net) && strcmp(a->name, b->name) == 0;
}

/* The next rule of the layer at or after i; n_rules if there is none. */
static size_t next_of_layer(const struct sm_policy *p, unsigned layer, size_t i)
{
    while (i < p->n_rules && p->rules[i].layer != layer)
        i++;
    return i;
}

static bool same_layer(
    const struct sm_policy *a, unsigned la, const struct sm_policy *b, unsigned lb)
{
    if (a->mode[la] != b->mode[lb])
        return false;
    size_t i = next_of_layer(a, la, 0);
    size_t j = next_of_layer(b, lb, 0);
    while (i < a->n_rules && j < b->n_rules && same_rule(&a->rules[i], &b->rules[j])) {
        i = next_of_layer(a, la, i + 1);
        j = next_of_layer(b, lb, j + 1);
    }
    return i == a->n_rules && j == b->n_rules;
}

int sm_policy_narrow(struct sm_policy *policy, const struct sm_policy *other, sm_error *err)
{
    auto_policy result = {.n_layers = policy->n_layers, .n_rules = policy->n_rules};
    memcpy(result.mode, policy->mode, sizeof(result.mode));
    result.rules = calloc(policy->n_rules + other->n_rules + 1, sizeof(*result.rules));
    if (!result.rules)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the network policy");
    if (policy->n_rules)
        memcpy(result.rules, policy->rules, policy->n_rules * sizeof(*result.rules));
    for (unsigned layer = 0; layer < other->n_layers; layer++) {
        bool known = false;
        for (unsigned l = 0; l < result.n_layers && !known; l++)
            known = same_layer(&result, l, other, layer);
        if (known)
            continue;
        int rc = sm_policy_add_layer(&result, (enum sm_egress_mode)other->mode[layer], err);
        if (rc)
            return rc;
        for (size_t i = 0; i < other->n_rules; i++) {
            if (other->rules[i].layer != layer)
                continue;
            if (result.n_rules == SM_POLICY_MAX_RULES)
                return sm_error_set(
                    err, SM_ELIMIT, "a network policy has at most %d rules", SM_POLICY_MAX_RULES);
            result.rules[result.n_rules] = other->rules[i];
            result.rules[result.n_rules++].layer = (uint8_t)(result.n_layers - 1);
        }
    }
    sm_policy_clear(policy);
    *policy = result;
    result = (struct sm_policy){0};
    return 0;
}

/* ---- text ---------------------------------------------------------------------------------- */

static int parse_line(struct sm_policy *policy, char *line, sm_error *err)
{
    char *save = NULL;
    const char *word = strtok_r(line, " \t\r", &save);
    if (!word || word[0] == '#')
        return 0;
    if (strncmp(word, OPTION, strlen(OPTION)) == 0)
        word += strlen(OPTION);
    const char *value = strtok_r(NULL, " \t\r", &save);
    if (!value || strtok_r(NULL, " \t\r", &save))
        return sm_error_set(err, SM_EINVAL, "'%.40s' takes one value", word);
    if (strcmp(word, "layer") == 0 || strcmp(word, "egress") == 0) {
        enum sm_egress_mode mode;
        if (!sm_egress_mode_parse(value, &mode))
            return sm_error_set(
                err, SM_EINVAL, "'%.40s' is no mode; it is all, public or none", value);
        return sm_policy_add_layer(policy, mode, err);
    }
    if (strcmp(word, "allow") == 0 || strcmp(word, "deny") == 0)
        return sm_policy_add_rule(policy, word[0] == 'a', value, err);
    return sm_error_set(err, SM_EINVAL, "'%.40s' is neither layer, allow nor deny", word);
}

int sm_policy_parse(const char *text, size_t len, struct sm_policy *policy, sm_error *err)
{
    if (len > SM_POLICY_MAX_TEXT)
        return sm_error_set(err, SM_ELIMIT, "the text of a network policy is longer than %d bytes",
            SM_POLICY_MAX_TEXT);
    if (memchr(text, '\0', len))
        return sm_error_set(err, SM_EINVAL, "the text of a network policy contains a NUL byte");
    auto_free char *copy = strndup(text, len);
    if (!copy)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the network policy");
    auto_policy result = {0};
    unsigned number = 1;
    for (char *line = copy, *next; line; line = next, number++) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        char option[128];
        snprintf(option, sizeof(option), "%s", line);
        int rc = parse_line(&result, line, err);
        if (rc && strncmp(option, OPTION, strlen(OPTION)) == 0)
            return sm_error_prefix(err, rc, "%s", option);
        if (rc)
            return sm_error_prefix(err, rc, "network policy, line %u", number);
    }
    *policy = result;
    result = (struct sm_policy){0};
    return 0;
}

/* An item a line, as parsed. */
static void print_rule(FILE *out, const struct sm_egress_rule *rule)
{
    fputs(rule->allow ? "allow " : "deny ", out);
    char text[SM_IP_TEXT];
    switch ((enum sm_target_kind)rule->kind) {
    case SM_TARGET_HOST:
        fputs(HOST_LOOPBACK, out);
        break;
    case SM_TARGET_NAME:
        fprintf(out, "%s%s", rule->wildcard ? "*." : "", rule->name);
        break;
    case SM_TARGET_NET:
        if (sm_rule_is_v4(rule))
            fprintf(out, "%s/%u", sm_ip_format(&rule->net, text), rule->prefix - 96u);
        else
            fprintf(out, "[%s/%u]", sm_ip_format(&rule->net, text), rule->prefix);
        break;
    }
    bool ports = rule->port_lo != 0 || rule->port_hi != 65535;
    if (ports)
        fprintf(out, ":%u-%u", rule->port_lo, rule->port_hi);
    fputc('\n', out);
}

int sm_policy_format(const struct sm_policy *policy, char **text, sm_error *err)
{
    auto_free char *buf = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&buf, &size);
    if (!out)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the network policy");
    for (unsigned layer = 0; layer < policy->n_layers; layer++) {
        fprintf(out, "layer %s\n", mode_names[policy->mode[layer]]);
        for (size_t i = 0; i < policy->n_rules; i++) {
            if (policy->rules[i].layer == layer)
                print_rule(out, &policy->rules[i]);
        }
    }
    if (fclose(out) != 0)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the network policy");
    *text = sm_steal_ptr(&buf);
    return 0;
}
