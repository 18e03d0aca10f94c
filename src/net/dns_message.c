/* Messages of DNS, read without a copy and without memory of their own. See dns_message.h. A name's
 * pointers lead strictly backwards, records are walked by their lengths, and what is not understood
 * is stepped over, so every walk ends at the message's end at the latest. */
#include "net/dns_message.h"

#include <arpa/inet.h>
#include <string.h>

#include "util/bytes.h"

#define FLAG_QR     0x8000u
#define FLAG_OPCODE 0x7800u
#define FLAG_AA     0x0400u
#define FLAG_TC     0x0200u
#define FLAG_RD     0x0100u
#define FLAG_RA     0x0080u
#define TYPE_OPT    41
#define MIN_UDP     512

/* Appends a label in lower case. A dot, a backslash and what is not printable become \DDD, so that
 * no two different names have the same text. */
static size_t put_label(char *text, size_t used, const uint8_t *label, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint8_t c = label[i];
        if (c > ' ' && c < 0x7f && c != '.' && c != '\\') {
            text[used++] = (char)(c >= 'A' && c <= 'Z' ? c + 32 : c);
        } else {
            text[used++] = '\\';
            text[used++] = (char)('0' + c / 100);
            text[used++] = (char)('0' + c / 10 % 10);
            text[used++] = (char)('0' + c % 10);
        }
    }
    return used;
}

/*
 * Reads the name at *pos and steps behind it; text may be NULL. Compression pointers must point in
 * front of the part that held them, so the walk ends, but not into the header, which changes on the
 * way; in the question there is nothing that they could point at. 255 octets are the bound of RFC
 * 1035.
 */
static bool read_name(const uint8_t *msg, size_t len, size_t *pos, char text[SM_DNS_NAME_TEXT])
{
    size_t at = *pos, limit = *pos, used = 0, octets = 0;
    bool jumped = false;
    for (;;) {
        if (at >= len)
            return false;
        uint8_t n = msg[at];
        if (n == 0) {
            if (!jumped)
                *pos = at + 1;
            if (text)
                text[used > 0 ? used - 1 : 0] = '\0';
            return true;
        }
        if ((n & 0xc0) == 0xc0) {
            if (at + 2 > len)
                return false;
            size_t to = sm_load_be16(msg + at) & 0x3fffu;
            if (to >= limit || to < SM_DNS_HEADER)
                return false;
            if (!jumped)
                *pos = at + 2;
            jumped = true;
            at = limit = to;
            continue;
        }
        octets += n + 1u;
        if (n > 63 || octets > 254 || at + 1 + n > len)
            return false;
        if (text) {
            used = put_label(text, used, msg + at + 1, n);
            text[used++] = '.';
        }
        at += n + 1u;
    }
}

struct record {
    uint16_t type, class;
    uint32_t ttl;
    size_t data, data_len;
};

static bool read_record(const uint8_t *msg, size_t len, size_t *pos, struct record *r)
{
    size_t at = *pos;
    if (!read_name(msg, len, &at, NULL) || len - at < 10)
        return false;
    r->type = sm_load_be16(msg + at);
    r->class = sm_load_be16(msg + at + 2);
    r->ttl = sm_load_be32(msg + at + 4);
    r->data_len = sm_load_be16(msg + at + 8);
    r->data = at + 10;
    if (len - r->data < r->data_len)
        return false;
    *pos = r->data + r->data_len;
    return true;
}

static bool read_question(const uint8_t *msg, size_t len, struct sm_dns_question *q)
{
    if (len < SM_DNS_HEADER || len > SM_DNS_MAX_MESSAGE || sm_load_be16(msg + 4) != 1)
        return false;
    size_t pos = SM_DNS_HEADER;
    if (!read_name(msg, len, &pos, q->name) || len - pos < 4)
        return false;
    q->id = sm_load_be16(msg);
    q->type = sm_load_be16(msg + pos);
    q->class = sm_load_be16(msg + pos + 2);
    q->end = pos + 4;
    q->udp_size = MIN_UDP;
    return true;
}

bool sm_dns_parse_query(const uint8_t *msg, size_t len, struct sm_dns_question *question)
{
    if (!read_question(msg, len, question))
        return false;
    if ((sm_load_be16(msg + 2) & (FLAG_QR | FLAG_OPCODE)) != 0 || sm_load_be16(msg + 6) != 0)
        return false;
    size_t pos = question->end;
    unsigned extra = sm_load_be16(msg + 8) + sm_load_be16(msg + 10);
    while (extra-- > 0) {
        struct record r;
        if (!read_record(msg, len, &pos, &r))
            return false;
        if (r.type == TYPE_OPT)
            question->udp_size = SM_MIN(SM_MAX(r.class, MIN_UDP), SM_DNS_MAX_UDP);
    }
    return true;
}

