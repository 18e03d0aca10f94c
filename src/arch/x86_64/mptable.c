/*
 * The MP table (Intel MultiProcessor Specification 1.4): how a guest without ACPI learns of its
 * processors and of the IOAPIC. All interrupts are edge-triggered, active high, GSI n at pin n.
 */
#include <string.h>

#include "arch/x86_64/boot.h"
#include "util/bytes.h"

#define LAPIC_GPA  0xfee00000u
#define IOAPIC_GPA 0xfec00000u

#define APIC_VERSION    0x14
#define CPU_ENABLED     1
#define CPU_BOOT        2
#define CPU_SIGNATURE   0x600
#define CPU_FEATURES    0x201 /* FPU, APIC */
#define FLAGS_HIGH_EDGE 0x5

enum { ENTRY_CPU, ENTRY_BUS, ENTRY_IOAPIC, ENTRY_INTERRUPT, ENTRY_LOCAL };
enum { TYPE_INT, TYPE_NMI, TYPE_SMI, TYPE_EXTINT };

static uint8_t checksum(const uint8_t *p, size_t n)
{
    uint8_t sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += p[i];
    return (uint8_t)-sum;
}

static uint8_t *put_interrupt(uint8_t *e, uint8_t entry, uint8_t type, uint16_t flags,
    uint8_t source_irq, uint8_t dest_apic, uint8_t dest_pin)
{
    const uint8_t v[8] = {entry, type, (uint8_t)flags, 0, 0, source_irq, dest_apic, dest_pin};
    memcpy(e, v, sizeof(v));
    return e + sizeof(v);
}

size_t sm_x86_mptable(uint8_t table[SM_X86_MPTABLE_MAX], unsigned vcpus)
{
    enum { POINTER = 16, HEADER = 44 };
    uint8_t ioapic_id = (uint8_t)vcpus;
    uint8_t *header = table + POINTER, *e = header + HEADER;
    uint16_t entries = 0;

    memset(table, 0, SM_X86_MPTABLE_MAX);
    for (unsigned i = 0; i < vcpus; i++, e += 20, entries++) {
        e[0] = ENTRY_CPU;
        e[1] = (uint8_t)i; /* APIC id */
        e[2] = APIC_VERSION;
        e[3] = CPU_ENABLED | (i == 0 ? CPU_BOOT : 0);
        sm_store_le32(e + 4, CPU_SIGNATURE);
        sm_store_le32(e + 8, CPU_FEATURES);
    }
    e[0] = ENTRY_BUS;
    memcpy(e + 2, "ISA   ", 6);
    e += 8, entries++;
    e[0] = ENTRY_IOAPIC;
    e[1] = ioapic_id;
    e[2] = 0x11;
    e[3] = 1; /* usable */
    sm_store_le32(e + 4, IOAPIC_GPA);
    e += 8, entries++;
    for (uint8_t i = 0; i < SM_X86_IOAPIC_PINS; i++, entries++)
        e = put_interrupt(e, ENTRY_INTERRUPT, TYPE_INT, FLAGS_HIGH_EDGE, i, ioapic_id, i);
    e = put_interrupt(e, ENTRY_LOCAL, TYPE_EXTINT, 0, 0, 0, 0);
    e = put_interrupt(e, ENTRY_LOCAL, TYPE_NMI, 0, 0, 0xff, 1);
    entries += 2;

    memcpy(header, "PCMP", 4);
    sm_store_le16(header + 4, (uint16_t)(e - header));
    header[6] = 4; /* revision 1.4 */
    memcpy(header + 8, "SUPERM  MICROVM     ", 20);
    sm_store_le16(header + 34, entries);
    sm_store_le32(header + 36, LAPIC_GPA);
    header[7] = checksum(header, (size_t)(e - header));

    memcpy(table, "_MP_", 4);
    sm_store_le32(table + 4, SM_X86_MPTABLE_GPA + POINTER);
    table[8] = 1; /* length in paragraphs */
    table[9] = 4; /* revision 1.4 */
    table[10] = checksum(table, POINTER);
    return (size_t)(e - table);
}
