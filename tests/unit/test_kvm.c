/* The KVM side of the seam, with guests of a few instructions. What the assist does must look to
 * the guest as the hardware does, so these tests know nothing of which of the two it was. */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "arch/vcpu_state.h"
#include "arch/x86_64/boot.h"
#include "arch/x86_64/state.h"
#include "guest_code.h"
#include "hypervisor/hypervisor.h"
#include "hypervisor/kvm/kvm.h"
#include "hypervisor/kvm/x86_64/x86.h"
#include "patience.h"
#include "util/bell.h"
#include "util/bytes.h"

#define RAM     (4u << 20)
#define CODE    0x100000u
#define IDT     0x180000u
#define RESULTS 0x200000u /* where guests leave what they found */

struct vm {
    struct sm_hv *hv;
    struct sm_hv_vm *vm;
    struct sm_hv_vcpu *vcpu;
    uint8_t *ram;
};

static sm_error err;

static void ok(int rc)
{
    if (rc)
        fail_msg("%d: %s", rc, err.message);
}

static void make_vm(struct vm *v)
{
    v->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(v->ram != MAP_FAILED);
    ok(sm_hv_open(&v->hv, &err));
    ok(sm_hv_vm_create(v->hv, &v->vm, &err));
    ok(sm_hv_vm_map(v->vm, 0, 0, v->ram, RAM, false, &err));
    ok(sm_hv_vm_make_cpus(v->vm, 1, &err));
    v->vcpu = sm_hv_vm_vcpu(v->vm, 0);
}

static void drop_vm(struct vm *v)
{
    sm_hv_vm_close(v->vm);
    sm_hv_close(v->hv);
    munmap(v->ram, RAM);
}

static void load_guest(struct vm *v, const uint8_t *code, size_t n)
{
    auto_vcpu_state first = {0};
    ok(sm_x86_boot_tables(v->ram, RAM, &err));
    ok(sm_x86_boot_state(CODE, RESULTS, &first, &err));
    memcpy(v->ram + CODE, code, n);
    ok(sm_hv_vcpu_set_state(v->vcpu, &first, &err));
    ok(sm_hv_vcpu_bind(v->vcpu, &err));
}

/* Runs until the guest writes to port 0x80; what it wrote. */
static unsigned run_to_mark(struct vm *v)
{
    struct sm_hv_exit exit;
    for (int i = 0; i < 1000; i++) {
        ok(sm_hv_vcpu_run(v->vcpu, &exit, &err));
        if (exit.kind == SM_HV_EXIT_PIO && exit.write && exit.address == 0x80)
            return *exit.data;
        assert_int_equal(exit.kind, SM_HV_EXIT_INTR);
    }
    fail_msg("no mark");
    return 0;
}

static uint64_t result(const struct vm *v, unsigned i)
{
    return sm_load_le64(v->ram + RESULTS + i * 8);
}

/* ---- exits ---------------------------------------------------------------------------------- */

GUEST(guest_exits, "mov $0xd0000000, %edi\n"
                   "movl $0x12345678, 4(%rdi)\n" /* MMIO write, 4 bytes */
                   "mov 8(%rdi), %rax\n"         /* MMIO read, 8 bytes */
                   "mov %rax, (%rsi)\n"
                   "mov $0x3f9, %edx\n"
                   "in %dx, %ax\n"
                   "mov %rax, 8(%rsi)\n"
                   "mov $7, %al\n"
                   "out %al, $0x80\n");

static void mmio_and_ports(void **state)
{
    (void)state;
    struct vm v;
    struct sm_hv_exit exit;
    make_vm(&v);
    load_guest(&v, guest_exits, GUEST_BYTES(guest_exits));
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_MMIO);
    assert_int_equal(exit.address, 0xd0000004);
    assert_int_equal(exit.size, 4);
    assert_true(exit.write);
    assert_int_equal(sm_load_le32(exit.data), 0x12345678);
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.address, 0xd0000008);
    assert_false(exit.write);
    sm_store_le64(exit.data, 0x1122334455667788);
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_PIO);
    assert_int_equal(exit.address, 0x3f9);
    assert_int_equal(exit.size, 2);
    assert_int_equal(exit.count, 1);
    assert_false(exit.write);
    sm_store_le16(exit.data, 0xbeef);
    assert_int_equal(run_to_mark(&v), 7);
    assert_int_equal(result(&v, 0), 0x1122334455667788);
    assert_int_equal(result(&v, 1), 0x112233445566beef);
    struct sm_hv_counters c = {0};
    sm_hv_vcpu_add_counters(v.vcpu, &c);
    assert_int_equal(c.by_kind[SM_HV_EXIT_MMIO], 2);
    assert_int_equal(c.by_kind[SM_HV_EXIT_PIO], 2);
    drop_vm(&v);
}

