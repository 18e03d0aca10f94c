/*
 * What a restore costs, stage by stage, against the floor: the least that the kernel's own calls
 * cost to make such a VM (kvm_floor.h), measured in the same run, turn by turn, so that a noisy
 * machine is noisy for both.
 *
 * Measured is the VMM's part, up to vCPU 0 entering the guest; the floor's first exit is told
 * apart, because when a restored guest first comes out is the guest's affair.
 *
 *     cold    open and read the file, make VM, memory, devices, vCPUs, put the state back, run
 *     prefetch  as cold; the pages that the first of all restores touched until the agent's answer
 *             are mapped in (and those it wrote, copied) before the vCPUs run: does that pay?
 *     shell   the machine was made before (a pool does that): open, read, map RAM over, state, run
 *
 * Ends are outside of the measured time: closing a VM is done off the hot path, too.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bench.h"
#include "devices/vsock/vsock.h"
#include "kvm_floor.h"
#include "net/unplugged.h"
#include "net/user_net.h"
#include "snapshot/reader.h"
#include "snapshot/writer.h"
#include "util/bytes.h"
#include "util/wait.h"
#include "vm/agent/channel.h"
#include "vmm/usual_parts.h"
#include "vmm/machine.h"

#define ANSWER_MS      60000
#define POPULATE_READ  22 /* MADV_POPULATE_READ and _WRITE, Linux 5.14 */
#define POPULATE_WRITE 23
#define SETTLE_MS      500 /* after its greeting the agent goes to sleep */

enum stage {
    READ_FILE, /* open, metadata */
    CREATE,
    LOAD_RAM,
    LOAD_VCPUS,
    LOAD_IRQCHIP,
    LOAD_CLOCK,
    LOAD_DEVICES,
    PREFETCH_PAGES,
    ENTER, /* resume until vCPU 0 is about to enter the guest */
    STAGES,
};

static const char *const names[STAGES] = {"open file, read metadata", "make the machine", "map RAM",
    "vCPUs", "interrupt chips", "clock", "devices", "prefetch", "start threads"};

struct restore {
    struct bench_samples stage[STAGES], total, first_exit, answer, faults, exits, assists;
};

static sm_error err;
static struct sm_machine_config config = {
    .memory_bytes = 256ull << 20, .vcpus = 1, .snapshot_fd = -1};
static struct sm_machine_part parts[SM_USUAL_PARTS];
static char dir[4096] = "/var/tmp", path[4200];
static struct sm_hv *hv;
static json_t *rows;

/* ---- making the snapshot ------------------------------------------------------------------- */

static int greeted[2];

static void agent_connected(void *arg, int fd, uint32_t port)
{
    (void)arg, (void)port;
    if (write(greeted[1], &fd, sizeof(fd)) != sizeof(fd))
        bench_die("the agent's greeting", NULL);
}

/* Non-zero pages of the RAM, copied to memory that is there: what the capture's pause is compared
 * with. */
static double memcpy_floor(const struct sm_compact *c, uint64_t pages)
{
    struct bench_samples t = {0};
    uint8_t *to = malloc(pages * SM_SNAPSHOT_PAGE);
    const uint8_t **from = calloc(pages, sizeof(*from));
    uint64_t n = 0;
    for (uint64_t p = 0; p < config.memory_bytes / SM_SNAPSHOT_PAGE && n < pages; p++)
        if ((from[n] = sm_compact_page(c, p)))
            n++;
    memset(to, 1, pages * SM_SNAPSHOT_PAGE);
    for (int r = 0; r < 9; r++) {
        double start = bench_now();
        for (uint64_t i = 0; i < n; i++)
            memcpy(to + i * SM_SNAPSHOT_PAGE, from[i], SM_SNAPSHOT_PAGE);
        bench_add(&t, bench_now() - start);
    }
    free(to);
    free(from);
    return bench_quantile(&t, 0.5);
}

