/* The header of a vsock packet as numbers (virtio 1.2, 5.10.6): packet.c has its bytes. */
#ifndef SM_DEVICES_VSOCK_HEADER_H
#define SM_DEVICES_VSOCK_HEADER_H

#include <stdint.h>

#define VSOCK_HEADER_BYTES 44u

enum vsock_op {
    VSOCK_OP_REQUEST = 1,
    VSOCK_OP_RESPONSE = 2,
    VSOCK_OP_RST = 3,
    VSOCK_OP_SHUTDOWN = 4,
    VSOCK_OP_RW = 5,
    VSOCK_OP_CREDIT_UPDATE = 6,
    VSOCK_OP_CREDIT_REQUEST = 7,
};

#define VSOCK_TYPE_STREAM 1u

#define VSOCK_SHUTDOWN_RCV  1u /* the sender of the packet will receive no more */
#define VSOCK_SHUTDOWN_SEND 2u
#define VSOCK_SHUTDOWN_BOTH 3u

struct vsock_header {
    uint64_t src_cid, dst_cid;
    uint32_t src_port, dst_port;
    uint32_t len;
    uint16_t type, op;
    uint32_t flags;
    uint32_t buf_alloc, fwd_cnt;
};

#endif
