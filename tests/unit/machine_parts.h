/* What a machine of a test has: all but a root file system and a network. */
#ifndef SM_TESTS_MACHINE_PARTS_H
#define SM_TESTS_MACHINE_PARTS_H

#include "vmm/machine.h"
#include "vmm/parts.h"

#define TEST_PARTS 3

static inline struct sm_machine_config with_parts(
    struct sm_machine_part parts[TEST_PARTS], struct sm_machine_config config)
{
    parts[0] = sm_part_vsock(3);
    parts[1] = sm_part_rng();
    parts[2] = sm_part_balloon();
    config.parts = parts;
    config.n_parts = TEST_PARTS;
    return config;
}

/* As sm_machine_create. */
static inline int make_machine(
    struct sm_machine **m, const struct sm_machine_config *config, sm_error *err)
{
    struct sm_machine_part parts[TEST_PARTS];
    const struct sm_machine_config c = with_parts(parts, *config);
    return sm_machine_create(m, &c, err);
}

#endif
