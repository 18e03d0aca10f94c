/* The options that say what VM it is to be. See vm_options.h. */
#include "cli/vm_options.h"

#include <getopt.h>

#include "cli/options.h"

#define PAGE         (2ull << 20) /* VMs have whole pages of this size */
#define LEAST_MEMORY (32ull << 20)
#define MOST_MEMORY  (64ull << 30)

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
    case OPT_KERNEL:
        config->kernel = optarg;
        return true;
    case OPT_BOOT_TIMEOUT:
        if (!cli_parse_duration_ms(optarg, &config->boot_timeout_ms))
            *status = cli_fail_usage(
                self, "'--boot-timeout %s' is not a time such as 10 or 1.5m", optarg);
        return true;
    default:
        return false;
    }
}
