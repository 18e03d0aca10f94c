/* Frames of a guest: parsing stays inside, and what is judged can be answered. */
#include <stdint.h>
#include <stdlib.h>

#include "net/egress.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char text[] = "layer public\nallow *.example.com\nallow host-loopback:80\n";
    auto_policy policy = {0};
    if (sm_policy_parse(text, sizeof(text) - 1, &policy, NULL))
        abort();
    struct sm_egress egress;
    sm_egress_init(&egress, &policy, true, NULL, NULL);
    struct sm_frame f;
    uint8_t out[SM_FRAME_REFUSAL_MAX];
    switch (sm_egress_judge(&egress, data, size, 1, &f)) {
    case SM_EGRESS_REJECT:
        if (sm_frame_refuse(out, sizeof(out), data, &f) == 0 &&
            (f.protocol != SM_IP_TCP || !(f.tcp_flags & SM_TCP_RST)))
            abort();
        break;
    case SM_EGRESS_DNS:
        if (f.payload > f.end || f.end > size || f.dport != 53 ||
            (f.protocol != SM_IP_UDP && f.protocol != SM_IP_TCP))
            abort();
        break;
    case SM_EGRESS_PASS:
        if (f.kind == SM_FRAME_IP && (f.payload > f.end || f.end > size))
            abort();
        if (f.kind == SM_FRAME_IP && sm_ip_classify(&f.dst) == SM_IP_THIS_HOST &&
            (f.protocol != SM_IP_TCP || (f.tcp_flags & SM_TCP_SYN)) && !f.later_fragment)
            abort();
        break;
    case SM_EGRESS_DROP:
        break;
    }
    sm_egress_clear(&egress);
    return 0;
}