static void capture(struct sm_machine *m, json_t *report)
{
    struct sm_ram ram;
    struct sm_compact *c = NULL;
    struct sm_snapshot *s = NULL;
    struct sm_snapshot_write_stats stats;
    sm_machine_ram(m, &ram);
    if (sm_compact_new(ram.bytes, &c, &err) || sm_compact_prepare(c, &ram, false, &err))
        bench_die("prepare", &err);
    struct sm_pause pause = {0};
    double start = bench_now();
    if (sm_machine_pause(m, &pause, &err) || sm_machine_save(m, &s, &err))
        bench_die("pause", &err);
    double saved = bench_now();
    struct bench_samples copy = {0};
    for (int i = 0; i < 9; i++) { /* once would do, but is no measure on a busy machine */
        double begin = bench_now();
        if (sm_compact_capture(c, &ram, false, NULL, &err))
            bench_die("capture", &err);
        bench_add(&copy, bench_now() - begin);
    }
    double copied = bench_quantile(&copy, 0.5);
    if (sm_compact_save(path, s, c, NULL, &stats, &err))
        bench_die("save", &err);
    double floor = memcpy_floor(c, sm_compact_pages(c));
    printf("capture: %.1f MiB of %.0f MiB RAM are not zero; paused %.2f ms: "
           "%.2f ms for vCPUs and devices, %.2f ms for RAM (plain memcpy of the same pages: "
           "%.2f ms)\n",
        (double)stats.ram_data_bytes / (1 << 20), (double)ram.bytes / (1 << 20),
        (saved - start + copied) / 1000, (saved - start) / 1000, copied / 1000, floor / 1000);
    json_object_set_new(report, "capture",
        json_pack("{s:I, s:f, s:f, s:f}", "data_bytes", (json_int_t)stats.ram_data_bytes,
            "state_us", saved - start, "ram_us", copied, "memcpy_us", floor));
    sm_compact_free(c);
    sm_snapshot_free(s);
}

static void make_snapshot(json_t *report)
{
    struct sm_machine *m = NULL;
    if (pipe(greeted))
        bench_die("pipe", NULL);
    if (sm_machine_create(&m, &config, &err) ||
        sm_vsock_listen(sm_machine_vsock(m), SM_WIRE_PORT, agent_connected, NULL, &err) ||
        sm_machine_boot(m, &err))
        bench_die("boot", &err);
    struct pollfd wait[2] = {
        {.fd = greeted[0], .events = POLLIN}, {.fd = sm_machine_end_fd(m), .events = POLLIN}};
    if (poll(wait, 2, ANSWER_MS) <= 0 || !wait[0].revents) {
        char console[2000];
        sm_machine_console(m, console, sizeof(console));
        fprintf(stderr, "%s\n", console);
        bench_die("the agent did not come up", NULL);
    }
    int fd;
    if (read(greeted[0], &fd, sizeof(fd)) != sizeof(fd))
        bench_die("the agent's greeting", NULL);
    close(fd);
    usleep(SETTLE_MS * 1000);
    capture(m, report);
    sm_machine_close(m);
}

/* ---- prefetch ------------------------------------------------------------------------------ */

/* Runs of pages, and whether the guest wrote to them. */
static struct run {
    uint64_t at, len;
    bool written;
} touched[8192];
static size_t n_touched;

/* What the guest has touched of its RAM so far: present in our page tables; private means
 * written. */
static void record_touched(struct sm_machine *m)
{
    struct sm_ram ram;
    sm_machine_ram(m, &ram);
    uint64_t entries[512];
    int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    for (uint64_t at = 0; fd >= 0 && at < ram.bytes; at += sizeof(entries) / 8 * SM_SNAPSHOT_PAGE) {
        off_t where = (off_t)(((uintptr_t)ram.base + at) / SM_SNAPSHOT_PAGE * 8);
        if (pread(fd, entries, sizeof(entries), where) != sizeof(entries))
            break;
        for (size_t i = 0; i < SM_ARRAY_LEN(entries); i++) {
            bool written = !(entries[i] >> 61 & 1);
            uint64_t page = at + i * SM_SNAPSHOT_PAGE;
            struct run *last = n_touched ? &touched[n_touched - 1] : NULL;
            if (!(entries[i] >> 63))
                continue;
            if (last && last->at + last->len == page && last->written == written)
                last->len += SM_SNAPSHOT_PAGE;
            else if (n_touched < SM_ARRAY_LEN(touched))
                touched[n_touched++] = (struct run){page, SM_SNAPSHOT_PAGE, written};
        }
    }
    if (fd >= 0)
        close(fd);
}