GUEST(guest_notify, "mov $0xd0000050, %edi\n"
                    "movl $3, (%rdi)\n"
                    "movl $4, (%rdi)\n"
                    "mov $1, %al\n"
                    "out %al, $0x80\n");

static void a_bell_is_rung_for_its_value_only(void **state)
{
    (void)state;
    struct vm v;
    struct sm_hv_exit exit;
    struct sm_bell bell;
    uint64_t n = 0;
    ok(sm_bell_make(&bell, &err));
    make_vm(&v);
    ok(sm_hv_vm_ioeventfd(v.vm, sm_bell_fd(&bell), 0xd0000050, 3, &err));
    load_guest(&v, guest_notify, GUEST_BYTES(guest_notify));
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_MMIO); /* the second store */
    assert_int_equal(sm_load_le32(exit.data), 4);
    assert_int_equal(read(sm_bell_fd(&bell), &n, sizeof(n)), sizeof(n));
    assert_int_equal(n, 1);
    drop_vm(&v);
    sm_bell_close(&bell);
}

GUEST(guest_rom, "mov $0x40000000, %edi\n"
                 "mov (%rdi), %eax\n"
                 "mov %rax, (%rsi)\n"
                 "movl $1, (%rdi)\n");

static void read_only_slots_cannot_be_written(void **state)
{
    (void)state;
    struct vm v;
    struct sm_hv_exit exit;
    uint32_t *rom = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    *rom = 0xcafe;
    assert_int_equal(mprotect(rom, 4096, PROT_READ), 0);
    make_vm(&v);
    ok(sm_hv_vm_map(v.vm, 5, 0x40000000, rom, 4096, true, &err));
    load_guest(&v, guest_rom, GUEST_BYTES(guest_rom));
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_MMIO);
    assert_true(exit.write);
    assert_int_equal(result(&v, 0), 0xcafe);
    assert_int_equal(*rom, 0xcafe);
    ok(sm_hv_vm_unmap(v.vm, 5, &err));
    assert_int_equal(sm_hv_vm_unmap(v.vm, 5, &err), -SM_EINVAL);
    assert_int_equal(sm_hv_vm_map(v.vm, 6, 4095, rom, 4096, true, &err), -SM_EINVAL);
    drop_vm(&v);
    munmap(rom, 4096);
}

/* ---- what the assist may have to do -------------------------------------------------------- */

GUEST(guest_integer, "mov $0xf0f0f0f0ff, %rax\n"
                     "mov %rax, 64(%rsi)\n"
                     "xor %ebx, %ebx\n"
                     "popcnt %rax, %rbx\n"
                     "mov %rbx, (%rsi)\n"
                     "mov $-1, %rbx\n"
                     "popcntw 64(%rsi), %bx\n"
                     "mov %rbx, 8(%rsi)\n"
                     "mov $-1, %rbx\n"
                     "popcntl 64(%rsi), %ebx\n"
                     "mov %rbx, 16(%rsi)\n"
                     "xor %ecx, %ecx\n"
                     "stc\n"
                     "popcnt %rcx, %rcx\n"
                     "pushf\n"
                     "pop 24(%rsi)\n"
                     /* cmpxchg16b that matches */
                     "movq $1, 80(%rsi)\n"
                     "movq $2, 88(%rsi)\n"
                     "mov $1, %eax\n"
                     "mov $2, %edx\n"
                     "mov $3, %ebx\n"
                     "mov $4, %ecx\n"
                     "lock cmpxchg16b 80(%rsi)\n"
                     "pushf\n"
                     "pop 32(%rsi)\n"
                     /* and one that does not */
                     "lock cmpxchg16b 80(%rsi)\n"
                     "pushf\n"
                     "pop 40(%rsi)\n"
                     "mov %rax, 48(%rsi)\n"
                     "mov %rdx, 56(%rsi)\n"
                     /* the limits of the code segment, and of none */
                     "mov %cs, %eax\n"
                     "lsl %rax, %rbx\n"
                     "pushf\n"
                     "pop 96(%rsi)\n"
                     "mov %rbx, 104(%rsi)\n"
                     "mov $3, %ecx\n"
                     "lsl %ecx, %ebx\n"
                     "pushf\n"
                     "pop 112(%rsi)\n"
                     "mov %rbx, 120(%rsi)\n"
                     "mov $1, %al\n"
                     "out %al, $0x80\n");

