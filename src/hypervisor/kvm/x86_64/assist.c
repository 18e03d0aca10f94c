/*
 * The assist: completes guest-kernel instructions for a KVM that cannot.
 *
 * Some hosts have KVM without hardware virtualisation: guest user mode runs natively, guest kernel
 * mode is emulated instruction by instruction, and KVM_RUN ends with "emulation failure" at those
 * that the emulator lacks. Here they are decoded (arch/x86_64/insn.c), done on registers, guest
 * memory or the XSAVE area, and RIP is stepped. Hardware never ends KVM_RUN this way for them, so
 * there this file is never entered and costs nothing.
 *
 * Memory operands are reached by a real walk of the guest's page tables; where the walk faults, #PF
 * with its error code and CR2 is injected and the guest tries again. Everything an instruction
 * writes is probed before the first byte is written, so a fault leaves no half-done instruction.
 * Vectors other than int3's are injected with RIP at the instruction.
 *
 * SYSCALL from guest user mode is broken on such hosts: the CPU arrives at LSTAR with user CS and
 * SS, the fetch faults, and the guest's #PF handler is entered with a frame that says RIP = LSTAR,
 * CS at CPL 3. The handler begins with CLAC (SMAP is on), which the emulator lacks too: there we
 * look at the frame and, if it is such a one and no jump of user code to that address
 * (arch/x86_64/syscall.h), turn it back into a system call entry. Without SMAP in the guest this
 * hook does not exist, and system calls fail with a segmentation fault of the process.
 *
 * User code can shape what arrives here: its own registers, flags, memory, XSAVE areas that the
 * kernel restores from, and while two threads of it run, the bytes of its own instruction. So
 * nothing of it is believed: every operand is walked with the rights of the CPU's privilege level,
 * areas are checked as the CPU does, and an instruction of user mode that cannot be completed is
 * its process' #UD, not the end of the VM.
 *
 * Registers travel in the run structure once a vCPU was assisted (an ioctl of a vCPU costs 8 us on
 * such hosts); what is changed there is taken over by the next KVM_RUN.
 *
 * It never guesses: what is not known ends the VM with an error that names bytes and address.
 *
 * System calls of vCPU threads: ioctl(KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS,
 * KVM_GET_VCPU_EVENTS, KVM_SET_VCPU_EVENTS, KVM_GET_XCRS, KVM_SET_XCRS, KVM_GET_XSAVE,
 * KVM_GET_XSAVE2, KVM_SET_XSAVE, KVM_GET_MSRS).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "arch/x86_64/insn.h"
#include "arch/x86_64/paging.h"
#include "arch/x86_64/syscall.h"
#include "arch/x86_64/xstate.h"
#include "hypervisor/kvm/x86_64/x86.h"
#include "util/bytes.h"
#include "util/error.h"

#define VECTOR_BP 3
#define VECTOR_UD 6
#define VECTOR_NM 7
#define VECTOR_GP 13
#define VECTOR_PF 14
#define NO_ERROR  (-1)

#define MSR_LSTAR     0xc0000082u
#define MSR_SFMASK    0xc0000084u
#define RFLAGS_ZF     (1ULL << 6)
#define RFLAGS_STATUS 0x8d5ULL /* OF SF ZF AF PF CF */

/* How far into the #PF handler its CLAC may lie: endbr64 and prefixes before it. */
#define CLAC_WITHIN 16

/* One instruction being completed. */
struct job {
    struct sm_hv_vcpu *vcpu;
    struct kvm_regs regs;
    struct kvm_sregs sregs;
    uint64_t gpr[16]; /* in the CPU's counting, copied back at the end */
    uint8_t bytes[SM_INSN_MAX_BYTES];
    size_t n_bytes;
    struct sm_insn insn;
    uint64_t address; /* of the memory operand */
    struct sm_x86_paging paging;
    sm_error *err;
};

/* Results of the steps below: DONE and FAULTED (an exception was injected) are both fine; negative
 * is a failure that ends the VM. */
enum { DONE = 0, FAULTED = 1 };

static int system_failure(struct job *j, const char *what)
{
    return sm_error_errno(
        j->err, errno, "assist: KVM does not %s of vCPU %u", what, j->vcpu->index);
}

/* ---- registers ----------------------------------------------------------------------------- */