static void prefetch(struct sm_machine *m)
{
    struct sm_ram ram;
    sm_machine_ram(m, &ram);
    uintptr_t base = (uintptr_t)ram.base;
    for (size_t i = 0; i < n_touched; i++)
        madvise((void *)(base + touched[i].at), touched[i].len,
            touched[i].written ? POPULATE_WRITE : POPULATE_READ);
}

/* ---- restoring it -------------------------------------------------------------------------- */

static double us_between(uint64_t from_ns, uint64_t to_ns)
{
    return (double)(to_ns - from_ns) / 1000;
}

static uint64_t faults(void)
{
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return (uint64_t)u.ru_minflt + (uint64_t)u.ru_majflt;
}

/* CLOCK_MONOTONIC at which the first exit was seen. */
static uint64_t await_first_exit(struct sm_machine *m)
{
    struct sm_hv_counters counters;
    uint64_t start = sm_now_ns(), now;
    for (;;) {
        sm_machine_get_counters(m, &counters);
        now = sm_now_ns();
        if (counters.exits || now - start > 1000000000)
            return now;
        usleep(20); /* not a busy wait: the vCPU may need this core */
    }
}

static void await_answer(struct sm_machine *m)
{
    struct sm_channel channel = {.fd = -1};
    uint8_t frame[64];
    struct sm_wire_writer w = {.buf = frame, .cap = sizeof(frame)};
    struct sm_wire_pong pong;
    struct sm_wait wait = sm_wait_ms(ANSWER_MS);
    sm_wire_put_ping(&w, &(struct sm_wire_ping){0});
    int fd;
    if (sm_vsock_connect(sm_machine_vsock(m), SM_WIRE_PORT, &wait, &fd, &err) ||
        sm_channel_init(&channel, fd, NULL, &err) ||
        sm_channel_send(&channel, frame, w.len, &wait, &err) ||
        sm_channel_expect(&channel, SM_WIRE_PONG, &pong, &wait, &err))
        bench_die("the restored agent's answer", &err);
    sm_channel_close(&channel);
}

static void add_load(struct restore *r, const struct sm_machine_load_times *t)
{
    bench_add(&r->stage[LOAD_RAM], (double)t->ram_map);
    bench_add(&r->stage[LOAD_VCPUS], (double)t->vcpu_restore);
    bench_add(&r->stage[LOAD_IRQCHIP], (double)t->irqchip_restore);
    bench_add(&r->stage[LOAD_CLOCK], (double)t->clock);
    bench_add(&r->stage[LOAD_DEVICES], (double)t->device_restore);
}

static void add_counters(struct restore *r, struct sm_machine *m)
{
    struct sm_hv_counters counters;
    sm_machine_get_counters(m, &counters);
    bench_add(&r->exits, (double)counters.exits);
    bench_add(&r->assists, (double)counters.assists);
}

enum way { COLD, PREFETCH, SHELL, WAYS };

static void one_restore(struct restore *r, enum way way)
{
    bool shell = way == SHELL;
    struct sm_machine *m = NULL;
    struct sm_machine_config c = config;
    c.hv = hv;
    if (shell && sm_machine_create(&m, &c, &err))
        bench_die("shell", &err);
    uint64_t faults_before = faults(), start = sm_now_ns(), last = start;
    int fd = -1;
    struct sm_snapshot *s = NULL;
    if (sm_snapshot_open(path, &fd, &err) || sm_snapshot_load_meta(fd, path, &s, &err))
        bench_die("read", &err);
    uint64_t now = sm_now_ns();
    bench_add(&r->stage[READ_FILE], us_between(last, now));
    last = now;
    if (!shell) {
        c.snapshot = s;
        c.snapshot_fd = fd;
        if (sm_machine_create(&m, &c, &err))
            bench_die("create", &err);
        now = sm_now_ns();
        bench_add(&r->stage[CREATE], us_between(last, now));
    }
    struct sm_machine_load_times t;
    if (sm_machine_load(m, fd, s, &t, &err))
        bench_die("load", &err);
    add_load(r, &t);
    last = sm_now_ns();
    if (way == PREFETCH)
        prefetch(m);
    now = sm_now_ns();
    bench_add(&r->stage[PREFETCH_PAGES], us_between(last, now));
    last = now;
    if (sm_machine_start(m, &err))
        bench_die("resume", &err);
    uint64_t first_exit = await_first_exit(m);
    struct sm_machine_timing timing;
    sm_machine_get_timing(m, &timing);
    bench_add(&r->stage[ENTER], us_between(last, timing.entered_ns));
    bench_add(&r->total, us_between(start, timing.entered_ns));
    bench_add(&r->first_exit, us_between(start, first_exit));
    await_answer(m);
    bench_add(&r->answer, us_between(start, sm_now_ns()));
    bench_add(&r->faults, (double)(faults() - faults_before));
    if (way == COLD && !n_touched)
        record_touched(m);
    add_counters(r, m);
    sm_snapshot_free(s);
    close(fd);
    sm_machine_close(m);
}

