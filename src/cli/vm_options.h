/* The options that say what VM it is to be; `run` and `bake` share them, for what is baked with
 * some is restored with the same. */
#ifndef SM_CLI_VM_OPTIONS_H
#define SM_CLI_VM_OPTIONS_H

#include "cli/cli.h"

enum { OPT_CPUS = 0x100, OPT_KERNEL, OPT_BOOT_TIMEOUT };

#define CLI_VM_OPTIONS                                                                             \
    {'m', "memory", "SIZE", "guest memory, such as 512m or 2g (256m)"},                            \
        {OPT_CPUS, "cpus", "N", "number of virtual CPUs, 1 to 16 (1)"},                            \
        {OPT_KERNEL, "kernel", "FILE", "boot this guest kernel"},                                  \
    {                                                                                              \
        OPT_BOOT_TIMEOUT, "boot-timeout", "SECONDS", "wait no longer than this for the VM to boot" \
    }

/* Takes the option, whose value is in optarg, if it is one of these. *status: 0, or the exit code
 * after a message. */
bool cli_take_vm_option(const struct cli_command *self, int id, sm_vm_config *config, int *status);

#endif
