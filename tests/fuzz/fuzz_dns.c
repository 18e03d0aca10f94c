/* DNS messages from the guest (queries) and from resolvers (answers). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "net/dns_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool visit(void *arg, const struct sm_dns_record *record)
{
    size_t *n = arg;
    if (record->target && strlen(record->target) >= SM_DNS_NAME_TEXT)
        abort();
    *n += record->addr ? record->addr->b[15] : record->ttl;
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    size_t sum = 0;
    if (size > SM_DNS_MAX_MESSAGE)
        size = SM_DNS_MAX_MESSAGE;
    uint8_t *msg = malloc(size + 1);

    if (!msg)
        return 0;
    memcpy(msg, data, size);
    (void)sm_dns_walk(msg, size, visit, &sum);
    struct sm_dns_question q;
    if (sm_dns_parse_query(msg, size, &q)) {
        if (q.end > size)
            abort();
        size = sm_dns_make_error(msg, &q, SM_DNS_RCODE_NXDOMAIN);
        if (!sm_dns_is_answer(msg, size, q.id, &q))
            abort();
    }
    free(msg);
    return 0;
}
