/* Messages between the network process and its client. See process_message.h. */
#include "net/process_message.h"

#include <stdlib.h>
#include <string.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/text.h"

/* ---- orders ---------------------------------------------------------------------------------- */

#define ORDER_HEADER (4 + 4 + 4 + 16 + 4 + 4) /* kind, flags, prefix, link, two lengths */
#define FLAG_TAP     1u
#define FLAG_REPORTS 2u

int sm_network_order_encode(
    const struct sm_network_order *order, uint8_t **record, size_t *len, sm_error *err)
{
    size_t policy_len = SM_MIN(order->policy_len, (size_t)SM_POLICY_MAX_TEXT);
    size_t resolv_len = SM_MIN(order->resolv_conf_len, (size_t)SM_RESOLV_MAX_FILE);
    uint8_t *r = malloc(ORDER_HEADER + policy_len + resolv_len);
    if (!r)
        return sm_error_set(err, SM_ENOMEM, "no memory for the network process' orders");
    sm_store_le32(r, order->kind);
    sm_store_le32(r + 4, (order->tap ? FLAG_TAP : 0) | (order->reports ? FLAG_REPORTS : 0));
    sm_store_le32(r + 8, order->link_prefix);
    memcpy(r + 12, order->link.b, sizeof(order->link.b));
    sm_store_le32(r + 28, (uint32_t)policy_len);
    sm_store_le32(r + 32, (uint32_t)resolv_len);
    if (policy_len > 0)
        memcpy(r + ORDER_HEADER, order->policy, policy_len);
    if (resolv_len > 0)
        memcpy(r + ORDER_HEADER + policy_len, order->resolv_conf, resolv_len);
    *record = r;
    *len = ORDER_HEADER + policy_len + resolv_len;
    return 0;
}

int sm_network_order_decode(
    const uint8_t *record, size_t len, struct sm_network_order *order, sm_error *err)
{
    if (len < ORDER_HEADER || len > SM_NETWORK_MAX_ORDER)
        return sm_error_set(
            err, SM_EPROTOCOL, "an order to the network process cannot have %zu bytes", len);
    uint32_t kind = sm_load_le32(record), flags = sm_load_le32(record + 4);
    *order = (struct sm_network_order){
        .kind = kind,
        .tap = flags & FLAG_TAP,
        .reports = flags & FLAG_REPORTS,
        .link_prefix = sm_load_le32(record + 8),
        .policy_len = sm_load_le32(record + 28),
        .resolv_conf_len = sm_load_le32(record + 32),
    };
    memcpy(order->link.b, record + 12, sizeof(order->link.b));
    if ((kind != SM_NETWORK_SETUP && kind != SM_NETWORK_RESOLV) ||
        flags & ~(FLAG_TAP | FLAG_REPORTS) || order->link_prefix > 128 ||
        order->policy_len > SM_POLICY_MAX_TEXT || order->resolv_conf_len > SM_RESOLV_MAX_FILE ||
        len != ORDER_HEADER + order->policy_len + order->resolv_conf_len)
        return sm_error_set(err, SM_EPROTOCOL, "an order to the network process is malformed");
    order->policy = (const char *)record + ORDER_HEADER;
    order->resolv_conf = order->policy + order->policy_len;
    return 0;
}

/* ---- reports --------------------------------------------------------------------------------- */

#define REPORT_HEADER (4 + 4 + 4 + 4 + 8 + 16) /* kind, verdict, protocol, port, suppressed, addr */
_Static_assert(REPORT_HEADER + SM_NETWORK_MAX_SENTENCE <= SM_NETWORK_MAX_REPORT, "room");

size_t sm_network_report_encode(
    const struct sm_network_report *report, uint8_t record[SM_NETWORK_MAX_REPORT])
{
    const struct sm_denial *d = &report->denial;
    const char *text = report->kind == SM_NETWORK_DENIED ? d->name : report->text;
    if (text && !*text && d->name) /* the root, which is not no name */
        text = ".";
    size_t len = text ? strnlen(text, SM_NETWORK_MAX_SENTENCE) : 0;
    sm_store_le32(record, report->kind);
    sm_store_le32(record + 4, d->verdict);
    sm_store_le32(record + 8, d->protocol);
    sm_store_le32(record + 12, (uint32_t)d->port);
    sm_store_le64(record + 16, d->suppressed);
    memcpy(record + 24, d->addr.b, sizeof(d->addr.b));
    if (len > 0)
        memcpy(record + REPORT_HEADER, text, len);
    return REPORT_HEADER + len;
}

/* As names in questions are, once they were read (dns_message.h): nothing that is no text. */
static bool is_name(const char *text)
{
    while (*text > ' ' && *text <= '~')
        text++;
    return *text == '\0';
}

static bool decode_denial(const uint8_t *record, struct sm_network_report *report)
{
    uint32_t verdict = sm_load_le32(record + 4), protocol = sm_load_le32(record + 8);
    int32_t port = (int32_t)sm_load_le32(record + 12);
    if (verdict == SM_VERDICT_ALLOW || verdict >= SM_VERDICT_COUNT || protocol > 255 ||
        port < SM_NO_PORT || port > 65535 || !is_name(report->text))
        return false;
    struct sm_denial *d = &report->denial;
    d->verdict = verdict;
    d->protocol = (uint8_t)protocol;
    d->port = port;
    d->suppressed = sm_load_le64(record + 16);
    d->name = *report->text ? report->text : NULL;
    memcpy(d->addr.b, record + 24, sizeof(d->addr.b));
    return true;
}

static bool take_text(const void *text, size_t len, struct sm_network_report *report)
{
    memcpy(report->text, text, len);
    return strlen(report->text) == len;
}

static bool is_sentence(struct sm_network_report *report)
{
    sm_text_clean(report->text, false);
    return *report->text != '\0';
}

bool sm_network_report_decode(const uint8_t *record, size_t len, struct sm_network_report *report)
{
    if (len > 0 && len <= SM_NETWORK_MAX_SENTENCE && record[0] >= ' ') {
        *report = (struct sm_network_report){.kind = SM_NETWORK_TROUBLE};
        size_t text_len = record[len - 1] == '\n' ? len - 1 : len;
        return take_text(record, text_len, report) && is_sentence(report);
    }
    if (len < REPORT_HEADER || len > REPORT_HEADER + SM_NETWORK_MAX_SENTENCE)
        return false;
    size_t text_len = len - REPORT_HEADER;
    *report = (struct sm_network_report){.kind = sm_load_le32(record)};
    if (!take_text(record + REPORT_HEADER, text_len, report))
        return false;
    switch (report->kind) {
    case SM_NETWORK_DENIED:
        return decode_denial(record, report);
    case SM_NETWORK_TROUBLE:
        return is_sentence(report);
    case SM_NETWORK_ASKED:
    case SM_NETWORK_DONE:
        return text_len == 0;
    }
    return false;
}
