/* What every VM's machine has. See usual_parts.h. */
#include "vmm/usual_parts.h"

#include <assert.h>
#include <string.h>

#include "devices/vsock/vsock.h"

void sm_usual_parts(struct sm_machine_part parts[SM_USUAL_PARTS], const char *rootfs,
    const struct sm_machine_part *net)
{
    unsigned n = 0;
    parts[n++] = sm_part_rootfs(rootfs);
    parts[n++] = sm_part_vsock(SM_VSOCK_GUEST_CID);
    parts[n++] = sm_part_rng();
    parts[n++] = sm_part_balloon();
    parts[n++] = *net;
    assert(n == SM_USUAL_PARTS);
}

void sm_usual_parts_fingerprint(struct sm_fingerprint *f)
{
    static const uint8_t any[6];
    const struct sm_machine_part net = sm_part_net(NULL, NULL, any);
    struct sm_machine_part parts[SM_USUAL_PARTS];
    sm_usual_parts(parts, NULL, &net);
    for (unsigned i = 0; i < SM_USUAL_PARTS; i++)
        sm_fingerprint_add(f, parts[i].role, strlen(parts[i].role));
}