static void load_gpr(struct job *j)
{
    const struct kvm_regs *r = &j->regs;
    const uint64_t v[16] = {r->rax, r->rcx, r->rdx, r->rbx, r->rsp, r->rbp, r->rsi, r->rdi, r->r8,
        r->r9, r->r10, r->r11, r->r12, r->r13, r->r14, r->r15};
    memcpy(j->gpr, v, sizeof(v));
}

static void store_gpr(struct job *j)
{
    struct kvm_regs *r = &j->regs;
    const uint64_t *v = j->gpr;
    r->rax = v[0], r->rcx = v[1], r->rdx = v[2], r->rbx = v[3];
    r->rsp = v[4], r->rbp = v[5], r->rsi = v[6], r->rdi = v[7];
    r->r8 = v[8], r->r9 = v[9], r->r10 = v[10], r->r11 = v[11];
    r->r12 = v[12], r->r13 = v[13], r->r14 = v[14], r->r15 = v[15];
}

enum { RAX = 0, RCX = 1, RDX = 2, RBX = 3 };

static uint64_t edx_eax(const struct job *j)
{
    return (uint32_t)j->gpr[RAX] | j->gpr[RDX] << 32;
}

/* Both take effect with the next KVM_RUN at the latest. */
static int set_regs(struct job *j)
{
    struct kvm_run *run = j->vcpu->run;
    if (run->kvm_valid_regs) {
        run->s.regs.regs = j->regs;
        run->kvm_dirty_regs |= KVM_SYNC_X86_REGS;
        return DONE;
    }
    return ioctl(j->vcpu->fd, KVM_SET_REGS, &j->regs) < 0 ? system_failure(j, "take the registers")
                                                          : DONE;
}

static int set_sregs(struct job *j)
{
    struct kvm_run *run = j->vcpu->run;
    if (run->kvm_valid_regs) {
        run->s.regs.sregs = j->sregs;
        run->kvm_dirty_regs |= KVM_SYNC_X86_SREGS;
        return DONE;
    }
    return ioctl(j->vcpu->fd, KVM_SET_SREGS, &j->sregs) < 0
               ? system_failure(j, "take the registers")
               : DONE;
}

static void count(struct job *j, enum sm_kvm_assist_kind kind)
{
    j->vcpu->assist->done[kind]++;
    sm_kvm_count(&j->vcpu->assists);
}

static int finish(struct job *j, enum sm_kvm_assist_kind kind)
{
    store_gpr(j);
    j->regs.rip += j->insn.length;
    j->regs.rflags &= ~SM_X86_RFLAGS_RF;
    int rc = set_regs(j);
    if (!rc)
        count(j, kind);
    return rc;
}

/* ---- exceptions ---------------------------------------------------------------------------- */

static int inject(struct job *j, uint8_t vector, int error_code)
{
    struct kvm_vcpu_events events;
    if (ioctl(j->vcpu->fd, KVM_GET_VCPU_EVENTS, &events) < 0)
        return system_failure(j, "give the pending events");
    memset(&events.exception, 0, sizeof(events.exception));
    events.exception.injected = 1;
    events.exception.nr = vector;
    events.exception.has_error_code = error_code >= 0;
    events.exception.error_code = error_code >= 0 ? (uint32_t)error_code : 0;
    if (ioctl(j->vcpu->fd, KVM_SET_VCPU_EVENTS, &events) < 0)
        return system_failure(j, "take the pending events");
    if (vector != VECTOR_BP)
        count(j, SM_KVM_ASSIST_FAULT);
    return FAULTED;
}

static int inject_page_fault(struct job *j, uint64_t va, uint32_t error)
{
    j->sregs.cr2 = va;
    int rc = set_sregs(j);
    return rc ? rc : inject(j, VECTOR_PF, (int)error);
}

/* ---- guest memory -------------------------------------------------------------------------- */

static void *ram(void *arg, uint64_t gpa, uint64_t bytes)
{
    const struct job *j = arg;
    return sm_kvm_host(j->vcpu->vm, gpa, bytes, true);
}

/* What is beyond us ends the VM; an instruction of user mode only its process. */
static int fail_unknown(struct job *j, const char *why)
{
    if (j->paging.cpl == 3)
        return inject(j, VECTOR_UD, NO_ERROR);
    char hex[SM_INSN_MAX_BYTES * 3 + 1] = "";
    for (size_t i = 0; i < j->n_bytes; i++)
        snprintf(hex + i * 3, 4, "%02x ", j->bytes[i]);
    return sm_error_set(j->err, SM_EHYPERVISOR,
        "%s: instruction bytes %sat RIP %#llx (CPL %u) of vCPU %u: "
        "this host emulates guest kernel mode, "
        "use the project's own guest kernel or a host with hardware virtualisation",
        why, hex, (unsigned long long)j->regs.rip, j->paging.cpl, j->vcpu->index);
}

