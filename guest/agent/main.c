/*
 * PID 1. Boots the machine into the image, tells the host, serves it, and powers off.
 *
 * Settings come from the kernel command line: NAME=VALUE pairs that the kernel does not know are
 * our environment (a name with a dot in it would be dropped). sm_hostname=NAME     default: the
 * kernel's sm_root=DEVICE       default: /dev/pmem0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "agent.h"
#include "boot.h"
#include "console.h"

#define BACKLOG        4096 /* the kernel resets what does not fit: as many as there are links */
#define HELLO_ATTEMPTS 5

static struct agent agent; /* set up at run time: the tables belong to .bss */

static const char *setting(const char *name, const char *otherwise)
{
    const char *value = getenv(name);
    return value && value[0] ? value : otherwise;
}

/* The kernel gives every process 16 random bytes; the first 8 are the stack protector's. */
static uint64_t draw_nonce(void)
{
    uint64_t nonce;
    memcpy(&nonce, (const uint8_t *)getauxval(AT_RANDOM) + 8, sizeof(nonce));
    return nonce;
}

static int vsock(void)
{
    int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die("cannot make a vsock socket", "", errno);
    return fd;
}

static void listen_on(uint32_t port, int (*add)(struct agent *, int))
{
    struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = vsock();
    if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fd, BACKLOG) != 0 ||
        add(&agent, fd) != 0)
        die("cannot listen on vsock", "", errno);
}

/* The host listens before it starts us; but it may be slow, and then the kernel gives up after 2 s.
 */
static void greet_host(void)
{
    struct sockaddr_vm addr = {
        .svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_HOST, .svm_port = SM_WIRE_PORT};
    int fd = vsock();
    for (int i = 1; connect(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0; i++) {
        if (i == HELLO_ATTEMPTS || (errno != ETIMEDOUT && errno != EINTR))
            die("the host does not answer on vsock", "", errno);
        close(fd);
        fd = vsock();
    }
    struct conn *c = agent_add_conn(&agent, fd);
    struct sm_wire_hello hello = {
        .version = SM_WIRE_VERSION,
        .boot_nonce = agent.boot_nonce,
        .monotonic_ns = agent_now_ns(),
        .build = SM_VERSION,
    };
    conn_put(&agent, c, SM_WIRE_HELLO, &hello);
}

int main(void)
{
    struct utsname u;

    boot(setting("sm_hostname", ""), setting("sm_root", "/dev/pmem0"));
    agent.passwd = "/etc/passwd";
    agent.group = "/etc/group";
    agent.uptime = "/proc/uptime";
    agent.boot_nonce = draw_nonce();
    if (uname(&u) == 0)
        memcpy(agent.hostname, u.nodename, sizeof(agent.hostname) - 1);
    if (agent_init(&agent) != 0)
        die("cannot set up the event loop", "", errno);
    listen_on(SM_WIRE_PORT, agent_listen);
    listen_on(SM_WIRE_PROXY_PORT, agent_listen_proxy);
    greet_host();
    if (agent_run(&agent) != 0)
        die("the event loop failed", "", errno);
    power_off();
}
