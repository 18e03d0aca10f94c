/* What is written about networks: resolv.conf, ports to publish, addresses. */
#include "fuzz.h"
#include "net/ports/ports.h"
#include "net/resolv_conf.h"
#include "util/bytes.h"

static void read_address(const char *text)
{
    struct sm_ip ip, again, inside[2];
    char printed[SM_IP_TEXT];
    if (!sm_ip_parse(text, &ip))
        return;
    fuzz_demand(sm_ip_parse(sm_ip_format(&ip, printed), &again) && sm_ip_equal(&ip, &again));
    (void)sm_ip_classify(&ip);
    fuzz_demand(sm_ip_embedded(&ip, inside) <= 2);
}

/* A specification, and the same again as it was understood. */
static void read_port(const char *text)
{
    struct sm_port_spec spec, again;
    char ip[SM_IP_TEXT], printed[128];
    if (sm_port_spec_parse(text, &spec, NULL) != 0)
        return;
    fuzz_demand(spec.guest_port != 0 && (spec.protocol == 6 || spec.protocol == 17));
    bool v4 = sm_ip_is_v4(&spec.ip);
    snprintf(printed, sizeof(printed), "%s%s%s:%.0u:%u/%s", v4 ? "" : "[",
        sm_ip_format(&spec.ip, ip), v4 ? "" : "]", spec.host_port, spec.guest_port,
        spec.protocol == 6 ? "tcp" : "udp");
    fuzz_demand(sm_port_spec_parse(printed, &again, NULL) == 0);
    fuzz_demand(sm_ip_equal(&spec.ip, &again.ip) && spec.host_port == again.host_port &&
                spec.guest_port == again.guest_port && spec.protocol == again.protocol);
}

static void read_resolv_conf(char *text)
{
    struct sm_resolv_conf conf = {0};
    sm_resolv_conf_parse(&conf, text);
    fuzz_demand(conf.n > 0 && conf.n <= SM_ARRAY_LEN(conf.servers));
}

/* Input: what it is, and its text. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    uint64_t kind = fuzz_take(&in, 1);
    char *text = fuzz_text(&in, '\0');
    switch (kind % 3) {
    case 0:
        read_resolv_conf(text);
        break;
    case 1:
        read_port(text);
        break;
    default:
        read_address(text);
    }
    free(text);
    return 0;
}
