/* What a SIGBUS says. See lost_file.h. Everything here is safe in a signal handler. */
#include "cli/lost_file.h"

#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/terminal.h"
#include "util/text.h"

/* Static: the stacks of some threads are small. One thread gets here. */
static char line[PATH_MAX + 128], chunk[4096];

static uintptr_t take_hex(const char **p)
{
    uintptr_t value = 0;
    for (;; (*p)++) {
        char c = **p;
        if (c >= '0' && c <= '9')
            value = value << 4 | (uintptr_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            value = value << 4 | (uintptr_t)(c - 'a' + 10);
        else
            return value;
    }
}

/* The file of a line of /proc/self/maps if `address` is in it:
 * "BEGIN-END PERMISSIONS OFFSET DEVICE INODE   PATH". */
static char *file_of(const char *text, uintptr_t address)
{
    const char *p = text;
    uintptr_t begin = take_hex(&p);
    if (*p++ != '-' || address < begin || address >= take_hex(&p))
        return NULL;
    return strchr(text, '/');
}

static char *find_file(uintptr_t address)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t used = 0;
    ssize_t n;
    while (fd >= 0 && (n = read(fd, chunk, sizeof(chunk))) > 0) {
        for (ssize_t i = 0; i < n; i++) {
            if (chunk[i] != '\n') {
                if (used < sizeof(line) - 1)
                    line[used++] = chunk[i];
                continue;
            }
            line[used] = '\0';
            used = 0;
            char *file = file_of(line, address);
            if (file)
                return file;
        }
    }
    return NULL;
}

static void say(const char *text)
{
    (void)!write(STDERR_FILENO, text, strlen(text));
}

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    (void)context;
    while (atomic_flag_test_and_set(&told))
        pause(); /* another thread is at it */
    char *file = info->si_code == BUS_ADRERR ? find_file((uintptr_t)info->si_addr) : NULL;
    cli_terminal_restore_now();
    if (!file) { /* something else: die of it */
        signal(sig, SIG_DFL);
        return;
    }
    sm_text_clean(file, false);
    say("supermachine: the file '");
    say(file);
    say("' was cut short while the VM used it\n");
    _exit(CLI_EXIT_FAILURE);
}

void cli_lost_file_watch(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}