/* Host address of the byte at va, good to the end of its page. */
static int touch(struct job *j, uint64_t va, enum sm_x86_access access, uint8_t **host)
{
    uint64_t gpa = 0;
    uint32_t error = 0;
    switch (sm_x86_walk(&j->paging, va, access, &gpa, &error)) {
    case SM_X86_WALK_FAULT:
        return inject_page_fault(j, va, error);
    case SM_X86_WALK_NONCANONICAL:
        return inject(j, VECTOR_GP, 0);
    case SM_X86_WALK_UNSUPPORTED:
        return fail_unknown(j, "assist: the guest's page tables cannot be walked");
    case SM_X86_WALK_OK:
        break;
    }
    *host = sm_kvm_host(j->vcpu->vm, gpa, 4096 - (gpa & 4095), access == SM_X86_WRITE);
    if (!*host)
        return fail_unknown(j, "assist: the operand is not in RAM");
    return DONE;
}

/* Moves bytes between buf and [va, va + n); with buf NULL it only touches the pages. */
static int move(struct job *j, uint64_t va, void *buf, size_t n, enum sm_x86_access access)
{
    uint8_t *p = buf;
    while (n) {
        size_t chunk = SM_MIN(n, 4096 - (size_t)(va & 4095));
        uint8_t *host = NULL;
        int rc = touch(j, va, access, &host);
        if (rc)
            return rc;
        if (p && access == SM_X86_WRITE)
            memcpy(host, p, chunk);
        else if (p)
            memcpy(p, host, chunk);
        if (p)
            p += chunk;
        va += chunk;
        n -= chunk;
    }
    return DONE;
}

/* ---- the instructions ---------------------------------------------------------------------- */

static int do_int3(struct job *j)
{
    int rc = finish(j, SM_KVM_ASSIST_INT3); /* a trap: RIP is past it */
    if (rc)
        return rc;
    return inject(j, VECTOR_BP, NO_ERROR);
}

static int do_popcnt(struct job *j)
{
    uint64_t v = 0;
    unsigned bytes = j->insn.operand_bytes;
    if (j->insn.memory) {
        int rc = move(j, j->address, &v, bytes, SM_X86_READ);
        if (rc)
            return rc;
    } else {
        v = j->gpr[j->insn.rm];
    }
    if (bytes < 8)
        v &= (1ULL << (8 * bytes)) - 1;
    uint64_t count = (uint64_t)__builtin_popcountll(v);
    uint64_t *dst = &j->gpr[j->insn.reg];
    *dst = bytes == 2 ? (*dst & ~0xffffULL) | count : count;
    j->regs.rflags &= ~RFLAGS_STATUS;
    if (!v)
        j->regs.rflags |= RFLAGS_ZF;
    return finish(j, SM_KVM_ASSIST_POPCNT);
}

/* May LSL tell the limit of this descriptor, with this selector at this privilege level? */
static bool has_limit(uint64_t descriptor, unsigned rpl, unsigned cpl)
{
    unsigned type = descriptor >> 40 & 15, dpl = descriptor >> 45 & 3;
    bool segment = descriptor >> 44 & 1;
    bool conforming = segment && (type & 12) == 12;
    if (!segment && type != 2 && type != 9 && type != 11) /* LDT, TSS */
        return false;
    return conforming || (cpl <= dpl && rpl <= dpl);
}

/* The kernel keeps the CPU's number in a segment's limit, and reads it when an NMI or a debug
 * exception comes. */