#define ZF 0x40u
#define CF 1u

static void popcnt_cmpxchg16b_and_lsl(void **state)
{
    (void)state;
    struct vm v;
    make_vm(&v);
    load_guest(&v, guest_integer, GUEST_BYTES(guest_integer));
    run_to_mark(&v);
    assert_int_equal(result(&v, 0), 24);
    assert_int_equal(result(&v, 1), 0xffffffffffff000c);
    assert_int_equal(result(&v, 2), 20);
    assert_int_equal(result(&v, 3) & (ZF | CF), ZF);
    assert_int_equal(result(&v, 4) & ZF, ZF);
    assert_int_equal(result(&v, 5) & ZF, 0);
    assert_int_equal(result(&v, 6), 3);
    assert_int_equal(result(&v, 7), 4);
    assert_int_equal(result(&v, 10), 3);
    assert_int_equal(result(&v, 11), 4);
    assert_int_equal(result(&v, 12) & ZF, ZF);
    assert_int_equal(result(&v, 13), 0xffffffff);
    assert_int_equal(result(&v, 14) & ZF, 0);
    assert_int_equal(result(&v, 15), 0xffffffff);
    drop_vm(&v);
}

GUEST(guest_xstate, "mov %cr4, %rax\n"
                    "or $0x40600, %eax\n" /* OSXSAVE, OSFXSR, OSXMMEXCPT */
                    "mov %rax, %cr4\n"
                    "xor %ecx, %ecx\n"
                    "xor %edx, %edx\n"
                    "mov $3, %eax\n"
                    "xsetbv\n"
                    "xor %eax, %eax\n"
                    "xgetbv\n"
                    "mov %rax, (%rsi)\n"
                    /* A value into XMM3 by XRSTOR, and out again by XSAVE */
                    "lea 0x1000(%rsi), %rdi\n"
                    "movl $0x1f80, 24(%rdi)\n"
                    "movl $0xffff, 28(%rdi)\n"
                    "mov $0x1234567890abcdef, %rax\n"
                    "mov %rax, 208(%rdi)\n"
                    "movq $2, 512(%rdi)\n"
                    "mov $3, %eax\n"
                    "xor %edx, %edx\n"
                    "xrstor64 (%rdi)\n"
                    "lea 0x2000(%rsi), %rdi\n"
                    "xsave64 (%rdi)\n"
                    "mov 208(%rdi), %rax\n"
                    "mov %rax, 8(%rsi)\n"
                    "mov 512(%rdi), %rax\n"
                    "mov %rax, 16(%rsi)\n"
                    /* To the initial state: XSTATE_BV is 0 */
                    "lea 0x1000(%rsi), %rdi\n"
                    "movq $0, 512(%rdi)\n"
                    "mov $3, %eax\n"
                    "xrstor64 (%rdi)\n"
                    "lea 0x2000(%rsi), %rdi\n"
                    "xsave64 (%rdi)\n"
                    "mov 208(%rdi), %rax\n"
                    "mov %rax, 24(%rsi)\n"
                    "fwait\n"
                    "mov $1, %al\n"
                    "out %al, $0x80\n");

static void xsave_and_xrstor(void **state)
{
    (void)state;
    struct vm v;
    make_vm(&v);
    load_guest(&v, guest_xstate, GUEST_BYTES(guest_xstate));
    run_to_mark(&v);
    assert_int_equal(result(&v, 0) & 3, 3);
    assert_int_equal(result(&v, 1), 0x1234567890abcdef);
    assert_int_equal(result(&v, 2) & 2, 2);
    assert_int_equal(result(&v, 3), 0);
    drop_vm(&v);
}

/* An IDT whose gates lead to a stub for each vector, after the guest's code. */
static void put_gate(struct vm *v, unsigned vector, uint64_t handler)
{
    uint8_t *g = v->ram + IDT + vector * 16;
    memset(g, 0, 16);
    sm_store_le16(g, (uint16_t)handler);
    sm_store_le16(g + 2, 0x10);
    g[5] = 0x8e;
    sm_store_le16(g + 6, (uint16_t)(handler >> 16));
}

