/*
 * Where things are in an x86_64 machine. There is no PCI and no ACPI: windows and interrupts are
 * told on the kernel command line, CPUs and the IOAPIC by the MP table.
 */
#include "arch/arch.h"
#include "arch/x86_64/boot.h"
#include "util/bytes.h"
#include "util/error.h"

#define WINDOWS_GPA 0xd0000000ULL /* between RAM's two pieces */
#define FIRST_GSI   5             /* below are those of a PC's own devices */
#define GSI_SKIPPED 8             /* the real-time clock's, which Linux may want for itself */

/* Above all RAM (64 GiB), and below what 40 address bits reach. */
#define FILES_GPA (128ULL << 30)

#define SERIAL_PORT   0x3f8
#define RESET_PORT    0x64 /* of the keyboard controller */
#define RESET_COMMAND 0xfe

enum sm_arch_tag sm_arch_tag(void)
{
    return SM_ARCH_X86_64;
}

int sm_arch_ram(uint64_t bytes, struct sm_arch_ram *ram, sm_error *err)
{
    (void)err;
    uint64_t low = SM_MIN(bytes, SM_X86_RAM_LOW_END);
    *ram = (struct sm_arch_ram){.n = 1, .piece[0] = {.gpa = 0, .bytes = low}};
    if (bytes > low) {
        ram->piece[1].gpa = SM_X86_RAM_HIGH_START;
        ram->piece[1].bytes = bytes - low;
        ram->n = 2;
    }
    return 0;
}

uint64_t sm_arch_files_base(void)
{
    return FILES_GPA;
}

int sm_arch_place(unsigned index, struct sm_arch_place *place, sm_error *err)
{
    enum { PLACES = SM_X86_IOAPIC_PINS - FIRST_GSI - 1 };
    _Static_assert(PLACES <= SM_ARCH_MAX_PLACES, "there is a place for each");
    if (index >= PLACES)
        return sm_error_set(
            err, SM_ELIMIT, "a machine has at most %d devices: no interrupt is left", PLACES);
    unsigned gsi = FIRST_GSI + index;
    *place = (struct sm_arch_place){
        .window = WINDOWS_GPA + index * (uint64_t)SM_ARCH_WINDOW_BYTES,
        .irq = gsi >= GSI_SKIPPED ? gsi + 1 : gsi,
    };
    return 0;
}

const struct sm_arch_platform *sm_arch_platform(void)
{
    static const struct sm_arch_platform platform = {
        .serial = {.pio = true, .base = SERIAL_PORT, .bytes = 8},
        .reset = {.pio = true, .base = RESET_PORT, .bytes = 1},
        .reset_command = RESET_COMMAND,
    };
    return &platform;
}