bool sm_dns_is_answer(
    const uint8_t *msg, size_t len, uint16_t id, const struct sm_dns_question *question)
{
    struct sm_dns_question q;
    return read_question(msg, len, &q) && (sm_load_be16(msg + 2) & FLAG_QR) && q.id == id &&
           q.type == question->type && q.class == question->class &&
           strcmp(q.name, question->name) == 0;
}

bool sm_dns_is_failure(const uint8_t *msg)
{
    unsigned rcode = msg[3] & 15;
    return rcode == SM_DNS_RCODE_SERVFAIL || rcode == SM_DNS_RCODE_NOTIMP ||
           rcode == SM_DNS_RCODE_REFUSED;
}

/* RFC 9460: priority, target, then parameters key, length, value; keys 4 and 6 are address
 * hints. */
static bool walk_hints(const uint8_t *msg, const struct record *r, sm_dns_record_fn *fn, void *arg)
{
    size_t pos = r->data + 2, end = r->data + r->data_len;
    if (r->data_len < 3 || !read_name(msg, end, &pos, NULL))
        return false;
    while (pos < end) {
        if (end - pos < 4)
            return false;
        unsigned key = sm_load_be16(msg + pos);
        unsigned n = sm_load_be16(msg + pos + 2);
        pos += 4;
        if (end - pos < n)
            return false;
        unsigned step = key == 4 ? 4 : key == 6 ? 16 : 0;
        if (step && n % step)
            return false;
        for (unsigned i = 0; step && i < n; i += step) {
            struct sm_ip ip;
            if (step == 4)
                ip = sm_ip_from_v4(sm_load_be32(msg + pos + i));
            else
                memcpy(ip.b, msg + pos + i, 16);
            struct sm_dns_record record = {.type = r->type, .ttl = r->ttl, .addr = &ip};
            if (!fn(arg, &record))
                return false;
        }
        pos += n;
    }
    return true;
}

static bool walk_record(
    const uint8_t *msg, size_t len, const struct record *r, sm_dns_record_fn *fn, void *arg)
{
    struct sm_dns_record record = {.type = r->type, .ttl = r->ttl};
    char target[SM_DNS_NAME_TEXT];
    struct sm_ip ip;
    size_t pos = r->data;
    switch (r->type) {
    case SM_DNS_TYPE_A:
        if (r->data_len != 4)
            return false;
        ip = sm_ip_from_v4(sm_load_be32(msg + r->data));
        record.addr = &ip;
        break;
    case SM_DNS_TYPE_AAAA:
        if (r->data_len != 16)
            return false;
        memcpy(ip.b, msg + r->data, 16);
        record.addr = &ip;
        break;
    case SM_DNS_TYPE_CNAME:
    case SM_DNS_TYPE_DNAME:
        if (!read_name(msg, len, &pos, target) || pos != r->data + r->data_len)
            return false;
        record.target = target;
        break;
    case SM_DNS_TYPE_SVCB:
    case SM_DNS_TYPE_HTTPS:
        return walk_hints(msg, r, fn, arg);
    default:
        break;
    }
    return fn(arg, &record);
}

bool sm_dns_walk(const uint8_t *msg, size_t len, sm_dns_record_fn *fn, void *arg)
{
    struct sm_dns_question q;
    if (!read_question(msg, len, &q))
        return false;
    size_t pos = q.end;
    unsigned n = sm_load_be16(msg + 6);
    for (unsigned i = 0; i < n; i++) {
        struct record r;
        if (!read_record(msg, len, &pos, &r))
            return false;
        if (r.class == SM_DNS_CLASS_IN && !walk_record(msg, len, &r, fn, arg))
            return false;
    }
    return true;
}

static size_t keep_question(uint8_t *msg, const struct sm_dns_question *q, unsigned flags)
{
    sm_store_be16(msg + 2, flags);
    memset(msg + 6, 0, 6);
    return q->end;
}

size_t sm_dns_make_error(uint8_t *msg, const struct sm_dns_question *question, unsigned rcode)
{
    unsigned flags = sm_load_be16(msg + 2) & FLAG_RD;
    return keep_question(msg, question, flags | FLAG_QR | FLAG_RA | rcode);
}

size_t sm_dns_truncate(uint8_t *msg, const struct sm_dns_question *question)
{
    return keep_question(msg, question, (sm_load_be16(msg + 2) & ~FLAG_AA) | FLAG_TC);
}
