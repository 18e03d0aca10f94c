/*
 * The lines of control sockets, from both ends: requests to who holds a VM, answers of a VM that
 * may be of another version. They come in pieces as the input cuts them. What is taken apart can be
 * put together again.
 */
#include <sys/socket.h>

#include "cli/control_lines.h"
#include "fuzz.h"

#define CUT '\xff' /* where one piece ends */

static struct fuzz_input coming;

ssize_t __wrap_recv(int fd, void *to, size_t room, int flags);

/* The next piece, of which as much as there is room for. */
ssize_t __wrap_recv(int fd, void *to, size_t room, int flags)
{
    fuzz_demand(room > 0);
    while (coming.left > 0 && *coming.data == (uint8_t)CUT)
        (void)fuzz_take(&coming, 1);
    const uint8_t *cut = coming.left ? memchr(coming.data, (uint8_t)CUT, coming.left) : NULL;
    size_t n = cut ? (size_t)(cut - coming.data) : coming.left;
    n = n < room ? n : room;
    const uint8_t *from = fuzz_bytes(&coming, &n);
    if (n)
        memcpy(to, from, n);
    return (ssize_t)n;
}

static void look_at_port(const char *line)
{
    sm_vm_port port, again;
    char text[CLI_PORT_LINE];
    if (!cli_parse_port(line, &port))
        return;
    cli_format_port(&port, text);
    char *end = strchr(text, '\n');
    fuzz_demand(end && !end[1]);
    *end = '\0';
    fuzz_demand(cli_parse_port(text, &again));
    fuzz_demand(strcmp(port.host_ip, again.host_ip) == 0 && port.host_port == again.host_port &&
                port.guest_port == again.guest_port && port.udp == again.udp &&
                port.found == again.found);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct cli_lines *in = malloc(sizeof(*in));
    fuzz_demand(in);
    in->begin = in->end = 0;
    coming = (struct fuzz_input){data, size};
    for (const char *line; (line = cli_read_line(in));) {
        const char *path = NULL;
        sm_snapshot_stats stats;
        fuzz_demand(line >= in->text && line + strlen(line) < in->text + sizeof(in->text));
        if (cli_parse_request(line, &path) == CLI_ASKS_SNAPSHOT)
            fuzz_demand(path > line && strlen(path) < CLI_MAX_LINE);
        else
            fuzz_demand(!path);
        look_at_port(line);
        (void)cli_parse_snapshot(line, &stats);
    }
    free(in);
    return 0;
}
