/* The words of the network options, made into the library's. */
#ifndef SM_CLI_NETWORK_H
#define SM_CLI_NETWORK_H

#include "cli/options.h"

/* One --allow or --deny. */
void cli_network_rule(struct cli_strings *rules, bool allow, const char *target);

/* The text of the policy, malloc'ed; NULL: none was asked for. Without a mode it is "all", but "none" when
 * something is allowed by name, since to allow what is allowed anyway means nothing. */
char *cli_network_policy(const char *mode, bool allows, const struct cli_strings *rules);

#endif
