/* Looking at a machine from any thread: console, times, counters. Nothing here changes it. */
#include <string.h>

#include "util/text.h"
#include "vmm/machine_internal.h"

size_t sm_machine_console(const struct sm_machine *m, char *buf, size_t size)
{
    return sm_serial_tail(m->serial, buf, size);
}

void sm_machine_last_lines(const struct sm_machine *m, char *buf, size_t size)
{
    bool cut = sm_serial_tail(m->serial, buf, size) > strlen(buf);
    char *line = cut ? strchr(buf, '\n') : NULL;
    if (line && line[1]) /* begin with a whole one */
        memmove(buf, line + 1, strlen(line + 1) + 1);
    sm_text_clean(buf, true);
    size_t end = strlen(buf);
    while (end > 0 && strchr("\n \t", buf[end - 1]))
        buf[--end] = '\0';
}

void sm_machine_get_timing(struct sm_machine *m, struct sm_machine_timing *timing)
{
    pthread_mutex_lock(&m->lock);
    *timing = m->timing;
    pthread_mutex_unlock(&m->lock);
}

const struct sm_guest_clock *sm_machine_clock(const struct sm_machine *m)
{
    return m ? &m->clock : NULL;
}

void sm_machine_get_counters(const struct sm_machine *m, struct sm_hv_counters *counters)
{
    *counters = (struct sm_hv_counters){0};
    for (unsigned i = 0; i < m->n_vcpus; i++)
        sm_hv_vcpu_add_counters(m->vcpus[i].hv, counters);
}