GUEST(guest_faults, "jmp 2f\n"
                    "1: .word 0xfff\n"
                    ".quad 0x180000\n" /* IDT */
                    "2: lidt 1b(%rip)\n"
                    "mov 32(%rsi), %rdi\n" /* address and kind of the access */
                    "mov $3, %eax\n"
                    "xor %edx, %edx\n"
                    "cmpq $1, 40(%rsi)\n"
                    "je 3f\n"
                    "cmpq $2, 40(%rsi)\n"
                    "je 4f\n"
                    "int3\n"
                    "hlt\n"
                    "3: lock cmpxchg16b (%rdi)\n"
                    "hlt\n"
                    "4: popcnt (%rdi), %rax\n"
                    "hlt\n");

/* Handlers: vector and stack go to the results. */
GUEST(handler_bp, "mov (%rsp), %rax\n"
                  "mov %rax, (%rsi)\n"
                  "mov $3, %al\n"
                  "out %al, $0x80\n");
GUEST(handler_gp, "mov (%rsp), %rax\n"
                  "mov %rax, (%rsi)\n"
                  "mov $13, %al\n"
                  "out %al, $0x80\n");
GUEST(handler_pf, "mov (%rsp), %rax\n"
                  "mov %rax, (%rsi)\n"
                  "mov %cr2, %rax\n"
                  "mov %rax, 8(%rsi)\n"
                  "mov 8(%rsp), %rax\n"
                  "mov %rax, 16(%rsi)\n"
                  "mov $14, %al\n"
                  "out %al, $0x80\n");

static unsigned fault(struct vm *v, uint64_t kind, uint64_t address)
{
    make_vm(v);
    load_guest(v, guest_faults, GUEST_BYTES(guest_faults));
    memcpy(v->ram + 0x110000, handler_bp, GUEST_BYTES(handler_bp));
    memcpy(v->ram + 0x111000, handler_gp, GUEST_BYTES(handler_gp));
    memcpy(v->ram + 0x112000, handler_pf, GUEST_BYTES(handler_pf));
    put_gate(v, 3, 0x110000);
    put_gate(v, 13, 0x111000);
    put_gate(v, 14, 0x112000);
    sm_store_le64(v->ram + RESULTS + 32, address);
    sm_store_le64(v->ram + RESULTS + 40, kind);
    return run_to_mark(v);
}

static void faults_reach_the_guest(void **state)
{
    (void)state;
    struct vm v;
    assert_int_equal(fault(&v, 0, 0), 3);
    uint64_t at = result(&v, 0); /* past the int3 */
    assert_int_equal(v.ram[at - 1], 0xcc);
    drop_vm(&v);

    assert_int_equal(fault(&v, 1, 0x200008), 13); /* not 16-byte aligned */
    assert_int_equal(result(&v, 0), 0);
    drop_vm(&v);

    assert_int_equal(fault(&v, 1, 0x200000000), 14); /* 8 GiB: not mapped */
    assert_int_equal(result(&v, 0), 2);              /* a write */
    assert_int_equal(result(&v, 1), 0x200000000);
    drop_vm(&v);

    assert_int_equal(fault(&v, 2, 0x200000ff9), 14); /* the operand ends in the next page */
    assert_int_equal(result(&v, 0), 0);
    assert_int_equal(result(&v, 1), 0x200000ff9);
    at = result(&v, 2); /* a fault: at the instruction */
    assert_int_equal(v.ram[at], 0xf3);
    drop_vm(&v);
}

GUEST(guest_wild, "mov $0xe0000000, %eax\njmp *%rax\n");

static void what_nobody_can_do_is_named(void **state)
{
    (void)state;
    struct vm v;
    struct sm_hv_exit exit;
    make_vm(&v);
    load_guest(&v, guest_wild, GUEST_BYTES(guest_wild));
    int rc = sm_hv_vcpu_run(v.vcpu, &exit, &err);
    assert_int_equal(rc, -SM_EHYPERVISOR);
    if (!strstr(err.message, "0xe0000000"))
        fail_msg("%s", err.message);
    drop_vm(&v);
}

/* ---- kicks --------------------------------------------------------------------------------- */

GUEST(guest_spin, "1: incq (%rsi)\njmp 1b\n");

static void a_kick_before_the_run_counts(void **state)
{
    (void)state;
    struct vm v;
    struct sm_hv_exit exit;
    make_vm(&v);
    sm_hv_vcpu_kick(v.vcpu); /* even before the thread is known */
    load_guest(&v, guest_spin, GUEST_BYTES(guest_spin));
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_INTR);
    assert_int_equal(result(&v, 0), 0);
    sm_hv_vcpu_kick(v.vcpu);
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_INTR);
    drop_vm(&v);
}

