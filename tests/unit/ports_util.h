/* Ports of a guest that speaks vsock (vsock_guest.h), for tests. */
#ifndef PORTS_UTIL_H
#define PORTS_UTIL_H

#include <unistd.h>

#include "net/ports/ports.h"
#include "patience.h"
#include "ports_link.h"
#include "util/clock.h"
#include "vsock_guest.h"
#include "wire/wire.h"

struct ports_fixture {
    struct vg g;
    struct sm_loop *loop;
    struct sm_virtio_env env;
    struct sm_vsock *vsock;
    struct ports_link link;
    struct sm_ports *ports;
};

/* max_streams: of the guest; 0: as usual. `threaded`: the loop has its thread, else it is turned by
 * hand. */
static inline int ports_setup_with(void **state, unsigned max_streams, bool threaded)
{
    const struct sm_vsock_config config = {.max_streams = max_streams};
    struct ports_fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    fg_init(&f->g.fg);
    assert_int_equal(sm_loop_create(&f->loop, NULL), 0);
    f->env = (struct sm_virtio_env){.loop = f->loop, .memory = &f->g.fg.gm, .irq = fg_bell()};
    assert_int_equal(sm_vsock_create(&f->env, &config, &f->vsock, NULL), 0);
    if (threaded)
        assert_int_equal(sm_loop_start(f->loop, "ports-test", NULL), 0);
    vg_init(&f->g, sm_vsock_dev(f->vsock), 16, 8192);
    f->link.vsock = f->vsock;
    const struct sm_guest_link link = ports_link_of(&f->link);
    assert_int_equal(sm_ports_create(f->loop, &link, NULL, NULL, &f->ports, NULL), 0);
    *state = f;
    return 0;
}

static inline int ports_setup(void **state)
{
    return ports_setup_with(state, 0, true);
}

static inline int ports_teardown(void **state)
{
    struct ports_fixture *f = *state;
    sm_ports_destroy(f->ports);
    sm_virtio_destroy(sm_vsock_dev(f->vsock));
    sm_loop_destroy(f->loop);
    sm_bell_close(&f->env.irq);
    fg_fini(&f->g.fg);
    free(f);
    return 0;
}

/* The next packet that is no credit update. */
static inline struct vg_packet ports_packet(struct ports_fixture *f)
{
    int64_t deadline = sm_deadline(PATIENCE_MS);
    struct vg_packet p;
    for (;;) {
        if (vg_recv(&f->g, &p)) {
            if (p.op != VG_CREDIT_UPDATE)
                return p;
        } else if (sm_deadline_left(deadline) == 0) {
            fail_msg("no packet came");
        } else {
            usleep(200);
        }
    }
}

/* The guest takes the connection; what it is told first must name this port. */
static inline struct vg_packet ports_answer(
    struct ports_fixture *f, unsigned port, unsigned protocol)
{
    struct vg_packet request = ports_packet(f);
    assert_int_equal(request.op, VG_REQUEST);
    assert_int_equal(request.dst_port, SM_WIRE_PROXY_PORT);
    vg_send(&f->g, request.dst_port, request.src_port, VG_RESPONSE, 0, NULL, 0);
    struct vg_packet first = ports_packet(f);
    assert_int_equal(first.op, VG_RW);
    assert_int_equal(first.len, 4);
    assert_int_equal(sm_load_le16(first.data), port);
    assert_int_equal(sm_load_le16(first.data + 2), protocol);
    return request;
}

#endif
