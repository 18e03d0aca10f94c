/* The egress options, made into the text that the library takes. */
#ifndef SM_CLI_NETWORK_H
#define SM_CLI_NETWORK_H

#include "cli/lists.h"

struct cli_policy {
    const char *mode;  /* --egress; NULL: not given */
    bool allows;       /* --allow */
    bool allows_other; /* the same with anything but host-loopback */
    struct sm_strv rules;
};

/* One --allow or --deny. */
void cli_policy_rule(struct cli_policy *policy, bool allow, const char *target);

/* The text, malloc'ed; NULL: nothing was asked for. Without a mode it is "all", but "none" when
 * something is allowed that "all" allows anyway. */
char *cli_policy_text(const struct cli_policy *policy);

#endif
