/*
 * A hostile snapshot whose shape fits: what it says of vCPUs and devices is loaded into a whole
 * machine on a hypervisor without guests (tests/unit/fake_hypervisor.h), which then runs, is
 * captured and ends. Input: the vCPU's lists, the state of each device in turn, then what is in RAM
 * where its queues point.
 *
 * Refused or not, nothing may fall over, and a machine that was refused does not start.
 */
#include <stdbool.h>
#include <sys/stat.h>

#include "devices/virtio_net.h"
#include "fake_hypervisor.h"
#include "fuzz.h"
#include "net/unplugged.h"
#include "util/bytes.h"
#include "vmm/machine_internal.h"

#define MEMORY     (32u << 20)
#define QUEUES_GPA 0x100000u /* all addresses of queues are from here on */
#define QUEUES     0x10000u
#define RAM_OFFSET 16384u
#define PARTS      5

static const uint8_t mac[6] = {2, 0, 0, 0, 0, 1};
static int file_fd, rootfs_fd;
static char rootfs[32];

static void fill_list(struct fuzz_input *in, struct sm_reg_list *list)
{
    for (uint64_t n = fuzz_take(in, 1) % 32; n > 0; n--) {
        uint32_t id = (uint32_t)fuzz_take(in, 2);
        fuzz_demand(sm_reg_list_add(list, id, fuzz_take(in, 8), NULL) == 0);
    }
}

static void fill_vcpu(struct fuzz_input *in, struct sm_vcpu_state *v)
{
    fill_list(in, &v->gp);
    fill_list(in, &v->sys);
    fill_list(in, &v->icc);
    fill_list(in, &v->redist);
    for (uint64_t n = fuzz_take(in, 1) % 32; n > 0; n--)
        fuzz_demand(sm_reg128_list_add(&v->simd, (uint32_t)n, fuzz_take(in, 8), 0, NULL) == 0);
}

/* Inside of the range by default, so that queues are found; the top byte leads out. */
static uint64_t address(struct fuzz_input *in)
{
    uint64_t low = fuzz_take(in, 2), high = fuzz_take(in, 1);
    return high < 0xc0 ? QUEUES_GPA + low : low << (high & 63);
}

static void fill_device(struct fuzz_input *in, struct sm_virtio_state *d, uint64_t offered)
{
    uint64_t how = fuzz_take(in, 1);
    uint64_t features = how & 1 ? fuzz_take(in, 8) : offered;
    d->driver_features[0] = (uint32_t)features;
    d->driver_features[1] = (uint32_t)(features >> 32);
    d->status = how & 2 ? (uint32_t)fuzz_take(in, 4) : 15;
    d->interrupt_status = (uint32_t)fuzz_take(in, 1);
    if (how & 4)
        d->n_queues = (uint32_t)fuzz_take(in, 1) % (SM_VIRTIO_MAX_QUEUES + 1);
    for (unsigned q = 0; q < d->n_queues; q++) {
        struct sm_virtq_state *s = &d->queues[q];
        uint64_t size = fuzz_take(in, 1);
        s->size = size & 128 ? (uint16_t)fuzz_take(in, 2) : (uint16_t)(1u << size % 11);
        s->ready = fuzz_take(in, 1) & 1;
        s->desc = address(in);
        s->avail = address(in);
        s->used = address(in);
        s->last_avail_idx = (uint16_t)fuzz_take(in, 2);
        s->next_used_idx = (uint16_t)fuzz_take(in, 2);
    }
    for (unsigned i = 0; i < SM_VIRTIO_EXTRA && how & 8; i++)
        d->extra[i] = fuzz_take(in, 8);
}

static void describe(const struct sm_machine *m, struct sm_snapshot *s)
{
    s->arch = sm_arch_tag();
    s->memory_bytes = MEMORY;
    s->ram_offset = RAM_OFFSET;
    memcpy(s->build.vmm, sm_vmm_build_id, sizeof(s->build.vmm));
    sm_hv_cpu_digest(m->hv, s->cpu_digest);
    s->n_regions = 1;
    s->regions[0] = (struct sm_snapshot_region){.gpa = m->memory.regions[0].gpa, .size = MEMORY};
    s->ram_gpa = s->regions[0].gpa;
    s->irqchip = (uint8_t *)strdup("fak");
    s->irqchip_bytes = 4;
    s->n_vcpus = 1;
    s->vcpus = calloc(1, sizeof(*s->vcpus));
    s->n_devices = m->n_devices;
    s->devices = calloc(m->n_devices, sizeof(*s->devices));
    fuzz_demand(s->irqchip && s->vcpus && s->devices);
    for (unsigned i = 0; i < m->n_devices; i++) {
        const struct sm_machine_device *d = &m->devices[i];
        struct sm_snapshot_device *to = &s->devices[i];
        to->virtio_id = d->dev->ops->id;
        strcpy(to->role, d->role);
        to->irq = d->place.irq;
        to->window = d->place.window;
        to->features = d->dev->features;
        memcpy(to->config, d->config, sizeof(to->config));
        to->state.n_queues = d->dev->ops->n_queues;
    }
}

/* It runs, stops, and can be saved. */
static void use(struct sm_machine *m)
{
    struct sm_pause pause = {0};
    struct sm_snapshot *s = NULL;
    sm_error err;
    fuzz_demand(sm_machine_start(m, &err) == 0);
    fuzz_demand(sm_machine_pause(m, &pause, &err) == 0);
    fuzz_demand(sm_machine_save(m, &s, &err) == 0);
    fuzz_demand(s->n_devices == PARTS && s->n_vcpus == 1);
    sm_snapshot_free(s);
}

static void set_up(void)
{
    static const uint8_t fs[4096];
    char path[32];
    rootfs_fd = fuzz_file(fs, sizeof(fs), rootfs);
    file_fd = fuzz_file(fs, sizeof(fs), path);
    fuzz_demand(ftruncate(file_fd, RAM_OFFSET + MEMORY) == 0);
    fake_hv.any_thread = true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t queues[QUEUES];
    if (!file_fd)
        set_up();
    const struct sm_machine_part parts[PARTS] = {sm_part_rootfs(rootfs), sm_part_vsock(3),
        sm_part_rng(), sm_part_balloon(), sm_part_net(sm_net_unplugged, NULL, mac)};
    const struct sm_machine_config config = {
        .memory_bytes = MEMORY, .vcpus = 1, .parts = parts, .n_parts = PARTS};
    struct fuzz_input in = {.data = data, .left = size};
    struct sm_machine *m;
    sm_error err;
    fuzz_demand(sm_machine_create(&m, &config, &err) == 0);
    auto_snapshot s = calloc(1, sizeof(*s));
    fuzz_demand(s);
    describe(m, s);
    fill_vcpu(&in, s->vcpus);
    for (unsigned i = 0; i < s->n_devices; i++)
        fill_device(&in, &s->devices[i].state, s->devices[i].features);
    size_t n = sizeof(queues);
    const uint8_t *rest = fuzz_bytes(&in, &n);
    memset(queues, 0, sizeof(queues));
    if (n)
        memcpy(queues, rest, n);
    fuzz_demand(pwrite(file_fd, queues, sizeof(queues), RAM_OFFSET + QUEUES_GPA) == QUEUES);
    if (sm_machine_load(m, file_fd, s, NULL, &err) == 0)
        use(m);
    else
        fuzz_demand(sm_machine_start(m, &err) < 0);
    sm_machine_close(m);
    return 0;
}