/* ---- the table ----------------------------------------------------------------------------- */

static json_t *median(struct bench_samples *samples)
{
    return samples && samples->n ? json_real(bench_quantile(samples, 0.5)) : json_null();
}

/* `of`: where in struct restore the samples are; NOWHERE: the floor alone has such a stage. */
#define NOWHERE SIZE_MAX
static void row(const char *what, double floor, struct restore ways[WAYS], size_t of)
{
    struct bench_samples *samples[WAYS] = {0};
    for (int w = 0; of != NOWHERE && w < WAYS; w++)
        samples[w] = (struct bench_samples *)((char *)&ways[w] + of);
    json_array_append_new(
        rows, json_pack("{s:s, s:o, s:o, s:o, s:o}", "us, medians", what, "floor",
                  floor >= 0 ? json_real(floor) : json_null(), "cold", median(samples[COLD]),
                  "prefetch", median(samples[PREFETCH]), "shell", median(samples[SHELL])));
}

static void tell(struct bench_samples floor_stage[FLOOR_STAGES], struct bench_samples *floor_total,
    struct restore ways[WAYS], json_t *report)
{
    double floor = bench_quantile(floor_total, 0.5), make = 0;
    for (int i = 0; i < FLOOR_STAGES; i++) {
        char name[64];
        snprintf(name, sizeof(name), "  floor: %s", kvm_floor_names[i]);
        row(name, bench_quantile(&floor_stage[i], 0.5), ways, NOWHERE);
        if (i != FLOOR_RUN && i != FLOOR_REGS)
            make += bench_quantile(&floor_stage[i], 0.5);
    }
    for (int i = 0; i < STAGES; i++)
        row(names[i],
            i == CREATE       ? make
            : i == LOAD_VCPUS ? bench_quantile(&floor_stage[FLOOR_REGS], 0.5)
                              : -1,
            ways, offsetof(struct restore, stage) + (size_t)i * sizeof(struct bench_samples));
    row("TOTAL: the guest runs", floor, ways, offsetof(struct restore, total));
    row("first exit of the guest", floor + bench_quantile(&floor_stage[FLOOR_RUN], 0.5), ways,
        offsetof(struct restore, first_exit));
    row("to the agent's answer", -1, ways, offsetof(struct restore, answer));
    row("page faults until then (count)", -1, ways, offsetof(struct restore, faults));
    row("guest exits until then (count)", -1, ways, offsetof(struct restore, exits));
    row("assists until then (count)", -1, ways, offsetof(struct restore, assists));
    struct restore *cold = &ways[COLD], *shell = &ways[SHELL];
    bench_print_table(rows);
    uint64_t pages = 0, written = 0;
    for (size_t i = 0; i < n_touched; i++) {
        pages += touched[i].len / SM_SNAPSHOT_PAGE;
        written += touched[i].written ? touched[i].len / SM_SNAPSHOT_PAGE : 0;
    }
    printf("mapped when the agent has answered: %llu pages in %zu runs, %llu of them written\n",
        (unsigned long long)pages, n_touched, (unsigned long long)written);
    double ratio = bench_quantile(&cold->total, 0.5) / floor;
    double quick = bench_quantile(&cold->total, 0.1) / bench_quantile(floor_total, 0.1);
    printf("cold restore / floor: %.2f (quickest tenth: %.2f; budget 1.25)\n"
           "shell restore: %.2f ms (quickest tenth: %.2f; budget 1 ms)\n",
        ratio, quick, bench_quantile(&shell->total, 0.5) / 1000,
        bench_quantile(&shell->total, 0.1) / 1000);
    json_object_set_new(report, "cold_to_floor", json_real(ratio));
    json_object_set_new(report, "cold_to_floor_p10", json_real(quick));
    json_object_set(report, "rows", rows);
}

