/*
 * PID 1. Boots the machine into the image, tells the host, serves it, and powers off.
 *
 * Who calls whom, from the top: main; requests, a table; who answers them (exec over launch, file,
 * probe, watch, pause, restore); conn; loop. The port proxy has streams of its own, over the loop.
 * Each file has its state to itself: there is one agent in a machine, and a structure for all of it
 * would have to know them all.
 *
 * Settings come from the kernel command line: NAME=VALUE pairs that the kernel does not know are
 * our environment (a name with a dot in it would be dropped):
 *     sm_hostname=NAME     default: the kernel's
 *     sm_root=DEVICE       default: /dev/pmem0
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <linux/vm_sockets.h>

#include "boot.h"
#include "conn.h"
#include "console.h"
#include "container.h"
#include "identity.h"
#include "init.h"
#include "probe.h"
#include "proxy.h"
#include "requests.h"

#define BACKLOG        4096 /* the kernel resets what does not fit: as many as there are links */
#define HELLO_ATTEMPTS 5

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

static void listen_on(uint32_t port, int (*add)(int listener))
{
    struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_cid = VMADDR_CID_ANY, .svm_port = port};
    int fd = vsock();
    if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) != 0 || listen(fd, BACKLOG) != 0 ||
        add(fd) != 0)
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
    struct conn *c = conn_add(fd);
    struct sm_wire_hello hello = {
        .version = SM_WIRE_VERSION,
        .boot_nonce = identity_nonce(),
        .monotonic_ns = loop_now_ns(),
        .build = SM_VERSION,
    };
    conn_put(c, SM_WIRE_HELLO, &hello);
}

int main(int argc, char **argv)
{
    if (argc > 0 && strcmp(argv[0], INIT_NAME) == 0)
        return init_main(argc, argv);
    boot(setting("sm_hostname", ""), setting("sm_root", "/dev/pmem0"));
    struct utsname u = {0};
    (void)uname(&u); /* without a name, then */
    identity_init(draw_nonce(), u.nodename);
    if (requests_init() != 0)
        die("cannot set up the event loop", "", errno);
    probe_open();
    const char *what = "";
    int e = container_open(&what);
    if (e != 0)
        die(what, "", e);
    listen_on(SM_WIRE_PORT, conn_listen);
    listen_on(SM_WIRE_PROXY_PORT, proxy_listen);
    greet_host();
    if (loop_run() != 0)
        die("the event loop failed", "", errno);
    power_off();
}