struct kicker {
    struct vm *v;
    atomic_uint returns;
    unsigned wanted;
};

static void *kick_often(void *arg)
{
    struct kicker *k = arg;
    for (unsigned i = 1; i <= k->wanted; i++) {
        sm_hv_vcpu_kick(k->v->vcpu);
        for (int ms = 0; atomic_load(&k->returns) < i && ms < PATIENCE_MS; ms++)
            usleep(1000);
    }
    return NULL;
}

static void every_kick_ends_a_run(void **state)
{
    (void)state;
    struct vm v;
    struct sm_hv_exit exit;
    make_vm(&v);
    load_guest(&v, guest_spin, GUEST_BYTES(guest_spin));
    struct kicker k = {.v = &v, .wanted = 50};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, kick_often, &k), 0);
    while (atomic_load(&k.returns) < k.wanted) {
        ok(sm_hv_vcpu_run(v.vcpu, &exit, &err)); /* hangs here if a kick gets lost */
        assert_int_equal(exit.kind, SM_HV_EXIT_INTR);
        atomic_fetch_add(&k.returns, 1);
    }
    pthread_join(thread, NULL);
    assert_true(result(&v, 0) > 0);
    sm_hv_vcpu_unbind(v.vcpu);
    drop_vm(&v);
}

GUEST(guest_read,
    "mov $0xd0000000, %edi\nmov (%rdi), %eax\nmov %rax, (%rsi)\nmov $1, %al\nout %al, $0x80\n");

