/*
 * An architecture that is not there. It keeps arch.h honest: what vmm and snapshot ask of an
 * architecture links against this (tests/unit/test_stub.c), so nothing of a real one can have crept
 * in above. A port begins as a copy.
 */
#include "arch/arch.h"

#include "util/error.h"

static int not_here(sm_error *err)
{
    return sm_error_set(err, SM_EUNSUPPORTED, "supermachine cannot run VMs on this architecture");
}

enum sm_arch_tag sm_arch_tag(void)
{
    return SM_ARCH_UNMARKED;
}

int sm_arch_ram(uint64_t bytes, struct sm_arch_ram *ram, sm_error *err)
{
    (void)bytes, (void)ram;
    return not_here(err);
}

uint64_t sm_arch_files_base(void)
{
    return 0;
}

int sm_arch_place(unsigned index, struct sm_arch_place *place, sm_error *err)
{
    (void)index, (void)place;
    return not_here(err);
}

const struct sm_arch_platform *sm_arch_platform(void)
{
    static const struct sm_arch_platform nothing;
    return &nothing;
}

int sm_arch_boot(const struct sm_arch_boot *boot, struct sm_vcpu_state *vcpu0, sm_error *err)
{
    (void)boot, (void)vcpu0;
    return not_here(err);
}