static void usage(void)
{
    fprintf(stderr,
        "usage: bench-restore --image REF --kernel FILE --agent FILE [--memory MIB] [--cpus N]\n"
        "                     [--runs N] [--dir DIR] [--json FILE]\n");
    exit(2);
}

static const char *json_path, *image_name;
static unsigned runs = 20;

static void take_options(int argc, char **argv)
{
    static const struct option options[] = {{"image", 1, 0, 'i'}, {"kernel", 1, 0, 'k'},
        {"agent", 1, 0, 'a'}, {"memory", 1, 0, 'm'}, {"cpus", 1, 0, 'c'}, {"runs", 1, 0, 'r'},
        {"dir", 1, 0, 'd'}, {"json", 1, 0, 'j'}, {0}};
    for (int c; (c = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        unsigned long n = optarg ? strtoul(optarg, NULL, 10) : 0;
        switch (c) {
        case 'i':
            image_name = optarg;
            break;
        case 'k':
            config.kernel = optarg;
            break;
        case 'a':
            config.initramfs = optarg;
            break;
        case 'm':
            config.memory_bytes = (uint64_t)n << 20;
            break;
        case 'c':
            config.vcpus = (unsigned)n;
            break;
        case 'r':
            runs = (unsigned)SM_MIN(SM_MAX(n, 1), BENCH_MAX_RUNS);
            break;
        case 'd':
            snprintf(dir, sizeof(dir), "%s", optarg);
            break;
        case 'j':
            json_path = optarg;
            break;
        default:
            usage();
        }
    }
    if (!image_name || !config.kernel || !config.initramfs)
        usage();
}

/* The floor and the three ways in turn, so that what else the machine does hits them alike. */
static void measure(json_t *report)
{
    static struct bench_samples floor_stage[FLOOR_STAGES], floor_total;
    static struct restore ways[WAYS];
    int ram_fd = kvm_floor_make_ram(dir, config.memory_bytes);
    if (ram_fd < 0)
        bench_die("floor", NULL);
    if (sm_hv_open(&hv, &err))
        bench_die("hypervisor", &err);
    for (unsigned i = 0; i < runs; i++) {
        double us[FLOOR_STAGES], sum = 0;
        if (kvm_floor_run(ram_fd, config.memory_bytes, us))
            bench_die("floor", NULL);
        for (int k = 0; k < FLOOR_STAGES; k++) {
            bench_add(&floor_stage[k], us[k]);
            sum += k == FLOOR_RUN ? 0 : us[k];
        }
        bench_add(&floor_total, sum);
        for (enum way w = 0; w < WAYS; w++)
            one_restore(&ways[w], w);
    }
    tell(floor_stage, &floor_total, ways, report);
    sm_hv_close(hv);
    close(ram_fd);
}

int main(int argc, char **argv)
{
    take_options(argc, argv);
    sm_store *store = NULL;
    sm_image *image = NULL;
    if (sm_store_open(&store, NULL, &err) || sm_image_open(store, image_name, NULL, &image, &err))
        bench_die(image_name, &err);
    const struct sm_machine_part net = sm_part_net(sm_net_unplugged, NULL, sm_user_net_mac);
    sm_usual_parts(parts, sm_image_rootfs(image), &net);
    config.parts = parts;
    config.n_parts = SM_USUAL_PARTS;
    strncat(dir, "/bench-restore-XXXXXX", sizeof(dir) - strlen(dir) - 1);
    if (!mkdtemp(dir))
        bench_die(dir, NULL);
    snprintf(path, sizeof(path), "%s/snap", dir);
    rows = json_array();
    json_t *report = json_pack("{s:s, s:I, s:i, s:i}", "bench", "restore", "ram_bytes",
        (json_int_t)config.memory_bytes, "vcpus", (int)config.vcpus, "runs", (int)runs);
    make_snapshot(report);
    measure(report);
    if (json_path)
        bench_write_json(report, json_path);
    json_decref(report);
    json_decref(rows);
    unlink(path);
    rmdir(dir);
    sm_image_close(image);
    sm_store_close(store);
    return 0;
}
