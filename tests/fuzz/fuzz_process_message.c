/*
 * What a network process that was taken over says to its client, and what is said to it: what is
 * read of a report must be what a notice may rely on, and what is read of either is written again
 * as it was.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz.h"
#include "net/process_message.h"
#include "vm/notices.h"

static void on_notice(void *arg, const char *line)
{
    (void)arg;
    for (; *line; line++)
        fuzz_demand((uint8_t)*line >= ' ' && *line != 0x7f);
}

static void look_at_report(const uint8_t *data, size_t size)
{
    static const struct sm_vm_events events = {.notice = on_notice};
    struct sm_network_report report, again;
    uint8_t record[SM_NETWORK_MAX_REPORT];
    if (!sm_network_report_decode(data, size, &report))
        return;
    fuzz_demand(strlen(report.text) <= SM_NETWORK_MAX_SENTENCE);
    if (report.kind == SM_NETWORK_DENIED)
        sm_notice_denial(&events, &report.denial);
    else
        on_notice(NULL, report.text);
    size_t len = sm_network_report_encode(&report, record);
    fuzz_demand(sm_network_report_decode(record, len, &again) && again.kind == report.kind);
    fuzz_demand(strcmp(report.text, again.text) == 0);
    fuzz_demand(again.denial.port == report.denial.port);
    fuzz_demand(again.denial.verdict == report.denial.verdict);
}

static void look_at_order(const uint8_t *data, size_t size)
{
    struct sm_network_order order;
    if (sm_network_order_decode(data, size, &order, NULL))
        return;
    uint8_t *record;
    size_t len;
    fuzz_demand(sm_network_order_encode(&order, &record, &len, NULL) == 0);
    fuzz_demand(len == size && memcmp(record, data, len) == 0);
    free(record);
}

/* Input: which, then the record. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0)
        return 0;
    if (data[0] % 2)
        look_at_report(data + 1, size - 1);
    else
        look_at_order(data + 1, size - 1);
    return 0;
}
