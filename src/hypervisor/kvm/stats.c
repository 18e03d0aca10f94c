/*
 * How many guest instructions KVM has emulated: on hosts without hardware virtualisation that is
 * all that the guest's kernel does, and a measure of its work which other load on the host does not
 * falsify.
 *
 * KVM tells it in a file of statistics (KVM_GET_STATS_FD, Linux 5.14): a header, descriptions,
 * values. The descriptor is taken before the vCPU runs, because KVM_RUN holds the lock that the
 * ioctl wants; reading needs none.
 *
 * System calls: pread64.
 * System calls at set-up: ioctl(KVM_GET_STATS_FD).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "hypervisor/kvm/kvm.h"
#include "util/cleanup.h"

#define STATISTIC  "insn_emulation"
#define MAX_STATS  4096
#define MAX_LENGTH 256 /* of a name */

/* Where the value is in the file, or -1. */
static off_t find_value(int fd)
{
    struct kvm_stats_header header;
    if (pread(fd, &header, sizeof(header), 0) != sizeof(header) || header.num_desc > MAX_STATS ||
        header.name_size < sizeof(STATISTIC) || header.name_size > MAX_LENGTH)
        return -1;
    size_t each = sizeof(struct kvm_stats_desc) + header.name_size;
    auto_free char *all = calloc(header.num_desc, each);
    ssize_t bytes = (ssize_t)(each * header.num_desc);
    if (!all || pread(fd, all, (size_t)bytes, header.desc_offset) != bytes)
        return -1;
    for (uint32_t i = 0; i < header.num_desc; i++) {
        struct kvm_stats_desc desc;
        const char *name = all + i * each + sizeof(desc);
        memcpy(&desc, all + i * each, sizeof(desc));
        if (strncmp(name, STATISTIC, header.name_size) == 0)
            return (off_t)header.data_offset + desc.offset;
    }
    return -1;
}

void sm_hv_vcpu_count_instructions(struct sm_hv_vcpu *vcpu)
{
    auto_fd fd = ioctl(vcpu->fd, KVM_GET_STATS_FD, 0);
    if (fd < 0)
        return;
    vcpu->instructions_at = find_value(fd);
    if (vcpu->instructions_at >= 0)
        vcpu->stats_fd = sm_steal_fd(&fd);
}

uint64_t sm_kvm_instructions(const struct sm_hv_vcpu *vcpu)
{
    uint64_t value;
    if (vcpu->stats_fd < 0 ||
        pread(vcpu->stats_fd, &value, sizeof(value), vcpu->instructions_at) != sizeof(value))
        return 0;
    return value;
}