static void complete_gives_the_guest_its_value(void **state)
{
    (void)state;
    struct vm v;
    struct sm_hv_exit exit;
    uint64_t rip;
    make_vm(&v);
    load_guest(&v, guest_read, GUEST_BYTES(guest_read));
    ok(sm_hv_vcpu_run(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_MMIO);
    sm_store_le32(exit.data, 0x55aa);
    ok(sm_hv_vcpu_complete(v.vcpu, &exit, &err));
    assert_int_equal(exit.kind, SM_HV_EXIT_INTR);
    struct sm_vcpu_state s;
    ok(sm_hv_vcpu_get_state(v.vcpu, &s, &err));
    uint64_t rax;
    assert_true(sm_reg_list_find(&s.gp, SM_X86_GP_RAX, &rax));
    assert_true(sm_reg_list_find(&s.gp, SM_X86_GP_RIP, &rip));
    assert_int_equal(rax, 0x55aa);
    assert_int_equal(rip, CODE + 7);
    sm_vcpu_state_clear(&s);
    run_to_mark(&v);
    assert_int_equal(result(&v, 0), 0x55aa);
    drop_vm(&v);
}

/* ---- state --------------------------------------------------------------------------------- */

static void same_list(const char *name, const struct sm_reg_list *a, const struct sm_reg_list *b)
{
    assert_int_equal(a->n, b->n);
    for (uint32_t i = 0; i < a->n; i++) {
        bool moves = !strcmp(name, "sys") && a->v[i].id == SM_X86_MSR_TSC;
        moves |= !strcmp(name, "icc") && a->v[i].id == 0x390; /* timer's current count */
        if (a->v[i].id != b->v[i].id || (a->v[i].value != b->v[i].value && !moves))
            fail_msg("%s %#x: %#llx became %#x: %#llx", name, a->v[i].id,
                (unsigned long long)a->v[i].value, b->v[i].id, (unsigned long long)b->v[i].value);
    }
}

static void state_goes_round(void **state)
{
    (void)state;
    struct vm v, w;
    struct sm_vcpu_state a, b;
    make_vm(&v);
    load_guest(&v, guest_xstate, GUEST_BYTES(guest_xstate)); /* has been through XMM, XCR0, CR4 */
    run_to_mark(&v);
    struct sm_hv_exit exit;
    ok(sm_hv_vcpu_complete(v.vcpu, &exit, &err));
    ok(sm_hv_vcpu_get_state(v.vcpu, &a, &err));
    assert_true(a.gp.n > 50);
    assert_true(a.simd.n >= 36);
    assert_true(a.sys.n > 10);
    assert_int_equal(a.icc.n, 64);

    make_vm(&w);
    ok(sm_hv_vcpu_set_state(w.vcpu, &a, &err));
    ok(sm_hv_vcpu_get_state(w.vcpu, &b, &err));
    same_list("gp", &a.gp, &b.gp);
    same_list("sys", &a.sys, &b.sys);
    same_list("icc", &a.icc, &b.icc);
    same_list("redist", &a.redist, &b.redist);
    assert_int_equal(a.simd.n, b.simd.n);
    for (uint32_t i = 0; i < a.simd.n; i++) {
        assert_int_equal(a.simd.v[i].id, b.simd.v[i].id);
        assert_int_equal(a.simd.v[i].lo, b.simd.v[i].lo);
        assert_int_equal(a.simd.v[i].hi, b.simd.v[i].hi);
    }

    void *blob;
    size_t bytes;
    uint64_t clock;
    ok(sm_hv_vm_save(v.vm, &blob, &bytes, &clock, &err));
    ok(sm_hv_vm_restore(w.vm, blob, bytes, &err));
    ok(sm_hv_vm_set_clock(w.vm, clock + 1000000000, &err));
    assert_int_equal(sm_hv_vm_restore(w.vm, blob, bytes - 1, &err), -SM_ECORRUPT);
    ((uint8_t *)blob)[0] ^= 1;
    assert_int_equal(sm_hv_vm_restore(w.vm, blob, bytes, &err), -SM_ECORRUPT);
    free(blob);
    uint64_t later;
    ok(sm_hv_vm_save(w.vm, &blob, &bytes, &later, &err));
    assert_true(later >= clock + 1000000000 && later < clock + 3600000000000);
    free(blob);
    sm_vcpu_state_clear(&a);
    sm_vcpu_state_clear(&b);
    drop_vm(&v);
    drop_vm(&w);
}

static void incomplete_state_is_refused(void **state)
{
    (void)state;
    struct vm v;
    struct sm_vcpu_state s;
    make_vm(&v);
    ok(sm_hv_vcpu_get_state(v.vcpu, &s, &err));
    struct sm_reg_list *lists[] = {&s.gp, &s.redist};
    for (size_t i = 0; i < 2; i++) {
        uint32_t n = lists[i]->n;
        for (uint32_t drop = 0; drop < n; drop++) {
            uint32_t id = lists[i]->v[drop].id;
            lists[i]->v[drop].id = 0xdead;
            assert_int_equal(sm_hv_vcpu_set_state(v.vcpu, &s, &err), -SM_ECORRUPT);
            lists[i]->v[drop].id = id;
        }
    }
    for (uint32_t i = 0; i < s.redist.n; i++) {
        struct sm_reg *r = &s.redist.v[i];
        if (r->id == SM_X86_RD_EXCEPTION_INJECTED || r->id == SM_X86_RD_EXCEPTION_NR)
            r->value = r->id == SM_X86_RD_EXCEPTION_NR ? 32 : 1;
    }
    assert_int_equal(sm_hv_vcpu_set_state(v.vcpu, &s, &err), -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "exception 32"));
    s.icc.v[3].id = 0x1000;
    assert_int_equal(sm_hv_vcpu_set_state(v.vcpu, &s, &err), -SM_ECORRUPT);
    s.icc.v[3].id = 0x30;
    s.simd.v[0] = (struct sm_reg128){.id = 0xfff, .lo = 1};
    assert_int_equal(sm_hv_vcpu_set_state(v.vcpu, &s, &err), -SM_EUNSUPPORTED);
    s.simd.v[0] = (struct sm_reg128){0};
    s.sys.v[0].id = 0xdeadbeef;
    assert_int_equal(sm_hv_vcpu_set_state(v.vcpu, &s, &err), -SM_EUNSUPPORTED);
    assert_non_null(strstr(err.message, "0xdeadbeef"));
    sm_vcpu_state_clear(&s);
    drop_vm(&v);
}

