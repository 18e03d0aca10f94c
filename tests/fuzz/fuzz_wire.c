/* A stream of frames as either side would read it. What decodes must encode to the same bytes. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "wire/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

union message {
#define MEMBER(TYPE, name) struct sm_wire_##name name;
    SM_WIRE_MESSAGES(MEMBER)
#undef MEMBER
};

static void check_list(const struct sm_wire_list *list)
{
    uint32_t cursor = 0, n = 0;
    for (const char *s; sm_wire_list_next(list, &cursor, &s); n++)
        if (s < list->data || s >= list->data + list->bytes)
            abort();
    if (n != list->count)
        abort();
}

static void check(const struct sm_wire_frame *f)
{
    union message m;
    struct sm_wire_socket s;
    struct sm_wire_limit l;
    enum sm_wire_type type = (enum sm_wire_type)f->type;
    if (!sm_wire_get(f, type, &m))
        return;
    if (type == SM_WIRE_EXEC) {
        check_list(&m.exec.argv);
        check_list(&m.exec.env);
        check_list(&m.exec.process.groups);
        check_list(&m.exec.process.sysctls);
        check_list(&m.exec.process.tmpfs);
        check_list(&m.exec.process.hosts);
        for (uint32_t i = 0; sm_wire_limit_get(&m.exec.process, i, &l); i++)
            ;
    }
    for (uint32_t i = 0; type == SM_WIRE_SOCKETS && sm_wire_sockets_get(&m.sockets, i, &s); i++)
        ;
    struct sm_wire_writer w = {.cap = SM_WIRE_HEADER + f->len};
    w.buf = malloc(w.cap);
    if (!w.buf)
        return;
    sm_wire_put(&w, type, &m);
    if (w.failed || w.len != w.cap || memcmp(w.buf + SM_WIRE_HEADER, f->payload, f->len) != 0)
        abort();
    free(w.buf);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_wire_frame f;
    while (sm_wire_parse(data, size, &f) == 1) {
        check(&f);
        data += SM_WIRE_HEADER + f.len;
        size -= SM_WIRE_HEADER + f.len;
    }
    return 0;
}
