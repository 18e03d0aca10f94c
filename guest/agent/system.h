/* What touches the whole machine. The tests link another implementation. Each returns 0 or an errno
 * value and, on failure, names the step in *what. */
#ifndef SM_AGENT_SYSTEM_H
#define SM_AGENT_SYSTEM_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Zeroed memory of the kernel's, for buffers; NULL: there is none. */
void *system_alloc(size_t size);
void system_free(void *p, size_t size);

/* At boot, once: makes hosts, hostname and machine-id in the directory (a machine id is drawn) and
 * keeps them open. hostname "": the kernel's. */
int system_init(int etc, const char *hostname, const char **what);

int system_set_clock(uint64_t realtime_ns, const char **what);
int system_add_entropy(const void *seed, size_t len, const char **what);
/* Stops all processes of the container, or lets them go on. Stopping takes a while: system_frozen
 * tells (1, 0, or -errno). *anybody: there was one to stop. */
int system_freeze(bool *anybody, const char **what);
int system_frozen(void);
int system_thaw(const char **what);

/* How many processes of the container the kernel has killed because memory was at its end. */
uint64_t system_kills(void);

/* Bytes of /etc/hosts with the lines that a command has put in front: what is behind them is still
 * found there, and kept right. */
#define SYSTEM_HOSTS_MAX 8192

/* Process 1 is systemd: what it wrote to its journal is found by the name of a later machine id. */
void system_keep_journal(void);

/* "": keep. */
int system_set_identity(const char *hostname, const char *machine_id, const char **what);

/* Sets the network card up anew; lengths and prefixes have been checked. */
struct sm_wire_set_network;
int system_set_network(const struct sm_wire_set_network *m, const char **what);
/* The address that it has from us, of 4 or 16 bytes; NULL: none. */
const uint8_t *system_card_address(bool v6);
const uint8_t *system_card_gateway(bool v6);
/* The files that go with it: hosts, with the card's address and gateway, and resolv.conf. */
int system_set_hosts(const char **what);
int system_set_resolver(const char *text, const char **what);

#endif
