/* Walk of 4-level page tables. See paging.h. */
#include "arch/x86_64/paging.h"

#include <stddef.h>

#define PTE_P  (1ULL << 0)
#define PTE_W  (1ULL << 1)
#define PTE_U  (1ULL << 2)
#define PTE_A  (1ULL << 5)
#define PTE_D  (1ULL << 6)
#define PTE_PS (1ULL << 7)
#define PTE_NX (1ULL << 63)

#define LEVELS 4

static uint64_t address_mask(const struct sm_x86_paging *p)
{
    return ((1ULL << p->physical_bits) - 1) & ~0xfffULL;
}

/* Bits that must be zero in an entry of `level` (3 = PML4 .. 0 = PT). */
static uint64_t reserved_bits(const struct sm_x86_paging *p, int level, uint64_t entry)
{
    uint64_t bits = 0xfffffffffffffULL & ~((1ULL << p->physical_bits) - 1);
    if (!(p->efer & SM_X86_EFER_NXE))
        bits |= PTE_NX;
    if (level == 3)
        bits |= PTE_PS;
    else if (level > 0 &&
             (entry & PTE_PS)) /* large page: address bits below its size, but PAT (12) */
        bits |= ((1ULL << (12 + 9 * level)) - 1) & ~0x1fffULL;
    return bits;
}

/* Whether the rights gathered on the way allow the access. */
static bool allowed(
    const struct sm_x86_paging *p, enum sm_x86_access access, bool writable, bool user, bool nx)
{
    if (p->cpl == 3) {
        if (!user || (access == SM_X86_WRITE && !writable))
            return false;
    } else {
        if (access == SM_X86_WRITE && !writable && (p->cr0 & SM_X86_CR0_WP))
            return false;
        if (user && access == SM_X86_FETCH && (p->cr4 & SM_X86_CR4_SMEP))
            return false;
        if (user && access != SM_X86_FETCH && (p->cr4 & SM_X86_CR4_SMAP) &&
            !(p->rflags & SM_X86_RFLAGS_AC))
            return false;
    }
    return !(access == SM_X86_FETCH && nx);
}

enum sm_x86_walk_result sm_x86_walk(const struct sm_x86_paging *p, uint64_t va,
    enum sm_x86_access access, uint64_t *gpa, uint32_t *error)
{
    if (!(p->cr0 & SM_X86_CR0_PG) || !(p->efer & SM_X86_EFER_LMA) || (p->cr4 & SM_X86_CR4_LA57))
        return SM_X86_WALK_UNSUPPORTED;
    if ((uint64_t)((int64_t)(va << 16) >> 16) != va)
        return SM_X86_WALK_NONCANONICAL;

    bool fetch_bit =
        access == SM_X86_FETCH && ((p->efer & SM_X86_EFER_NXE) || (p->cr4 & SM_X86_CR4_SMEP));
    *error = (access == SM_X86_WRITE ? SM_X86_PF_WRITE : 0) | (p->cpl == 3 ? SM_X86_PF_USER : 0) |
             (fetch_bit ? SM_X86_PF_FETCH : 0);

    bool writable = true, user = true, nx = false;
    uint64_t *slots[LEVELS], seen[LEVELS];
    uint64_t table = p->cr3 & address_mask(p);
    int level = LEVELS - 1;
    for (;; level--) {
        uint64_t *slot = p->ram(p->arg, table + (va >> (12 + 9 * level) & 511) * 8, 8);
        if (!slot)
            return SM_X86_WALK_UNSUPPORTED;
        uint64_t entry = __atomic_load_n(slot, __ATOMIC_RELAXED);
        slots[level] = slot;
        seen[level] = entry;
        if (!(entry & PTE_P))
            return SM_X86_WALK_FAULT;
        if (entry & reserved_bits(p, level, entry)) {
            *error |= SM_X86_PF_PRESENT | SM_X86_PF_RSVD;
            return SM_X86_WALK_FAULT;
        }
        writable &= !!(entry & PTE_W);
        user &= !!(entry & PTE_U);
        nx |= (entry & PTE_NX) && (p->efer & SM_X86_EFER_NXE);
        table = entry & address_mask(p);
        if (level == 0 || (entry & PTE_PS))
            break;
    }
    if (!allowed(p, access, writable, user, nx)) {
        *error |= SM_X86_PF_PRESENT;
        return SM_X86_WALK_FAULT;
    }
    for (int i = LEVELS - 1; i >= level; i--) {
        uint64_t bits = PTE_A | (i == level && access == SM_X86_WRITE ? PTE_D : 0);
        if ((seen[i] & bits) != bits)
            __atomic_fetch_or(slots[i], bits, __ATOMIC_RELAXED);
    }
    uint64_t offset_mask = (1ULL << (12 + 9 * level)) - 1;
    *gpa = (table & ~offset_mask) | (va & offset_mask);
    return SM_X86_WALK_OK;
}
