/*
 * RLIMIT_DATA, see memory_limit.h: what the process has, as much again for copies of the RAM that
 * captures make (of a bake two may be there: one is being written while the VM goes on), and room
 * for all that docs/network.md lets wait (streams 1 GiB, the user-mode network 320 MiB). Beyond it
 * an allocation fails, which ends this VM and not the machine's memory.
 */
#include "cli/memory_limit.h"

#include <stdio.h>
#include <sys/resource.h>
#include <unistd.h>

#define DEFAULT_RAM (256ull << 20)
#define ROOM        (3ull << 29)
#define COPIES      2

/* What counts against the limit, in bytes; 0: not known. */
static uint64_t data_bytes(void)
{
    unsigned long pages = 0;
    FILE *in = fopen("/proc/self/statm", "re");
    if (!in)
        return 0;
    if (fscanf(in, "%*u %*u %*u %*u %*u %lu", &pages) != 1)
        pages = 0;
    fclose(in);
    return (uint64_t)pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

/* It is made smaller only. */
static void limit_to(uint64_t bytes)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_DATA, &limit) == 0 && bytes < limit.rlim_cur) {
        limit.rlim_cur = bytes;
        setrlimit(RLIMIT_DATA, &limit);
    }
}

void cli_limit_memory(uint64_t ram_bytes)
{
    uint64_t data = data_bytes();
    if (data)
        limit_to(data + (1 + COPIES) * (ram_bytes ? ram_bytes : DEFAULT_RAM) + ROOM);
}

void cli_limit_memory_now(void)
{
    uint64_t data = data_bytes();
    if (data)
        limit_to(2 * data + ROOM);
}
