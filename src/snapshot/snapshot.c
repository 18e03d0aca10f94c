/* A snapshot in memory. See snapshot.h. */
#include "snapshot/snapshot.h"

#include <stdlib.h>
#include <string.h>

void sm_snapshot_free(struct sm_snapshot *s)
{
    if (!s)
        return;
    for (uint32_t i = 0; s->vcpus && i < s->n_vcpus; i++)
        sm_vcpu_state_clear(&s->vcpus[i]);
    free(s->vcpus);
    free(s->irqchip);
    free(s->devices);
    free(s->listeners);
    free(s->cpu_words);
    free(s->note);
    free(s->ram_sums);
    free(s);
}

const char *sm_snapshot_arch_name(uint32_t arch)
{
    switch (arch) {
    case SM_ARCH_UNMARKED:
        return "unmarked (aarch64)";
    case SM_ARCH_X86_64:
        return "x86_64";
    case SM_ARCH_AARCH64:
        return "aarch64";
    default:
        return "unknown";
    }
}

bool sm_snapshot_role_is_text(const char role[SM_SNAPSHOT_ROLE_BYTES])
{
    size_t n = 0;
    while (n < SM_SNAPSHOT_ROLE_BYTES && role[n] > ' ' && role[n] < 0x7f)
        n++;
    if (n == SM_SNAPSHOT_ROLE_BYTES)
        return false;
    while (n < SM_SNAPSHOT_ROLE_BYTES && !role[n])
        n++;
    return n == SM_SNAPSHOT_ROLE_BYTES;
}

bool sm_snapshot_role_is_taken(const struct sm_snapshot *s, uint32_t device)
{
    const char *role = s->devices[device].role;
    for (uint32_t i = 0; *role && i < device; i++)
        if (!strcmp(role, s->devices[i].role))
            return true;
    return false;
}
