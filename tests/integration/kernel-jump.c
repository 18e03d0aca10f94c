/*
 * Run in the guest as an ordinary user: jumps to the address where SYSCALL enters the kernel (the
 * argument, in hex), with flags of its choice. Each jump is made by a child, which must die of it;
 * prints "NAME signal N" or "NAME entered". Built with musl-gcc -static.
 */
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#define TF 0x100u
#define DF 0x400u
#define AC 0x40000u

/* A trap before the fault: go on, into the fault. */
static void on_trap(int sig)
{
    (void)sig;
}

/* As a SYSCALL of getuid, which comes back if the kernel believes it. */
static void jump(uint64_t to, uint64_t flags)
{
    __asm__ volatile("lea 1f(%%rip), %%rcx\n\t"
                     "pushfq\n\t"
                     "pop %%r11\n\t"
                     "push %%r11\n\t"
                     "or %1, (%%rsp)\n\t"
                     "mov $102, %%eax\n\t"
                     "popfq\n\t"
                     "jmp *%0\n"
                     "1:\tcld\n\t"
                     :
                     : "r"(to), "r"(flags)
                     : "rax", "rcx", "r11", "memory", "cc");
}

static void try(const char *name, uint64_t to, uint64_t flags)
{
    int status;
    pid_t pid = fork();
    if (pid == 0) {
        signal(SIGTRAP, on_trap);
        jump(to, flags);
        _exit(42);
    }
    if (pid < 0 || waitpid(pid, &status, 0) != pid)
        exit(1);
    if (WIFSIGNALED(status))
        printf("%s signal %d\n", name, WTERMSIG(status));
    else
        printf("%s entered\n", name);
    fflush(stdout);
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 1;
    uint64_t entry = strtoull(argv[1], NULL, 16);
    printf("uid %d\n", (int)getuid());
    try("plain", entry, 0);
    try("DF", entry, DF);
    try("AC", entry, AC);
    try("TF", entry, TF);
    return 0;
}
