/* The boot nonce and the host name: see identity.h. */
#include "identity.h"

#include <stddef.h>
#include <string.h>

#include "system.h"
#include "wire/wire.h"

static uint64_t boot_nonce;
static char host[SM_WIRE_MAX_HOSTNAME + 1];

void identity_init(uint64_t nonce, const char *hostname)
{
    boot_nonce = nonce;
    strncpy(host, hostname, sizeof(host) - 1);
}

uint64_t identity_nonce(void)
{
    return boot_nonce;
}

const char *identity_hostname(void)
{
    return host;
}

static bool good_hostname(const char *s)
{
    for (; *s; s++)
        if (!((*s >= 'a' && *s <= 'z') || (*s >= 'A' && *s <= 'Z') || (*s >= '0' && *s <= '9') ||
                *s == '-' || *s == '.' || *s == '_'))
            return false;
    return true;
}

static bool good_machine_id(const char *s)
{
    size_t n = 0;
    for (; s[n]; n++)
        if (!((s[n] >= '0' && s[n] <= '9') || (s[n] >= 'a' && s[n] <= 'f')))
            return false;
    return n == 0 || n == 32;
}

bool identity_is_good(const char *hostname, const char *machine_id)
{
    return good_hostname(hostname) && good_machine_id(machine_id);
}

int identity_set(const char *hostname, const char *machine_id, const char **what)
{
    int e = system_set_identity(hostname, machine_id, what);
    if (e == 0 && hostname[0] != 0)
        strcpy(host, hostname); /* the decoder has bounded it */
    return e;
}
