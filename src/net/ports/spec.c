/* The text form of a published port. See spec.h. */
#include "net/ports/spec.h"

#include <string.h>

#include "util/error.h"

static bool parse_port(const char *text, bool may_be_empty, uint16_t *port)
{
    if (!*text) {
        *port = 0;
        return may_be_empty;
    }
    unsigned long v = 0;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return false;
        v = v * 10 + (unsigned long)(*text - '0');
        if (v > 65535)
            return false;
    }
    *port = (uint16_t)v;
    return v != 0;
}

/* Cuts "/tcp" or "/udp" off. */
static bool parse_protocol(char *text, struct sm_port_spec *spec)
{
    spec->protocol = 6;
    char *slash = strchr(text, '/');
    if (!slash)
        return true;
    *slash++ = '\0';
    if (strcmp(slash, "udp") == 0)
        spec->protocol = 17;
    else if (strcmp(slash, "tcp") != 0)
        return false;
    return true;
}

/* Cuts "IP:" off; *rest is what follows. */
static bool parse_ip(char *text, struct sm_port_spec *spec, char **rest)
{
    *rest = text;
    if (text[0] == '[') {
        char *end = strchr(text, ']');
        if (!end || end[1] != ':')
            return false;
        *end = '\0';
        *rest = end + 2;
        return strchr(text, ':') && sm_ip_parse(text + 1, &spec->ip);
    }
    char *first = strchr(text, ':');
    char *second = first ? strchr(first + 1, ':') : NULL;
    if (!second)
        return true;
    *first = '\0';
    *rest = first + 1;
    return sm_ip_parse(text, &spec->ip);
}

static bool parse(char *text, struct sm_port_spec *spec)
{
    char *ports;
    if (!parse_protocol(text, spec) || !parse_ip(text, spec, &ports))
        return false;
    char *colon = strchr(ports, ':');
    if (!colon)
        return ports == text && parse_port(ports, false, &spec->guest_port);
    *colon = '\0';
    return parse_port(ports, true, &spec->host_port) &&
           parse_port(colon + 1, false, &spec->guest_port);
}

int sm_port_spec_parse(const char *text, struct sm_port_spec *spec, sm_error *err)
{
    struct sm_port_spec result = {.ip = sm_ip_from_v4(0x7f000001)};
    char copy[128];
    size_t len = strlen(text);
    if (len < sizeof(copy)) {
        memcpy(copy, text, len + 1);
        if (parse(copy, &result)) {
            *spec = result;
            return 0;
        }
    }
    return sm_error_set(err, SM_EINVAL,
        "'%.100s' is no port to publish; write [[IP:]HOST:]GUEST[/tcp|udp], such as 8080:80", text);
}
