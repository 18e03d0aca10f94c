/* A snapshot in memory. See snapshot.h. */
#include "snapshot/snapshot.h"

#include <stdlib.h>

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