static int do_lsl(struct job *j)
{
    unsigned selector = (uint16_t)j->gpr[j->insn.rm], at = selector & ~7u;
    uint64_t descriptor = 0;
    if (selector & 4)
        return fail_unknown(j, "assist: LSL of a segment in the LDT");
    j->regs.rflags &= ~RFLAGS_ZF;
    if (at == 0 || at + 7 > j->sregs.gdt.limit)
        return finish(j, SM_KVM_ASSIST_LSL);
    unsigned cpl = j->paging.cpl;
    j->paging.cpl = 0; /* the CPU itself reads the table */
    int rc = move(j, j->sregs.gdt.base + at, &descriptor, sizeof(descriptor), SM_X86_READ);
    j->paging.cpl = cpl;
    if (rc)
        return rc;
    if (has_limit(descriptor, selector & 3, cpl)) {
        uint32_t limit = (uint32_t)((descriptor & 0xffff) | (descriptor >> 32 & 0xf0000));
        j->gpr[j->insn.reg] = descriptor >> 55 & 1 ? limit << 12 | 0xfff : limit;
        j->regs.rflags |= RFLAGS_ZF;
    }
    return finish(j, SM_KVM_ASSIST_LSL);
}

struct sixteen {
    uint64_t lo, hi;
};

/* Other vCPUs may work on the same bytes, so it is the host's own locked instruction that does
 * it. */
static int do_cmpxchg16b(struct job *j)
{
    if (j->address & 15)
        return inject(j, VECTOR_GP, 0);
    uint8_t *host = NULL;
    int rc = touch(j, j->address, SM_X86_WRITE, &host);
    if (rc)
        return rc;
    bool equal;
    __asm__ volatile("lock cmpxchg16b %1"
                     : "=@ccz"(equal), "+m"(*(struct sixteen *)(void *)host), "+a"(j->gpr[RAX]),
                     "+d"(j->gpr[RDX])
                     : "b"(j->gpr[RBX]), "c"(j->gpr[RCX])
                     : "memory");
    j->regs.rflags = equal ? j->regs.rflags | RFLAGS_ZF : j->regs.rflags & ~RFLAGS_ZF;
    return finish(j, SM_KVM_ASSIST_CMPXCHG16B);
}

static int get_xcr0(struct job *j, uint64_t *xcr0)
{
    struct kvm_xcrs xcrs;
    if (ioctl(j->vcpu->fd, KVM_GET_XCRS, &xcrs) < 0)
        return system_failure(j, "give XCR0");
    *xcr0 = xcrs.nr_xcrs ? xcrs.xcrs[0].value : 1;
    return DONE;
}

/* The XSAVE area into assist->xsave. */
static int get_xsave(struct job *j)
{
    struct sm_hv_vcpu *vcpu = j->vcpu;
    size_t bytes = vcpu->vm->hv->cpu->xsave_bytes;
    if (!vcpu->assist->layout.components)
        sm_xstate_layout_read(&vcpu->assist->layout, bytes);
    if (ioctl(vcpu->fd, bytes > sizeof(struct kvm_xsave) ? KVM_GET_XSAVE2 : KVM_GET_XSAVE,
            vcpu->assist->xsave) < 0)
        return system_failure(j, "give the XSAVE area");
    return DONE;
}

static int do_xgetbv(struct job *j)
{
    uint64_t v = 0;
    uint32_t which = (uint32_t)j->gpr[RCX];
    if (!(j->sregs.cr4 & SM_X86_CR4_OSXSAVE))
        return inject(j, VECTOR_UD, NO_ERROR);
    if (which > 1)
        return inject(j, VECTOR_GP, 0);
    int rc = get_xcr0(j, &v);
    if (rc)
        return rc;
    if (which == 1) { /* components in use */
        rc = get_xsave(j);
        if (rc)
            return rc;
        v &= sm_load_le64(j->vcpu->assist->xsave + SM_XSTATE_LEGACY_BYTES);
    }
    j->gpr[RAX] = (uint32_t)v;
    j->gpr[RDX] = v >> 32;
    return finish(j, SM_KVM_ASSIST_XCR);
}

static bool xcr0_makes_sense(uint64_t v)
{
    uint64_t avx512 = v >> 5 & 7, mpx = v >> 3 & 3, amx = v >> 17 & 3;
    bool sse = v >> 1 & 1, avx = v >> 2 & 1;
    return (v & 1) && (!avx || sse) && (avx512 == 0 || (avx512 == 7 && avx)) &&
           (mpx == 0 || mpx == 3) && (amx == 0 || amx == 3);
}

/* Such a guest reads the CPUID of the real CPU, which may offer components that KVM does not let
 * guests have: those are left out (the command line tells our kernel not to use them, see
 * arch/x86_64/cmdline.c). */
