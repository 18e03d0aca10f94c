/* The floor under every restore. See kvm_floor.h. */
#include "kvm_floor.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"
#include "util/cleanup.h"

#define ENTRY     0x1000
#define EXIT_PORT 0x3f8
#define MAX_CPUID 256

const char *const kvm_floor_names[FLOOR_STAGES] = {
    [FLOOR_OPEN] = "open /dev/kvm",
    [FLOOR_VM] = "create VM",
    [FLOOR_MAP_RAM] = "map RAM copy-on-write",
    [FLOOR_MEMSLOT] = "memory slot",
    [FLOOR_IRQCHIP] = "interrupt chips",
    [FLOOR_PIT] = "timer chip",
    [FLOOR_VCPU] = "create vCPU",
    [FLOOR_MAP_RUN] = "map vCPU's run area",
    [FLOOR_CPUID] = "CPUID",
    [FLOOR_REGS] = "registers",
    [FLOOR_RUN] = "run to first exit",
};

int kvm_floor_make_ram(const char *dir, uint64_t bytes)
{
    static const unsigned char code[] = {0xba, EXIT_PORT & 255, EXIT_PORT >> 8, /* mov dx, port */
        0xee,                                                                   /* out dx, al */
        0xf4};                                                                  /* hlt */
    auto_fd fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 || ftruncate(fd, (off_t)bytes) || pwrite(fd, code, sizeof(code), ENTRY) < 0)
        return -1;
    return sm_steal_fd(&fd);
}

struct floor_vm {
    int kvm, vm, vcpu;
    void *ram;
    uint64_t bytes;
    struct kvm_run *run;
    size_t run_bytes;
};

static void tear_down(struct floor_vm *f)
{
    if (f->run)
        munmap(f->run, f->run_bytes);
    sm_close(f->vcpu);
    sm_close(f->vm);
    if (f->ram)
        munmap(f->ram, f->bytes);
    sm_close(f->kvm);
}

/* Asked once: a VMM knows it, too, before a restore begins. */
static struct kvm_cpuid2 *supported_cpuid(int kvm)
{
    static struct kvm_cpuid2 *cpuid;
    if (!cpuid) {
        cpuid = calloc(1, sizeof(*cpuid) + MAX_CPUID * sizeof(cpuid->entries[0]));
        if (!cpuid)
            return NULL;
        cpuid->nent = MAX_CPUID;
        if (ioctl(kvm, KVM_GET_SUPPORTED_CPUID, cpuid) < 0) {
            free(cpuid);
            cpuid = NULL;
        }
    }
    return cpuid;
}

static int set_regs(int vcpu)
{
    struct kvm_sregs sregs;
    struct kvm_regs regs = {.rip = ENTRY, .rflags = 2};
    if (ioctl(vcpu, KVM_GET_SREGS, &sregs) < 0)
        return -1;
    sregs.cs.base = sregs.cs.selector = 0;
    return ioctl(vcpu, KVM_SET_SREGS, &sregs) < 0 ? -1 : ioctl(vcpu, KVM_SET_REGS, &regs);
}

static int run(struct floor_vm *f, int ram_fd, double us[FLOOR_STAGES])
{
    double last = bench_now();
#define STAGE(stage, call)                                                                         \
    do {                                                                                           \
        if ((call) < 0)                                                                            \
            return -1;                                                                             \
        double now = bench_now();                                                                  \
        us[stage] = now - last;                                                                    \
        last = now;                                                                                \
    } while (0)

    STAGE(FLOOR_OPEN, f->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC));
    STAGE(FLOOR_VM, f->vm = ioctl(f->kvm, KVM_CREATE_VM, 0));
    f->ram = mmap(NULL, f->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_NORESERVE, ram_fd, 0);
    STAGE(FLOOR_MAP_RAM, f->ram == MAP_FAILED ? -1 : 0);
    struct kvm_userspace_memory_region slot = {
        .memory_size = f->bytes, .userspace_addr = (uintptr_t)f->ram};
    STAGE(FLOOR_MEMSLOT, ioctl(f->vm, KVM_SET_USER_MEMORY_REGION, &slot));
    STAGE(FLOOR_IRQCHIP, ioctl(f->vm, KVM_CREATE_IRQCHIP, 0));
    struct kvm_pit_config pit = {.flags = KVM_PIT_SPEAKER_DUMMY};
    STAGE(FLOOR_PIT, ioctl(f->vm, KVM_CREATE_PIT2, &pit));
    STAGE(FLOOR_VCPU, f->vcpu = ioctl(f->vm, KVM_CREATE_VCPU, 0));
    int bytes = ioctl(f->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
    f->run_bytes = bytes > 0 ? (size_t)bytes : 0;
    void *area = mmap(NULL, f->run_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, f->vcpu, 0);
    f->run = area == MAP_FAILED ? NULL : area;
    STAGE(FLOOR_MAP_RUN, f->run ? 0 : -1);
    struct kvm_cpuid2 *cpuid = supported_cpuid(f->kvm);
    last = bench_now();
    STAGE(FLOOR_CPUID, cpuid ? ioctl(f->vcpu, KVM_SET_CPUID2, cpuid) : -1);
    STAGE(FLOOR_REGS, set_regs(f->vcpu));
    STAGE(FLOOR_RUN, ioctl(f->vcpu, KVM_RUN, 0));
#undef STAGE
    if (f->run->exit_reason != KVM_EXIT_IO || f->run->io.port != EXIT_PORT) {
        errno = EPROTO;
        return -1;
    }
    return 0;
}

int kvm_floor_run(int ram_fd, uint64_t bytes, double us[FLOOR_STAGES])
{
    struct floor_vm f = {.kvm = -1, .vm = -1, .vcpu = -1, .bytes = bytes};
    int rc = run(&f, ram_fd, us);
    int saved = errno;
    if (f.ram == MAP_FAILED)
        f.ram = NULL;
    tear_down(&f);
    errno = saved;
    return rc;
}
