/* What a SIGBUS says. See lost_file.h. A handler gets no word of its owner's, so what it needs is
 * static here. Another thread may be at anything: what is called is safe in a handler, and looks
 * only at what does not change while the machine is there.
 *
 * System calls: sendmsg, exit_group, rt_sigreturn, pause.
 * System calls before a list: rt_sigaction. */
#include "monitor/lost_file.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "control/machine_call.h"
#include "vmm/machine.h"

#define STATUS 1

static _Atomic(const struct sm_machine *) watched;

static void add(char *text, size_t size, const char *more)
{
    size_t used = strlen(text);
    for (; *more && used + 1 < size; more++)
        text[used++] = *more;
    text[used] = '\0';
}

static void on_bus_error(int sig, siginfo_t *info, void *context)
{
    static atomic_flag told = ATOMIC_FLAG_INIT;
    /* The stacks of some threads are small. */
    static struct sm_machine_end_record end = {.how = SM_VM_INTERNAL_ERROR};
    const struct sm_machine *machine = atomic_load(&watched);
    (void)context;
    while (atomic_flag_test_and_set(&told))
        pause(); /* another thread is at it */
    const char *name =
        info->si_code == BUS_ADRERR && machine ? sm_machine_lost_file(machine) : NULL;
    if (!name) {
        signal(sig, SIG_DFL); /* something else: die of it */
        return;
    }
    add(end.message, sizeof(end.message), "the file '");
    add(end.message, sizeof(end.message), name);
    add(end.message, sizeof(end.message), "' was cut short while the VM used it");
    sm_record_send_now(SM_MACHINE_END, &end, sizeof(end), NULL, 0);
    _exit(STATUS);
}

void sm_lost_file_watch(void)
{
    struct sigaction action = {.sa_sigaction = on_bus_error, .sa_flags = SA_SIGINFO};
    sigfillset(&action.sa_mask);
    sigaction(SIGBUS, &action, NULL);
}

void sm_lost_file_of(const struct sm_machine *machine)
{
    atomic_store(&watched, machine);
}
