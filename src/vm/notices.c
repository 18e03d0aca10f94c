/* Lines for a log. See notices.h. */
#include "vm/notices.h"

#include <stdio.h>

#include "net/frame.h"

/* " (and 3 more)", or nothing. */
static const char *more(uint64_t suppressed, char text[64])
{
    *text = '\0';
    if (suppressed)
        snprintf(text, 64, " (and %llu more)", (unsigned long long)suppressed);
    return text;
}

static const char *protocol_name(unsigned protocol)
{
    switch (protocol) {
    case SM_IP_TCP:
        return "TCP";
    case SM_IP_UDP:
        return "UDP";
    default:
        return "ICMP";
    }
}

/* As in the specification of a port. */
static const char *port_suffix(unsigned protocol)
{
    return protocol == SM_IP_UDP ? "udp" : "tcp";
}

void sm_notice_denial(const struct sm_vm_events *events, const struct sm_denial *d)
{
    char line[512], addr[SM_IP_TEXT], port[24] = "", text[64];
    const char *verdict = sm_verdict_text(d->verdict);
    if (d->port != SM_NO_PORT)
        snprintf(port, sizeof(port), " port %d", d->port);
    if (d->name)
        snprintf(line, sizeof(line), "denied: look-up of %.200s: %s%s", d->name, verdict,
            more(d->suppressed, text));
    else
        snprintf(line, sizeof(line), "denied: %s %s%s: %s%s", protocol_name(d->protocol),
            sm_ip_format(&d->addr, addr), port, verdict, more(d->suppressed, text));
    events->notice(events->notice_arg, line);
}

void sm_notice_connection(const struct sm_vm_events *events, const struct sm_port_connection *c)
{
    char line[256], addr[SM_IP_TEXT], from[96] = "through the socket", text[64];
    if (c->source)
        snprintf(
            from, sizeof(from), "from %s port %u", sm_ip_format(c->source, addr), c->source_port);
    snprintf(line, sizeof(line), "connection %s to port %u/%s%s", from, c->guest_port,
        port_suffix(c->protocol), more(c->suppressed, text));
    events->notice(events->notice_arg, line);
}

void sm_notice_found(
    const struct sm_vm_events *events, const struct sm_port_spec *spec, uint64_t suppressed)
{
    char line[192], text[64];
    snprintf(line, sizeof(line), "port %u/%s of the VM is reached at 127.0.0.1:%u%s",
        spec->guest_port, port_suffix(spec->protocol), spec->host_port, more(suppressed, text));
    events->notice(events->notice_arg, line);
}
