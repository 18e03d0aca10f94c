/*
 * What a socket of the host is connected to in the guest: plain values, so that who has the socket
 * may be in another process than the device.
 */
#ifndef SM_DEVICES_VSOCK_TARGET_H
#define SM_DEVICES_VSOCK_TARGET_H

#include <stdbool.h>
#include <stdint.h>

#define SM_VSOCK_HOST_CID  2
#define SM_VSOCK_GUEST_CID 3 /* what every guest of ours gets: clones never notice a change */

#define SM_VSOCK_FIRST 8

struct sm_vsock_target {
    uint32_t port;                            /* of the guest, which gets */
    uint8_t first[SM_VSOCK_FIRST], first_len; /* this before anything else */
    bool stranger;       /* strangers have half of the streams, so that the owner is not kept out */
    unsigned timeout_ms; /* for the guest's answer; 0: a minute */
    /* The socket gets "OK PORT\n" when the guest has accepted, before any byte of it; PORT is the
     * stream's number on our side. */
    bool say_ok;
};

#endif
