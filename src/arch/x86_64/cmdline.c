/*
 * The kernel command line: what our kernel needs on every host, what makes it faster where kernel
 * mode is emulated, the devices, and last the user's words, which therefore win.
 */
#include <stdio.h>
#include <stdlib.h>

#include "arch/x86_64/boot.h"
#include "util/error.h"

/* The reason for every word, with what it saves: guest/kernel/cmdline.md. */
#define BASE                                                                                       \
    "quiet earlyprintk=serial,keep reboot=k panic=-1 noreplace-smp tsc=reliable "                  \
    "clocksource=kvm-clock rootfstype=ramfs swiotlb=noforce rcupdate.rcu_expedited=1 "             \
    "initcall_blacklist=slab_late_init,param_sysfs_builtin_init,irq_sysfs_init,"                   \
    "perf_event_sysfs_init,clockevents_init_sysfs,add_rtc_cmos"

/* Byte-wise string instructions and two that the emulator lacks. 395 is FSRS, which has no name. */
#define EMULATED " clearcpuid=erms,fsrm,395,cx16,popcnt"

int sm_x86_cmdline(const struct sm_arch_boot *boot, char **cmdline, sm_error *err)
{
    char *text = NULL;
    size_t bytes;
    FILE *f = open_memstream(&text, &bytes);
    if (!f)
        return sm_error_set(err, SM_ENOMEM, "no memory for the kernel command line");
    fputs(BASE, f);
    if (boot->emulated)
        fputs(EMULATED, f);
    for (unsigned i = 0; i < boot->n_places; i++)
        fprintf(f, " virtio_mmio.device=4K@%#llx:%u", (unsigned long long)boot->places[i].window,
            boot->places[i].irq);
    if (boot->words)
        fprintf(f, " %s", boot->words);
    bool failed = ferror(f);
    if (fclose(f) || failed) {
        free(text);
        return sm_error_set(err, SM_ENOMEM, "no memory for the kernel command line");
    }
    *cmdline = text;
    return 0;
}