static int do_xsetbv(struct job *j)
{
    uint64_t v = edx_eax(j) & j->vcpu->vm->hv->cpu->xcr0;
    if (!(j->sregs.cr4 & SM_X86_CR4_OSXSAVE))
        return inject(j, VECTOR_UD, NO_ERROR);
    if (j->paging.cpl || (uint32_t)j->gpr[RCX] || !xcr0_makes_sense(v))
        return inject(j, VECTOR_GP, 0);
    struct kvm_xcrs xcrs = {.nr_xcrs = 1};
    xcrs.xcrs[0].value = v;
    if (ioctl(j->vcpu->fd, KVM_SET_XCRS, &xcrs) < 0)
        return system_failure(j, "take XCR0");
    return finish(j, SM_KVM_ASSIST_XCR);
}

/* Checks that all six instructions share. */
static int check_xstate(struct job *j)
{
    if (!(j->sregs.cr4 & SM_X86_CR4_OSXSAVE))
        return inject(j, VECTOR_UD, NO_ERROR);
    if (j->sregs.cr0 & SM_X86_CR0_TS)
        return inject(j, VECTOR_NM, NO_ERROR);
    bool privileged = j->insn.op == SM_INSN_XSAVES || j->insn.op == SM_INSN_XRSTORS;
    if ((privileged && j->paging.cpl) || (j->address & 63))
        return inject(j, VECTOR_GP, 0);
    return DONE;
}

/* Without REX.W the x87 pointers are 32 bits and selectors, which we give as 0 (so do CPUs that
 * have deprecated them). Works on the 24 bytes at the start of an area. */
static void narrow_x87_pointers(uint8_t *area)
{
    sm_store_le32(area + 12, 0);
    sm_store_le32(area + 20, 0);
}

static int do_xsave(struct job *j)
{
    uint64_t xcr0 = 0;
    int rc = check_xstate(j);
    if (!rc)
        rc = get_xcr0(j, &xcr0);
    if (!rc)
        rc = get_xsave(j);
    if (rc)
        return rc;
    uint8_t *area = j->vcpu->assist->xsave;
    uint64_t rfbm = edx_eax(j) & xcr0;
    struct sm_xstate_plan plan;
    sm_xstate_plan_save(&j->vcpu->assist->layout, j->insn.op, rfbm, area, &plan);
    if (!j->insn.wide)
        narrow_x87_pointers(area);

    uint64_t header = j->address + SM_XSTATE_LEGACY_BYTES;
    for (unsigned i = 0; i < plan.n && !rc; i++)
        rc = move(j, j->address + plan.pieces[i].guest, NULL, plan.pieces[i].bytes, SM_X86_WRITE);
    if (!rc)
        rc = move(j, header, NULL, 16, SM_X86_WRITE);
    for (unsigned i = 0; i < plan.n && !rc; i++)
        rc = move(j, j->address + plan.pieces[i].guest, area + plan.pieces[i].host,
            plan.pieces[i].bytes, SM_X86_WRITE);
    uint8_t words[16];
    if (!rc)
        rc = move(j, header, words, sizeof(words), SM_X86_READ);
    if (rc)
        return rc;
    if (plan.compacted) {
        sm_store_le64(words, plan.bv);
        sm_store_le64(words + 8, plan.xcomp);
    } else {
        sm_store_le64(words, (sm_load_le64(words) & ~rfbm) | plan.bv);
    }
    rc = move(j, header, words, plan.compacted ? 16 : 8, SM_X86_WRITE);
    return rc ? rc : finish(j, SM_KVM_ASSIST_XSAVE);
}

static int do_xrstor(struct job *j)
{
    uint64_t xcr0 = 0;
    uint8_t header[SM_XSTATE_HEADER_BYTES];
    int rc = check_xstate(j);
    if (!rc)
        rc = get_xcr0(j, &xcr0);
    if (!rc)
        rc = get_xsave(j);
    if (!rc)
        rc = move(j, j->address + SM_XSTATE_LEGACY_BYTES, header, sizeof(header), SM_X86_READ);
    if (rc)
        return rc;
    uint8_t *area = j->vcpu->assist->xsave;
    uint64_t rfbm = edx_eax(j) & xcr0;
    uint64_t in_use = sm_load_le64(area + SM_XSTATE_LEGACY_BYTES);
    uint32_t mxcsr = sm_load_le32(area + 24);
    struct sm_xstate_plan plan;
    if (!sm_xstate_plan_restore(&j->vcpu->assist->layout, j->insn.op, rfbm, xcr0, header, &plan))
        return inject(j, VECTOR_GP, 0);
    for (unsigned i = 0; i < plan.n && !rc; i++)
        rc = move(j, j->address + plan.pieces[i].guest, area + plan.pieces[i].host,
            plan.pieces[i].bytes, SM_X86_READ);
    if (rc)
        return rc;
    if (!j->insn.wide && (plan.bv & 1)) /* x87 */
        narrow_x87_pointers(area);
    if (!sm_xstate_finish_restore(rfbm, in_use, mxcsr, &plan, area))
        return inject(j, VECTOR_GP, 0);
    if (ioctl(j->vcpu->fd, KVM_SET_XSAVE, area) < 0)
        return system_failure(j, "take the XSAVE area");
    return finish(j, SM_KVM_ASSIST_XRSTOR);
}