/* A first state: what it says of vCPU 0 is all that differs from a vCPU after its reset. */
static void a_first_state_is_a_reset_and_an_entry(void **state)
{
    (void)state;
    struct vm v;
    auto_vcpu_state reset = {0};
    auto_vcpu_state first = {0};
    auto_vcpu_state after = {0};
    static const struct sm_vcpu_state nothing;
    uint64_t a, b;
    make_vm(&v);
    ok(sm_hv_vcpu_get_state(v.vcpu, &reset, &err));
    assert_false(sm_vcpu_state_is_first(&reset));
    ok(sm_hv_vcpu_set_state(v.vcpu, &nothing, &err));
    ok(sm_x86_boot_state(CODE, RESULTS, &first, &err));
    assert_true(sm_vcpu_state_is_first(&first));
    ok(sm_hv_vcpu_set_state(v.vcpu, &first, &err));
    ok(sm_hv_vcpu_get_state(v.vcpu, &after, &err));
    assert_int_equal(first.gp.n, after.gp.n);
    for (uint32_t i = 0; i < after.gp.n; i++) {
        assert_true(sm_reg_list_find(&first.gp, after.gp.v[i].id, &a));
        if (after.gp.v[i].id != SM_X86_GP_CR0) /* ET, and what KVM adds */
            assert_int_equal(a, after.gp.v[i].value);
    }
    static const uint32_t kept[] = {SM_X86_GP_TR, SM_X86_GP_TR + SM_X86_SEG_LIMIT,
        SM_X86_GP_LDT + SM_X86_SEG_LIMIT, SM_X86_GP_IDT_LIMIT, SM_X86_GP_APIC_BASE};
    for (size_t i = 0; i < sizeof(kept) / sizeof(kept[0]); i++) {
        assert_true(sm_reg_list_find(&reset.gp, kept[i], &a));
        assert_true(sm_reg_list_find(&after.gp, kept[i], &b));
        assert_int_equal(a, b);
    }
    assert_true(sm_reg_list_find(&after.redist, SM_X86_RD_XCR0, &a));
    assert_int_equal(a, v.hv->cpu->xcr0 ? v.hv->cpu->xcr0 : 1);
    struct sm_reg *gone = &first.gp.v[first.gp.n / 2];
    gone->id = 0xdead;
    assert_int_equal(sm_hv_vcpu_set_state(v.vcpu, &first, &err), -SM_ECORRUPT);
    drop_vm(&v);
}

/* KVM would take them: a set from the host's side asks nobody what the guest is offered. */
static void what_is_not_offered_is_not_restored(void **state)
{
    (void)state;
    static const uint32_t hidden[] = {0x4b564d02, 0x4b564d06, 0x40000000, 0x480, 0xc0010117, 0x186};
    struct vm v;
    struct sm_vcpu_state s;
    make_vm(&v);
    ok(sm_hv_vcpu_get_state(v.vcpu, &s, &err));
    for (size_t i = 0; i < sizeof(hidden) / sizeof(hidden[0]); i++) {
        for (uint32_t j = 0; j < s.sys.n; j++)
            assert_int_not_equal(s.sys.v[j].id, hidden[i]);
        struct sm_reg kept = s.sys.v[s.sys.n - 1];
        s.sys.v[s.sys.n - 1] = (struct sm_reg){.id = hidden[i]};
        assert_int_equal(sm_hv_vcpu_set_state(v.vcpu, &s, &err), -SM_EUNSUPPORTED);
        assert_non_null(strstr(err.message, "no guest of ours"));
        s.sys.v[s.sys.n - 1] = kept;
    }
    struct sm_reg first = s.sys.v[0]; /* another order is fine */
    s.sys.v[0] = s.sys.v[s.sys.n - 1];
    s.sys.v[s.sys.n - 1] = first;
    ok(sm_hv_vcpu_set_state(v.vcpu, &s, &err));
    sm_vcpu_state_clear(&s);
    drop_vm(&v);
}

static uint32_t bits_of(const struct kvm_cpuid2 *list, uint32_t function, char reg)
{
    for (uint32_t i = 0; i < list->nent; i++) {
        const struct kvm_cpuid_entry2 *e = &list->entries[i];
        if (e->function == function)
            return reg == 'a' ? e->eax | e->ebx | e->edx : reg == 'c' ? e->ecx : e->edx;
    }
    return 0;
}

static void nested_virtualisation_and_counters_are_not_offered(void **state)
{
    (void)state;
    struct vm v;
    make_vm(&v);
    const struct kvm_cpuid2 *list = v.hv->cpu->cpuid;
    assert_true(bits_of(list, 1, 'c') & 1u << 31); /* it is the list */
    assert_int_equal(bits_of(list, 1, 'c') & (1u << 5 | 1u << 15), 0);
    assert_int_equal(bits_of(list, 7, 'd') & 1u << 19, 0);
    assert_int_equal(bits_of(list, 0x80000001, 'c') & (1u << 2 | 1u << 23), 0);
    static const uint32_t empty[] = {0xa, 0x1c, 0x8000000a, 0x80000022};
    for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++)
        assert_int_equal(bits_of(list, empty[i], 'a'), 0);
    drop_vm(&v);
}

