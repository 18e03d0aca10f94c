/*
 * Encoder and decoder of the messages in wire.h. Each message is a table of its fields (kind, place
 * in the structure, bound); one loop over the table writes or reads it. So there is one place where
 * a length is checked for each kind of field, and little code in the guest.
 */
#include "wire/wire.h"

#include <string.h>

#include "util/bytes.h"

enum kind { U16, U32, U64, I32, STRING, BYTES, LIST, PROCESS };

struct field {
    uint8_t kind;
    uint8_t offset; /* in the structure */
    uint16_t max;   /* of STRING and BYTES: length without the NUL */
};

/* The array of negative length catches a member that is not of the kind's type. */
#define CHECKED(s, m, type)                                                                        \
    (offsetof(struct sm_wire_##s, m) +                                                             \
        0 * sizeof(                                                                                \
                char[__builtin_types_compatible_p(__typeof__(((struct sm_wire_##s *)0)->m), type)  \
                         ? 1                                                                       \
                         : -1]))
#define F_U16(s, m)                                                                                \
    {                                                                                              \
        U16, CHECKED(s, m, uint16_t), 0                                                            \
    }
#define F_U32(s, m)                                                                                \
    {                                                                                              \
        U32, CHECKED(s, m, uint32_t), 0                                                            \
    }
#define F_U64(s, m)                                                                                \
    {                                                                                              \
        U64, CHECKED(s, m, uint64_t), 0                                                            \
    }
#define F_I32(s, m)                                                                                \
    {                                                                                              \
        I32, CHECKED(s, m, int32_t), 0                                                             \
    }
#define F_STRING(s, m, max)                                                                        \
    {                                                                                              \
        STRING, CHECKED(s, m, const char *), max                                                   \
    }
#define F_BYTES(s, m, max)                                                                         \
    {                                                                                              \
        BYTES, CHECKED(s, m, struct sm_wire_bytes), max                                            \
    }
#define F_LIST(s, m)                                                                               \
    {                                                                                              \
        LIST, CHECKED(s, m, struct sm_wire_list), 0                                                \
    }
#define F_PROCESS(s, m)                                                                            \
    {                                                                                              \
        PROCESS, CHECKED(s, m, struct sm_wire_process), 0                                          \
    }

static const struct field hello_fields[] = {
    F_U32(hello, version),
    F_U64(hello, boot_nonce),
    F_U64(hello, monotonic_ns),
    F_STRING(hello, build, 64),
};
static const struct field ping_fields[] = {F_U64(ping, cookie)};
static const struct field pong_fields[] = {
    F_U64(pong, cookie),
    F_U64(pong, boot_nonce),
    F_U64(pong, monotonic_ns),
    F_U64(pong, realtime_ns),
    F_U64(pong, ticks),
};
static const struct field exec_fields[] = {
    F_U32(exec, flags),
    F_U32(exec, timeout_ms),
    F_U32(exec, grace_ms),
    F_U16(exec, rows),
    F_U16(exec, columns),
    F_STRING(exec, user, 255),
    F_STRING(exec, cwd, SM_WIRE_MAX_PATH),
    F_LIST(exec, argv),
    F_LIST(exec, env),
    F_PROCESS(exec, process),
};
/* What follows its flags where these are not 0. */
static const struct field process_fields[] = {
    F_U64(process, bounding),
    F_U64(process, ambient),
    F_U32(process, umask),
    F_I32(process, oom_score_adj),
    F_BYTES(process, limits, SM_WIRE_MAX_LIMITS *SM_WIRE_LIMIT_SIZE),
    F_LIST(process, groups),
    F_LIST(process, sysctls),
    F_LIST(process, tmpfs),
    F_LIST(process, hosts),
};
static const struct field attach_fields[] = {F_U32(attach, pid)};
static const struct field started_fields[] = {F_U32(started, pid)};
static const struct field exit_fields[] = {
    F_I32(exit, code),
    F_U32(exit, signal),
    F_U32(exit, timed_out),
    F_U32(exit, out_of_memory),
    F_U64(exit, peak_rss_bytes),
    F_U64(exit, wall_us),
};
static const struct field write_file_fields[] = {
    F_STRING(write_file, path, SM_WIRE_MAX_PATH),
    F_U32(write_file, mode),
    F_U32(write_file, uid),
    F_U32(write_file, gid),
    F_U64(write_file, size),
};
static const struct field read_file_fields[] = {
    F_STRING(read_file, path, SM_WIRE_MAX_PATH),
    F_U64(read_file, max),
};
static const struct field file_fields[] = {
    F_U64(file, size),
    F_U32(file, mode),
    F_U32(file, uid),
    F_U32(file, gid),
};
static const struct field set_clock_fields[] = {F_U64(set_clock, realtime_ns)};
static const struct field add_entropy_fields[] = {F_BYTES(add_entropy, seed, SM_WIRE_MAX_ENTROPY)};
static const struct field set_identity_fields[] = {
    F_STRING(set_identity, hostname, SM_WIRE_MAX_HOSTNAME),
    F_STRING(set_identity, machine_id, SM_WIRE_MAX_MACHINE_ID),
};
static const struct field restore_fields[] = {
    F_U64(restore, realtime_ns),
    F_BYTES(restore, seed, SM_WIRE_MAX_ENTROPY),
    F_STRING(restore, hostname, SM_WIRE_MAX_HOSTNAME),
    F_STRING(restore, machine_id, SM_WIRE_MAX_MACHINE_ID),
    F_U32(restore, attach_pid),
};
static const struct field set_network_fields[] = {
    F_BYTES(set_network, mac, 6),
    F_U32(set_network, mtu),
    F_BYTES(set_network, address4, 4),
    F_BYTES(set_network, gateway4, 4),
    F_BYTES(set_network, address6, 16),
    F_BYTES(set_network, gateway6, 16),
    F_U16(set_network, prefix4),
    F_U16(set_network, prefix6),
    F_STRING(set_network, resolv_conf, SM_WIRE_MAX_RESOLV),
};
static const struct field wait_listen_fields[] = {
    F_U32(wait_listen, port),
    F_U32(wait_listen, timeout_ms),
};
static const struct field wait_idle_fields[] = {
    F_U32(wait_idle, quiet_ms),
    F_U32(wait_idle, timeout_ms),
};
static const struct field freeze_fields[] = {F_U32(freeze, timeout_ms)};
static const struct field error_fields[] = {
    F_U32(error, kind),
    F_I32(error, errnum),
    F_STRING(error, message, SM_WIRE_MAX_MESSAGE),
};
static const struct field sockets_fields[] = {
    F_BYTES(sockets, records, SM_WIRE_MAX_SOCKETS *SM_WIRE_SOCKET_SIZE),
};
static const struct field signal_fields[] = {F_U32(signal, signal), F_U32(signal, group)};
static const struct field resize_fields[] = {F_U16(resize, rows), F_U16(resize, columns)};
static const struct field window_fields[] = {F_U32(window, bytes)};

struct message {
    uint16_t type;
    uint16_t n_fields;
    uint32_t max; /* of the payload */
    const struct field *fields;
    const char *name;
};

/* Every message but EXEC is bounded by one path and some numbers, or by its table of sockets. */
#define SMALL (SM_WIRE_MAX_PATH + 64u)
#define MESSAGE(TYPE, name, max)                                                                   \
    {                                                                                              \
        SM_WIRE_##TYPE, SM_ARRAY_LEN(name), max, name, #TYPE                                       \
    }
#define EMPTY(TYPE)                                                                                \
    {                                                                                              \
        SM_WIRE_##TYPE, 0, 0, NULL, #TYPE                                                          \
    }
#define DATA(TYPE)                                                                                 \
    {                                                                                              \
        SM_WIRE_##TYPE, 0, SM_WIRE_MAX_DATA, NULL, #TYPE                                           \
    }

static const struct message messages[] = {
    MESSAGE(HELLO, hello_fields, SMALL),
    MESSAGE(PING, ping_fields, SMALL),
    MESSAGE(EXEC, exec_fields, SM_WIRE_MAX_PAYLOAD),
    MESSAGE(ATTACH, attach_fields, SMALL),
    MESSAGE(WRITE_FILE, write_file_fields, SMALL),
    MESSAGE(READ_FILE, read_file_fields, SMALL),
    MESSAGE(SET_CLOCK, set_clock_fields, SMALL),
    MESSAGE(ADD_ENTROPY, add_entropy_fields, SMALL),
    MESSAGE(SET_IDENTITY, set_identity_fields, SMALL),
    MESSAGE(RESTORE, restore_fields, SMALL),
    EMPTY(POWER_OFF),
    EMPTY(LISTENERS),
    MESSAGE(WAIT_LISTEN, wait_listen_fields, SMALL),
    MESSAGE(WAIT_IDLE, wait_idle_fields, SMALL),
    MESSAGE(FREEZE, freeze_fields, SMALL),
    EMPTY(THAW),
    EMPTY(WATCH),
    MESSAGE(SET_NETWORK, set_network_fields, SMALL),
    EMPTY(OK),
    MESSAGE(ERROR, error_fields, SMALL),
    MESSAGE(PONG, pong_fields, SMALL),
    MESSAGE(STARTED, started_fields, SMALL),
    MESSAGE(EXIT, exit_fields, SMALL),
    MESSAGE(FILE, file_fields, SMALL),
    MESSAGE(SOCKETS, sockets_fields, 4 + SM_WIRE_MAX_SOCKETS * SM_WIRE_SOCKET_SIZE),
    DATA(STDIN),
    EMPTY(STDIN_EOF),
    MESSAGE(SIGNAL, signal_fields, SMALL),
    MESSAGE(RESIZE, resize_fields, SMALL),
    DATA(STDOUT),
    DATA(STDERR),
    MESSAGE(WINDOW, window_fields, SMALL),
    DATA(DATA),
};

static const struct message *find(uint16_t type)
{
    for (size_t i = 0; i < SM_ARRAY_LEN(messages); i++)
        if (messages[i].type == type)
            return &messages[i];
    return NULL;
}

long sm_wire_max_payload(uint16_t type)
{
    const struct message *m = find(type);
    return m ? (long)m->max : -1;
}

const char *sm_wire_type_name(uint16_t type)
{
    const struct message *m = find(type);
    return m ? m->name : "unknown";
}

int sm_wire_parse(const void *buf, size_t have, struct sm_wire_frame *frame)
{
    if (have < SM_WIRE_HEADER)
        return 0;
    const uint8_t *p = buf;
    frame->len = sm_load_le32(p);
    frame->type = sm_load_le16(p + 4);
    frame->payload = NULL;
    const struct message *m = find(frame->type);
    if (!m || frame->len > m->max || sm_load_le16(p + 6) != 0)
        return -1;
    if (have - SM_WIRE_HEADER < frame->len)
        return 0;
    frame->payload = p + SM_WIRE_HEADER;
    return 1;
}

/* ---- decoding ----------------------------------------------------------------------------- */

struct cursor {
    const uint8_t *p;
    size_t left;
    bool failed;
};

static const uint8_t *take(struct cursor *c, size_t n)
{
    if (c->failed || c->left < n) {
        c->failed = true;
        return NULL;
    }
    const uint8_t *p = c->p;
    c->p += n;
    c->left -= n;
    return p;
}

static uint32_t take_u32(struct cursor *c)
{
    const uint8_t *p = take(c, 4);
    return p ? sm_load_le32(p) : 0;
}

static void take_string(struct cursor *c, uint32_t max, const char **out)
{
    uint32_t len = take_u32(c);
    if (len > max)
        c->failed = true;
    const uint8_t *p = take(c, (size_t)len + 1);
    if (p && memchr(p, 0, (size_t)len + 1) != p + len)
        c->failed = true;
    *out = (const char *)p;
}

static void take_list(struct cursor *c, struct sm_wire_list *out)
{
    uint32_t count = take_u32(c), bytes = take_u32(c), seen = 0;
    const uint8_t *p = take(c, bytes);
    if (!p)
        return;
    if (count > SM_WIRE_MAX_STRINGS || (bytes > 0 && p[bytes - 1] != 0))
        c->failed = true;
    const uint8_t *end = p + bytes;
    for (const uint8_t *s = p; s < end && !c->failed; seen++)
        s = (const uint8_t *)memchr(s, 0, (size_t)(end - s)) + 1;
    if (seen != count)
        c->failed = true;
    *out = (struct sm_wire_list){.data = (const char *)p, .bytes = bytes, .count = count};
}

static void take_value(struct cursor *c, const struct field *f, void *structure)
{
    void *to = (uint8_t *)structure + f->offset;
    const uint8_t *p;
    switch ((enum kind)f->kind) {
    case U16:
        if ((p = take(c, 2)))
            *(uint16_t *)to = sm_load_le16(p);
        break;
    case U32:
        *(uint32_t *)to = take_u32(c);
        break;
    case I32:
        *(int32_t *)to = (int32_t)take_u32(c);
        break;
    case U64:
        if ((p = take(c, 8)))
            *(uint64_t *)to = sm_load_le64(p);
        break;
    case STRING:
        take_string(c, f->max, to);
        break;
    case BYTES: {
        struct sm_wire_bytes *b = to;
        b->len = take_u32(c);
        if (b->len > f->max)
            c->failed = true;
        b->data = take(c, b->len);
        break;
    }
    case LIST:
        take_list(c, to);
        break;
    case PROCESS: /* take_process */
        break;
    }
}

static void take_process(struct cursor *c, struct sm_wire_process *p)
{
    *p = (struct sm_wire_process){.flags = take_u32(c)};
    for (size_t i = 0; p->flags != 0 && i < SM_ARRAY_LEN(process_fields); i++)
        take_value(c, &process_fields[i], p);
}

bool sm_wire_get(const struct sm_wire_frame *frame, enum sm_wire_type type, void *message)
{
    const struct message *m = find(frame->type);
    if (!m || frame->type != type || !m->fields)
        return false;
    struct cursor c = {.p = frame->payload, .left = frame->len};
    for (size_t i = 0; i < m->n_fields && !c.failed; i++) {
        const struct field *f = &m->fields[i];
        if (f->kind == PROCESS)
            take_process(&c, (void *)((uint8_t *)message + f->offset));
        else
            take_value(&c, f, message);
    }
    return !c.failed && c.left == 0;
}

bool sm_wire_list_next(const struct sm_wire_list *list, uint32_t *cursor, const char **s)
{
    if (*cursor >= list->bytes)
        return false;
    *s = list->data + *cursor;
    *cursor += (uint32_t)strlen(*s) + 1;
    return true;
}

bool sm_wire_sockets_get(const struct sm_wire_sockets *m, uint32_t i, struct sm_wire_socket *out)
{
    if (i >= m->records.len / SM_WIRE_SOCKET_SIZE)
        return false;
    const uint8_t *p = (const uint8_t *)m->records.data + (size_t)i * SM_WIRE_SOCKET_SIZE;
    out->family = sm_load_le16(p);
    out->protocol = sm_load_le16(p + 2);
    out->port = sm_load_le16(p + 4);
    memcpy(out->address, p + 8, 16);
    return true;
}

bool sm_wire_limit_get(const struct sm_wire_process *m, uint32_t i, struct sm_wire_limit *out)
{
    if (i >= m->limits.len / SM_WIRE_LIMIT_SIZE)
        return false;
    const uint8_t *p = (const uint8_t *)m->limits.data + (size_t)i * SM_WIRE_LIMIT_SIZE;
    *out = (struct sm_wire_limit){
        .resource = sm_load_le32(p), .soft = sm_load_le64(p + 4), .hard = sm_load_le64(p + 12)};
    return true;
}

/* ---- encoding ----------------------------------------------------------------------------- */

static void put_bytes(struct sm_wire_writer *w, const void *data, size_t len)
{
    if (w->failed)
        return;
    if (w->buf) {
        if (len > w->cap - w->len) {
            w->failed = true;
            return;
        }
        if (len > 0)
            memcpy(w->buf + w->len, data, len);
    }
    w->len += len;
}

static void put_u32(struct sm_wire_writer *w, uint32_t v)
{
    uint8_t b[4];
    sm_store_le32(b, v);
    put_bytes(w, b, sizeof(b));
}

static void put_string(struct sm_wire_writer *w, const char *s, uint32_t max)
{
    if (!s)
        s = "";
    size_t len = strlen(s);
    if (len > max) {
        w->failed = true;
        return;
    }
    put_u32(w, (uint32_t)len);
    put_bytes(w, s, len + 1);
}

static void put_list(struct sm_wire_writer *w, const struct sm_wire_list *list)
{
    size_t count = list->count, bytes = list->bytes;
    for (const char *const *s = list->strv; s && *s; s++) {
        count++;
        bytes += strlen(*s) + 1;
    }
    if (count > SM_WIRE_MAX_STRINGS || bytes > SM_WIRE_MAX_PAYLOAD) {
        w->failed = true;
        return;
    }
    put_u32(w, (uint32_t)count);
    put_u32(w, (uint32_t)bytes);
    put_bytes(w, list->data, list->bytes);
    for (const char *const *s = list->strv; s && *s; s++)
        put_bytes(w, *s, strlen(*s) + 1);
}

void sm_wire_data_header(uint8_t header[SM_WIRE_HEADER], enum sm_wire_type type, uint32_t len)
{
    sm_store_le32(header, len);
    sm_store_le16(header + 4, (uint16_t)type);
    sm_store_le16(header + 6, 0);
}

static void put_value(struct sm_wire_writer *w, const struct field *f, const void *structure)
{
    const void *from = (const uint8_t *)structure + f->offset;
    uint8_t b[8];
    switch ((enum kind)f->kind) {
    case U16:
        sm_store_le16(b, *(const uint16_t *)from);
        put_bytes(w, b, 2);
        break;
    case U32:
    case I32:
        put_u32(w, *(const uint32_t *)from);
        break;
    case U64:
        sm_store_le64(b, *(const uint64_t *)from);
        put_bytes(w, b, 8);
        break;
    case STRING:
        put_string(w, *(const char *const *)from, f->max);
        break;
    case BYTES: {
        const struct sm_wire_bytes *bytes = from;
        if (bytes->len > f->max)
            w->failed = true;
        put_u32(w, bytes->len);
        put_bytes(w, bytes->data, bytes->len);
        break;
    }
    case LIST:
        put_list(w, from);
        break;
    case PROCESS: /* put_process */
        break;
    }
}

static void put_process(struct sm_wire_writer *w, const struct sm_wire_process *p)
{
    put_u32(w, p->flags);
    for (size_t i = 0; p->flags != 0 && i < SM_ARRAY_LEN(process_fields); i++)
        put_value(w, &process_fields[i], p);
}

/* Header first, fields behind it, then the length is known; a frame that fails is taken back. */
void sm_wire_put(struct sm_wire_writer *w, enum sm_wire_type type, const void *message)
{
    const struct message *m = find((uint16_t)type);
    size_t start = w->len;
    uint8_t header[SM_WIRE_HEADER] = {0};
    put_bytes(w, header, sizeof(header));
    for (size_t i = 0; m && i < m->n_fields; i++) {
        const struct field *f = &m->fields[i];
        if (f->kind == PROCESS)
            put_process(w, (const void *)((const uint8_t *)message + f->offset));
        else
            put_value(w, f, message);
    }
    if (!m || (!w->failed && w->len - start - SM_WIRE_HEADER > m->max))
        w->failed = true;
    if (w->failed)
        w->len = start;
    else if (w->buf)
        sm_wire_data_header(w->buf + start, type, (uint32_t)(w->len - start - SM_WIRE_HEADER));
}

void sm_wire_put_empty(struct sm_wire_writer *w, enum sm_wire_type type)
{
    sm_wire_put(w, type, NULL);
}

void sm_wire_put_data(
    struct sm_wire_writer *w, enum sm_wire_type type, const void *data, size_t len)
{
    size_t start = w->len;
    uint8_t header[SM_WIRE_HEADER];
    if (len > SM_WIRE_MAX_DATA) {
        w->failed = true;
        return;
    }
    sm_wire_data_header(header, type, (uint32_t)len);
    put_bytes(w, header, sizeof(header));
    put_bytes(w, data, len);
    if (w->failed)
        w->len = start;
}

void sm_wire_socket_store(uint8_t record[SM_WIRE_SOCKET_SIZE], const struct sm_wire_socket *s)
{
    sm_store_le16(record, s->family);
    sm_store_le16(record + 2, s->protocol);
    sm_store_le16(record + 4, s->port);
    sm_store_le16(record + 6, 0);
    memcpy(record + 8, s->address, 16);
}

void sm_wire_limit_store(uint8_t record[SM_WIRE_LIMIT_SIZE], const struct sm_wire_limit *limit)
{
    sm_store_le32(record, limit->resource);
    sm_store_le64(record + 4, limit->soft);
    sm_store_le64(record + 12, limit->hard);
}
