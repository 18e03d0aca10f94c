/* supermachine port: where the ports of a VM are reached. */
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/options.h"
#include "cli/print.h"
#include "cli/values.h"

static const struct cli_option options[] = {
    CLI_FORMAT_OPTION("text|json", "how to print it (text)"),
    {0},
};

/* By the guest's port, TCP first, what was asked for first. */
static int compare(const void *a, const void *b)
{
    const sm_vm_port *x = a, *y = b;
    if (x->guest_port != y->guest_port)
        return x->guest_port < y->guest_port ? -1 : 1;
    if (x->udp != y->udp)
        return x->udp ? 1 : -1;
    if (x->found != y->found)
        return x->found ? 1 : -1;
    return x->host_port < y->host_port ? -1 : x->host_port > y->host_port;
}

static const char *protocol_of(const sm_vm_port *port)
{
    return port->udp ? "udp" : "tcp";
}

/* "GUEST[/tcp|udp]" */
static bool parse_wanted(const char *text, uint16_t *port, bool *udp)
{
    char digits[8];
    size_t n = strcspn(text, "/");
    uint64_t number;
    *udp = strcmp(text + n, "/udp") == 0;
    if (n >= sizeof(digits) || (text[n] && !*udp && strcmp(text + n, "/tcp") != 0))
        return false;
    memcpy(digits, text, n);
    digits[n] = '\0';
    if (!cli_parse_number(digits, 1, 65535, &number))
        return false;
    *port = (uint16_t)number;
    return true;
}

/* Keeps those of one port of the guest. */
static size_t keep(sm_vm_port *ports, size_t n, uint16_t guest_port, bool udp)
{
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (ports[i].guest_port == guest_port && ports[i].udp == udp)
            ports[kept++] = ports[i];
    }
    return kept;
}

static void print_json(const sm_vm_port *ports, size_t n)
{
    json_t *all = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(
            all, json_pack("{s:i, s:s, s:s, s:i, s:b}", "guest_port", ports[i].guest_port,
                     "protocol", protocol_of(&ports[i]), "host_ip", ports[i].host_ip, "host_port",
                     ports[i].host_port, "found", ports[i].found));
    cli_print_json(all);
    json_decref(all);
}

static void print_text(const sm_vm_port *ports, size_t n, bool one)
{
    for (size_t i = 0; i < n; i++) {
        bool v6 = strchr(ports[i].host_ip, ':') != NULL;
        if (!one)
            printf("%u/%s -> ", ports[i].guest_port, protocol_of(&ports[i]));
        printf("%s%s%s:%u\n", v6 ? "[" : "", ports[i].host_ip, v6 ? "]" : "", ports[i].host_port);
    }
}

static int main_port(const struct cli_command *self, int argc, char **argv)
{
    sm_vm_port ports[SM_VM_MAX_PORTS];
    size_t n;
    bool json, udp = false;
    uint16_t wanted = 0;
    int id = cli_take_format(self, argc, argv, "text", &json);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind == argc || argc - optind > 2)
        return cli_fail_usage(self, "name a VM, and a port if it is to be one only");
    const char *vm = argv[optind], *text = argv[optind + 1];
    if (text && !parse_wanted(text, &wanted, &udp))
        return cli_fail_usage(self, "'%s' is no port such as 80 or 53/udp", text);
    int status = cli_control_ports(vm, ports, &n);
    if (status)
        return status;
    if (text)
        n = keep(ports, n, wanted, udp);
    if (text && n == 0)
        return cli_fail("nothing of this host leads to port %u/%s of the VM '%s'", wanted,
            udp ? "udp" : "tcp", vm);
    qsort(ports, n, sizeof(ports[0]), compare);
    if (json)
        print_json(ports, n);
    else
        print_text(ports, n, text != NULL);
    return CLI_EXIT_OK;
}

const struct cli_command cli_port = {
    .name = "port",
    .synopsis = "VM [PORT[/tcp|udp]]",
    .summary = "Print where the ports of a VM that runs are reached.",
    .notes =
        "Those that were published, and those that something in the VM was found to listen on.\n",
    .options = options,
    .run = main_port,
};
