/* --egress, --allow and --deny as the lines that the library takes. See network.h. Nothing is
 * judged here but which mode goes without saying; what is wrong in a target the library says. */
#include "cli/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define HOST_LOOPBACK "host-loopback"

void cli_policy_rule(struct cli_policy *policy, bool allow, const char *target)
{
    char line[512];
    /* What is longer, or more than one word, is no target; the library says so, and of which
     * option. */
    snprintf(line, sizeof(line), "--%s %.400s", allow ? "allow" : "deny", target);
    for (char *c = line; *c; c++) {
        if (*c == '\n')
            *c = '?';
    }
    cli_list_add(&policy->rules, line);
    policy->allows = policy->allows || allow;
    if (allow && strncmp(target, HOST_LOOPBACK, strlen(HOST_LOOPBACK)) != 0)
        policy->allows_other = true;
}

char *cli_policy_text(const struct cli_policy *policy)
{
    if (!policy->mode && policy->rules.count == 0)
        return NULL;
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        cli_no_memory(); /* without its policy the VM must not start */
    const char *mode = policy->mode ? policy->mode : policy->allows_other ? "none" : "all";
    fprintf(out, "%s %.100s\n", policy->mode ? "--egress" : "layer", mode);
    for (size_t i = 0; i < policy->rules.count; i++)
        fprintf(out, "%s\n", policy->rules.items[i]);
    if (fclose(out))
        cli_no_memory();
    return text;
}
