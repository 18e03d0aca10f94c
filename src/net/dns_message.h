/*
 * DNS messages (RFC 1035), as much as a forwarder must understand: the one question, and the names,
 * addresses and lives of the answers. Input is hostile in both directions; nothing is allocated.
 */
#ifndef SM_NET_DNS_MESSAGE_H
#define SM_NET_DNS_MESSAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/addr.h"

#define SM_DNS_HEADER      12
#define SM_DNS_LENGTH      2 /* bytes that say a message's length in front of it, over TCP */
#define SM_DNS_MAX_MESSAGE 65535
#define SM_DNS_MAX_UDP     4096 /* the largest UDP answer that is asked for */
#define SM_DNS_NAME_TEXT   1024 /* 255 octets with every one escaped as \DDD */

#define SM_DNS_TYPE_A     1
#define SM_DNS_TYPE_CNAME 5
#define SM_DNS_TYPE_AAAA  28
#define SM_DNS_TYPE_DNAME 39
#define SM_DNS_TYPE_SVCB  64
#define SM_DNS_TYPE_HTTPS 65
#define SM_DNS_CLASS_IN   1

#define SM_DNS_RCODE_SERVFAIL 2
#define SM_DNS_RCODE_NXDOMAIN 3
#define SM_DNS_RCODE_NOTIMP   4
#define SM_DNS_RCODE_REFUSED  5

struct sm_dns_question {
    uint16_t id;
    uint16_t type, class;
    size_t end;      /* offset behind the question */
    size_t udp_size; /* what the asker takes (EDNS), 512 without */
    /* lower case, no trailing dot, "" is the root; odd bytes as \DDD */
    char name[SM_DNS_NAME_TEXT];
};

/* Reads a query: opcode QUERY, one question, no answers. False: anything else. */
bool sm_dns_parse_query(const uint8_t *msg, size_t len, struct sm_dns_question *question);

/* Does `msg` answer the question (response bit, id, question section)? */
bool sm_dns_is_answer(
    const uint8_t *msg, size_t len, uint16_t id, const struct sm_dns_question *question);

/* Is this answer one that says its server cannot help: SERVFAIL, NOTIMP, REFUSED? */
bool sm_dns_is_failure(const uint8_t *msg);

/* Called for each record of the answer section; addr only for A and AAAA, target for CNAME and
 * DNAME. Returning false ends the walk. */
struct sm_dns_record {
    uint16_t type;
    uint32_t ttl;
    const struct sm_ip *addr; /* or NULL */
    const char *target;       /* or NULL; as sm_dns_question.name */
};
typedef bool sm_dns_record_fn(void *arg, const struct sm_dns_record *record);

/* Walks the answer section of a message that sm_dns_is_answer took. Addresses in the hints of SVCB
 * and HTTPS records are given as records of that type with addr. False: malformed, or ended by
 * fn. */
bool sm_dns_walk(const uint8_t *msg, size_t len, sm_dns_record_fn *fn, void *arg);

/* Turns a query into an answer without records; returns its length (the question's end). */
size_t sm_dns_make_error(uint8_t *msg, const struct sm_dns_question *question, unsigned rcode);

/* Cuts an answer down to what the asker takes: header and question with the TC bit. */
size_t sm_dns_truncate(uint8_t *msg, const struct sm_dns_question *question);

#endif
