#include "cli/network.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void cli_network_rule(struct cli_strings *rules, bool allow, const char *target)
{
    char line[512];

    /* What is longer, or more than one line, is no target; the library says so. */
    snprintf(line, sizeof(line), "%s %.400s", allow ? "allow" : "deny", strchr(target, '\n') ? "?" : target);
    cli_strings_add(rules, line);
}

static _Noreturn void out_of_memory(void)
{
    cli_fail("out of memory");
    exit(CLI_EXIT_FAILURE);
}

char *cli_network_policy(const char *mode, bool allows, const struct cli_strings *rules)
{
    char *text = NULL;
    size_t size;
    FILE *out;

    if (!mode && rules->count == 0)
        return NULL;
    out = open_memstream(&text, &size);
    if (!out)
        out_of_memory(); /* without its policy the VM must not start */
    fprintf(out, "layer %s\n", mode ? mode : allows ? "none" : "all");
    for (size_t i = 0; i < rules->count; i++)
        fprintf(out, "%s\n", rules->items[i]);
    if (fclose(out))
        out_of_memory();
    return text;
}
