/*
 * The kernel command line: what our kernel needs on every host, what makes it faster where kernel mode
 * is emulated, the devices, and last the user's words, which therefore win.
 */
#include <stdio.h>
#include <stdlib.h>

#include "util/error.h"
#include "vmm/machine_internal.h"

/* Console to the serial port from the first line on; panic and reboot end the VM (port 0x64). */
#define BASE                                                                                       \
    "earlyprintk=serial,keep quiet reboot=k panic=-1 random.trust_cpu=1 tsc=reliable "             \
    "no_timer_check i8042.noaux i8042.nomux"

/* String instructions are emulated byte by byte there: memset and memcpy are faster without them. */
#define ASSISTED " clearcpuid=erms,fsrm"

int sm_machine_cmdline(const struct sm_machine *m, bool assisted, char **cmdline, sm_error *err)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return sm_error_set(err, SM_ENOMEM, "no memory for the kernel command line");
    fputs(BASE, f);
    if (assisted)
        fputs(ASSISTED, f);
    for (unsigned i = 0; i < m->n_devices; i++)
        fprintf(f, " virtio_mmio.device=4K@%#llx:%u", (unsigned long long)m->devices[i].window,
            m->devices[i].gsi);
    if (m->cmdline)
        fprintf(f, " %s", m->cmdline);
    bool failed = ferror(f);
    if (fclose(f) || failed) {
        free(text);
        return sm_error_set(err, SM_ENOMEM, "no memory for the kernel command line");
    }
    *cmdline = text;
    return 0;
}
