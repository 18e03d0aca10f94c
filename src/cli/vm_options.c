/* The options that say what VM it is to be. See vm_options.h. */
#include "cli/vm_options.h"

#include <getopt.h>

#include "cli/options.h"
#include "cli/values.h"

#define PAGE         (2ull << 20) /* VMs have whole pages of this size */
#define LEAST_MEMORY (32ull << 20)
#define MOST_MEMORY  (64ull << 30)

static const struct cli_setting settings[] = {
    {CLI_SETS_TEXT(OPT_KERNEL, sm_vm_config, kernel)},
    {CLI_SETS_TIME(OPT_BOOT_TIMEOUT, sm_vm_config, boot_timeout_ms)},
    {0},
};

bool cli_take_vm_option(const struct cli_command *self, int id, sm_vm_config *config, int *status)
{
    uint64_t number;
    *status = CLI_EXIT_OK;
    switch (id) {
    case 'm':
        if (!cli_parse_size(optarg, &number) || !number)
            *status =
                cli_fail_usage(self, "'--memory %s' is not a size such as 512m or 2g", optarg);
        else if (number < LEAST_MEMORY || number > MOST_MEMORY)
            *status = cli_fail_usage(self, "'--memory %s' is not from 32m to 64g", optarg);
        else
            config->memory_bytes = (number + PAGE - 1) / PAGE * PAGE;
        return true;
    case OPT_CPUS:
        if (!cli_parse_number(optarg, 1, 16, &number))
            *status =
                cli_fail_usage(self, "'--cpus %s' is not a whole number from 1 to 16", optarg);
        else
            config->vcpus = (unsigned)number;
        return true;
    default:
        return cli_take_setting(self, settings, id, config, status);
    }
}
