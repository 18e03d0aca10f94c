/*
 * A hypervisor without guests, for tests of what is above the seam: linked in place of the real
 * one. A vCPU keeps the state it is given and runs nothing; what a guest would do, the test says
 * (fake_hv_store).
 *
 * It is as awkward as hypervisor.h lets one be: by its rules a vCPU's state is for its own thread
 * alone (any other ends the test), and it takes neither irqfds nor ioeventfds.
 */
#ifndef SM_TESTS_FAKE_HYPERVISOR_H
#define SM_TESTS_FAKE_HYPERVISOR_H

#include <stdbool.h>
#include <stdint.h>

struct fake_hv_rules {
    bool any_thread; /* it is not so awkward */
};
extern struct fake_hv_rules fake_hv;

/* vCPU 0 of the running machine stores 32 bits at `address`; back when vmm has dealt with it. */
void fake_hv_store(uint64_t address, uint32_t value);

/* Edges on `irq` since the last VM was created. */
unsigned fake_hv_raised(unsigned irq);

#endif