/* ---- SYSCALL ------------------------------------------------------------------------------- */

static int read_syscall_msrs(struct job *j)
{
    struct { /* struct kvm_msrs with two entries */
        uint32_t n, pad;
        struct kvm_msr_entry entries[2];
    } msrs = {.n = 2, .entries = {{.index = MSR_LSTAR}, {.index = MSR_SFMASK}}};
    if (ioctl(j->vcpu->fd, KVM_GET_MSRS, &msrs) != 2)
        return system_failure(j, "give LSTAR and SFMASK");
    j->vcpu->assist->lstar = msrs.entries[0].data;
    j->vcpu->assist->sfmask = msrs.entries[1].data;
    return DONE;
}

/* Address of the guest's #PF handler, 0 if its IDT cannot be read. */
static uint64_t page_fault_handler(struct job *j)
{
    uint8_t gate[16];
    uint64_t va = j->sregs.idt.base + VECTOR_PF * sizeof(gate), gpa;
    uint32_t error;
    if (sm_x86_walk(&j->paging, va, SM_X86_READ, &gpa, &error) != SM_X86_WALK_OK)
        return 0;
    const void *host = sm_kvm_host(j->vcpu->vm, gpa, sizeof(gate), false);
    if (!host)
        return 0;
    memcpy(gate, host, sizeof(gate));
    return sm_load_le16(gate) | (uint64_t)sm_load_le16(gate + 6) << 16 |
           (uint64_t)sm_load_le32(gate + 8) << 32;
}

/* At the #PF handler's CLAC: if the fault was a SYSCALL that went astray, makes the entry that it
 * should have been, and *repaired is true. */
static int repair_syscall(struct job *j, bool *repaired)
{
    uint64_t handler = page_fault_handler(j);
    if (!handler || j->regs.rip < handler || j->regs.rip - handler >= CLAC_WITHIN)
        return DONE;
    struct sm_x86_fault_frame frame;
    struct sm_kvm_assist *assist = j->vcpu->assist;
    int rc = move(j, j->regs.rsp, &frame, sizeof(frame), SM_X86_READ);
    if (rc || (frame.cs & 3) != 3 || !(frame.rip >> 63)) /* a fault of user code proper */
        return rc;
    if (!sm_x86_is_syscall(&frame, assist->lstar, assist->sfmask))
        rc = read_syscall_msrs(j); /* for the first time, or the guest has changed them */
    if (rc || !sm_x86_is_syscall(&frame, assist->lstar, assist->sfmask))
        return rc;
    j->regs.rip = frame.rip;
    j->regs.rflags = sm_x86_syscall_rflags(frame.rflags, assist->sfmask);
    j->regs.rsp = frame.rsp;
    rc = set_regs(j);
    if (!rc)
        count(j, SM_KVM_ASSIST_SYSCALL);
    *repaired = true;
    return rc;
}

static int do_clac_stac(struct job *j)
{
    if (j->paging.cpl)
        return inject(j, VECTOR_UD, NO_ERROR);
    if (j->insn.op == SM_INSN_STAC) {
        j->regs.rflags |= SM_X86_RFLAGS_AC;
        return finish(j, SM_KVM_ASSIST_CLAC_STAC);
    }
    bool repaired = false;
    int rc = repair_syscall(j, &repaired);
    if (rc || repaired)
        return rc;
    j->regs.rflags &= ~SM_X86_RFLAGS_AC;
    return finish(j, SM_KVM_ASSIST_CLAC_STAC);
}

