/*
 * Which machine this is: the nonce of its boot, the name of its host. What a restore makes of them
 * in the whole machine is system.h's; this is what the agent itself says.
 */
#ifndef SM_AGENT_IDENTITY_H
#define SM_AGENT_IDENTITY_H

#include <stdbool.h>
#include <stdint.h>

/* At boot. The name: at most SM_WIRE_MAX_HOSTNAME bytes. */
void identity_init(uint64_t boot_nonce, const char *hostname);
uint64_t identity_nonce(void);
const char *identity_hostname(void);

/* A name that a host can have, and 32 lower-case hexadecimal digits; either may be "". */
bool identity_is_good(const char *hostname, const char *machine_id);
/* Such; "": keep. 0, or an errno value and the step in *what. */
int identity_set(const char *hostname, const char *machine_id, const char **what);

#endif
