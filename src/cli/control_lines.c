/* The lines of control sockets. See control_lines.h. */
#include "cli/control_lines.h"

#include <arpa/inet.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

char *cli_read_line(struct cli_lines *in)
{
    for (;;) {
        char *line = in->text + in->begin;
        char *newline = memchr(line, '\n', in->end - in->begin);
        if (newline) {
            *newline = '\0';
            in->begin = (size_t)(newline - in->text) + 1;
            return line;
        }
        memmove(in->text, line, in->end - in->begin);
        in->end -= in->begin;
        in->begin = 0;
        if (in->end == sizeof(in->text))
            return NULL;
        ssize_t got = recv(in->fd, in->text + in->end, sizeof(in->text) - in->end, 0);
        if (got > 0)
            in->end += (size_t)got;
        else if (got == 0 || errno != EINTR)
            return NULL;
    }
}

enum cli_request cli_parse_request(const char *line, const char **path)
{
    static const char snapshot[] = "snapshot ";
    if (strcmp(line, "ports") == 0)
        return CLI_ASKS_PORTS;
    if (strncmp(line, snapshot, sizeof(snapshot) - 1) != 0)
        return CLI_ASKS_NONSENSE;
    *path = line + sizeof(snapshot) - 1;
    return CLI_ASKS_SNAPSHOT;
}

void cli_format_port(const sm_vm_port *port, char line[CLI_PORT_LINE])
{
    snprintf(line, CLI_PORT_LINE, "port %.45s %u %u %s %s\n", port->host_ip, port->host_port,
        port->guest_port, port->udp ? "udp" : "tcp", port->found ? "found" : "published");
}

static bool is_address(const char *text)
{
    uint8_t address[16];
    return inet_pton(AF_INET, text, address) == 1 || inet_pton(AF_INET6, text, address) == 1;
}

/* One of two words. */
static bool take_word(const char *word, const char *no, const char *yes, bool *value)
{
    *value = strcmp(word, yes) == 0;
    return *value || strcmp(word, no) == 0;
}

bool cli_parse_port(const char *line, sm_vm_port *port)
{
    char protocol[4], how[10];
    unsigned host, guest;
    int end = 0;
    *port = (sm_vm_port){0};
    if (sscanf(line, "port %45s %5u %5u %3s %9s%n", port->host_ip, &host, &guest, protocol, how,
            &end) != 5 ||
        line[end] || host > UINT16_MAX || guest > UINT16_MAX)
        return false;
    port->host_port = (uint16_t)host;
    port->guest_port = (uint16_t)guest;
    return is_address(port->host_ip) && take_word(protocol, "tcp", "udp", &port->udp) &&
           take_word(how, "published", "found", &port->found);
}

bool cli_parse_snapshot(const char *line, sm_snapshot_stats *stats)
{
    *stats = (sm_snapshot_stats){0};
    return sscanf(line, "ok %" SCNu64 " %" SCNu64 " %" SCNu64 " %" SCNu64, &stats->pause_us,
               &stats->data_bytes, &stats->ram_bytes, &stats->write_us) == 4;
}