/* Where the self-test says that no assist is needed, none is counted. */
static void the_self_test_tells_whether_there_is_an_assist(void **state)
{
    (void)state;
    struct vm v;
    bool needed;
    make_vm(&v);
    ok(sm_hv_needs_assist(v.hv, &needed, &err));
    load_guest(&v, guest_integer, GUEST_BYTES(guest_integer));
    run_to_mark(&v);
    struct sm_hv_counters c = {0};
    sm_hv_vcpu_add_counters(v.vcpu, &c);
    assert_int_equal(c.assists > 0, needed);
    if (needed) {
        const uint64_t *done = v.vcpu->assist->done;
        assert_int_equal(done[SM_KVM_ASSIST_POPCNT], 4);
        assert_int_equal(done[SM_KVM_ASSIST_CMPXCHG16B], 2);
        assert_int_equal(done[SM_KVM_ASSIST_LSL], 2);
    }
    drop_vm(&v);
}

/* Descriptors do not pile up in this process, whoever does the closing. */
static void closing_leaves_nothing_behind(void **state)
{
    (void)state;
    struct vm v;
    int before = dup(0), after;
    close(before);
    for (int i = 0; i < 20; i++) {
        make_vm(&v);
        drop_vm(&v);
    }
    after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

/* Waits for the end of all writers of a pipe. The kernel's collector drops what is called for while
 * it is busy, until the next close of a unix socket: here is one. */
static bool has_no_writer(int fd)
{
    for (int waited = 0; waited < PATIENCE_MS; waited += 100) {
        struct pollfd on = {.fd = fd};
        int pair[2];
        if (poll(&on, 1, 100) == 1)
            return on.revents == POLLHUP;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, pair), 0);
        close(pair[0]);
        close(pair[1]);
    }
    return false;
}

/* Of a descriptor that was disposed of nothing stays, neither here nor in the socket it went to. */
static void what_is_disposed_of_is_closed(void **state)
{
    (void)state;
    int before = dup(0), after;
    close(before);
    for (int i = 0; i < 20; i++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        sm_kvm_dispose(ends[1]);
        assert_int_equal(fcntl(ends[1], F_GETFD), -1);
        assert_true(has_no_writer(ends[0]));
        close(ends[0]);
    }
    after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

static void the_digest_is_stable(void **state)
{
    (void)state;
    uint8_t a[SM_CPU_DIGEST_BYTES], b[SM_CPU_DIGEST_BYTES], zero[SM_CPU_DIGEST_BYTES] = {0};
    struct sm_hv *hv;
    for (int i = 0; i < 4; i++) {
        ok(sm_hv_open(&hv, &err));
        sm_hv_cpu_digest(hv, i ? b : a);
        bool needed;
        ok(sm_hv_needs_assist(hv, &needed, &err));
        sm_hv_close(hv);
        if (i)
            assert_memory_equal(a, b, sizeof(a));
    }
    assert_memory_not_equal(a, zero, sizeof(a));
}

int main(void)
{
    if (access("/dev/kvm", R_OK | W_OK))
        return 77; /* skipped */
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(mmio_and_ports),
        cmocka_unit_test(a_bell_is_rung_for_its_value_only),
        cmocka_unit_test(read_only_slots_cannot_be_written),
        cmocka_unit_test(popcnt_cmpxchg16b_and_lsl),
        cmocka_unit_test(xsave_and_xrstor),
        cmocka_unit_test(faults_reach_the_guest),
        cmocka_unit_test(what_nobody_can_do_is_named),
        cmocka_unit_test(a_kick_before_the_run_counts),
        cmocka_unit_test(every_kick_ends_a_run),
        cmocka_unit_test(complete_gives_the_guest_its_value),
        cmocka_unit_test(state_goes_round),
        cmocka_unit_test(incomplete_state_is_refused),
        cmocka_unit_test(a_first_state_is_a_reset_and_an_entry),
        cmocka_unit_test(what_is_not_offered_is_not_restored),
        cmocka_unit_test(nested_virtualisation_and_counters_are_not_offered),
        cmocka_unit_test(the_self_test_tells_whether_there_is_an_assist),
        cmocka_unit_test(closing_leaves_nothing_behind),
        cmocka_unit_test(what_is_disposed_of_is_closed),
        cmocka_unit_test(the_digest_is_stable),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