/* ---- entry --------------------------------------------------------------------------------- */

static int load_job(struct job *j)
{
    struct sm_hv_vcpu *vcpu = j->vcpu;
    struct kvm_run *run = vcpu->run;
    if (!vcpu->assist)
        vcpu->assist = calloc(1, sizeof(*vcpu->assist) + vcpu->vm->hv->cpu->xsave_bytes);
    if (!vcpu->assist)
        return sm_error_set(j->err, SM_ENOMEM, "assist: no memory for the XSAVE area");
    if (run->kvm_valid_regs) {
        j->regs = run->s.regs.regs;
        j->sregs = run->s.regs.sregs;
    } else if (ioctl(vcpu->fd, KVM_GET_REGS, &j->regs) < 0 ||
               ioctl(vcpu->fd, KVM_GET_SREGS, &j->sregs) < 0) {
        return system_failure(j, "give the registers");
    }
    load_gpr(j);
    j->paging = (struct sm_x86_paging){
        .cr0 = j->sregs.cr0,
        .cr3 = j->sregs.cr3,
        .cr4 = j->sregs.cr4,
        .efer = j->sregs.efer,
        .rflags = j->regs.rflags,
        .cpl = j->sregs.ss.dpl,
        .physical_bits = j->vcpu->vm->hv->cpu->physical_bits,
        .ram = ram,
        .arg = j,
    };
    return DONE;
}

/* Reads the instruction, as far as its pages are there, and decodes it. */
static int fetch(struct job *j)
{
    while (j->n_bytes < SM_INSN_MAX_BYTES) {
        uint64_t va = j->regs.rip + j->n_bytes, gpa;
        uint32_t error;
        if (sm_x86_walk(&j->paging, va, SM_X86_FETCH, &gpa, &error) != SM_X86_WALK_OK)
            break;
        size_t n = SM_MIN(SM_INSN_MAX_BYTES - j->n_bytes, 4096 - (size_t)(va & 4095));
        const void *host = sm_kvm_host(j->vcpu->vm, gpa, n, false);
        if (!host)
            break;
        memcpy(j->bytes + j->n_bytes, host, n);
        j->n_bytes += n;
    }
    if (!(j->sregs.efer & SM_X86_EFER_LMA) || !j->sregs.cs.l)
        return fail_unknown(j, "KVM cannot emulate an instruction outside of 64-bit mode");
    j->insn = sm_insn_decode(j->bytes, j->n_bytes);
    if (j->insn.memory)
        j->address =
            sm_insn_address(&j->insn, j->gpr, j->regs.rip, j->sregs.fs.base, j->sregs.gs.base);
    return DONE;
}

static int complete(struct job *j)
{
    switch (j->insn.op) {
    case SM_INSN_INT3:
        return do_int3(j);
    case SM_INSN_FWAIT: /* the kernel never unmasks x87 exceptions */
        return finish(j, SM_KVM_ASSIST_FWAIT);
    case SM_INSN_CLAC:
    case SM_INSN_STAC:
        return do_clac_stac(j);
    case SM_INSN_XGETBV:
        return do_xgetbv(j);
    case SM_INSN_XSETBV:
        return do_xsetbv(j);
    case SM_INSN_POPCNT:
        return do_popcnt(j);
    case SM_INSN_LSL:
        return do_lsl(j);
    case SM_INSN_CMPXCHG16B:
        return do_cmpxchg16b(j);
    case SM_INSN_XSAVE:
    case SM_INSN_XSAVEOPT:
    case SM_INSN_XSAVEC:
    case SM_INSN_XSAVES:
        return do_xsave(j);
    case SM_INSN_XRSTOR:
    case SM_INSN_XRSTORS:
        return do_xrstor(j);
    case SM_INSN_UNKNOWN:
    case SM_INSN_TRUNCATED:
        break;
    }
    return fail_unknown(j, "KVM cannot emulate an instruction, nor can we");
}

int sm_kvm_assist(struct sm_hv_vcpu *vcpu, sm_error *err)
{
    struct job job = {.vcpu = vcpu, .err = err};
    int rc = load_job(&job);
    if (!rc)
        rc = fetch(&job);
    if (!rc)
        rc = complete(&job);
    if (vcpu->vm->hv->cpu->sync_regs) /* from now on */
        vcpu->run->kvm_valid_regs = SM_KVM_SYNC;
    return rc < 0 ? rc : 0;
}
