/* What a guest that speaks vsock (vsock_guest.h) is sent, where the loop is turned by hand; for
 * tests. */
#ifndef VSOCK_UTIL_H
#define VSOCK_UTIL_H

#include "vsock_guest.h"

static inline struct vg_packet vsock_expect(struct vg *g, struct sm_loop *loop, unsigned op)
{
    struct vg_packet p = {0};
    sm_loop_turn(loop);
    assert_true(vg_recv(g, &p));
    assert_int_equal(p.op, op);
    assert_true(p.src_cid == 2 && p.dst_cid == 3 && p.type == 1);
    return p;
}

static inline void vsock_expect_silence(struct vg *g, struct sm_loop *loop)
{
    struct vg_packet p;
    sm_loop_turn(loop);
    assert_false(vg_recv(g, &p));
}

#endif
