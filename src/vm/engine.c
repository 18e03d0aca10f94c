/* The engine: its life, its streams, and looking at it. See engine.h.
 *
 * System calls elsewhere: socketpair, pidfd_open, memfd_create, poll, pread64, open. */
#include "vm/engine.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include "hypervisor/hypervisor.h"
#include "snapshot/page_map.h"
#include "snapshot/snapshot.h"
#include "util/cleanup.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/either.h"
#include "util/error.h"
#include "util/fingerprint.h"
#include "util/locate.h"
#include "util/spawn.h"
#include "util/text.h"
#include "util/wait.h"
#include "vm/engine_impl.h"
#include "vm/machine_user.h"
#include "vmm/machine.h"
#include "vmm/usual_parts.h"

#define PROGRAM      "supermachine-vm"
#define QUIT_MS      2000     /* for a machine to end in order; then it is killed */
#define ACCEPT_MS    86400000 /* of a stream: who asked for it waits as he likes, and closes it */
#define GONE_MS      1000     /* from the end of its sockets to that of the process */
#define QUICK_MS     120000   /* for what takes no time, on a host that may be busy */
#define LIFE_MS      600000   /* for what may take its time, */
#define MS_A_MIB     1000     /* and for each MiB of the guest's memory, which may be written */
#define KILL_MS      5000     /* for the end in order; then it is killed */
#define KILL_POLL_MS 10
#define CONSOLE_MAX  (1u << 20)

int sm_engine_open(struct sm_engine **engine, sm_error *err)
{
    struct sm_engine *e = calloc(1, sizeof(*e));
    if (!e)
        return sm_error_set(err, SM_ENOMEM, "no memory for a VM");
    e->pidfd = e->end = e->ended = e->streams = e->agent_fd = e->user_lock = -1;
    e->life.socket = e->quick.socket = -1;
    e->clock = sm_engine_make_clock(e);
    pthread_mutex_init(&e->life.lock, NULL);
    pthread_mutex_init(&e->quick.lock, NULL);
    e->ask_rate = sm_rate_make(SM_ENGINE_ASKS_A_SECOND, SM_ENGINE_ASKS_BURST);
    pthread_mutex_init(&e->lock, NULL);
    int rc = sm_hv_open(&e->hv, err);
    if (rc)
        sm_engine_close(e);
    else
        *engine = e;
    return rc;
}

/* The process is told to end, and sees the end of its sockets, unless a child that the client has
 * forked holds them, too; one that does not end is killed. */
static void end_process(struct sm_engine *e)
{
    const struct sm_machine_request quit = {.call = SM_CALL_QUIT};
    if (e->quick.socket >= 0)
        sm_record_send_now(e->quick.socket, &quit, sizeof(quit), NULL, 0);
    sm_close(e->life.socket);
    sm_close(e->quick.socket);
    sm_close(e->streams);
    if (e->pidfd >= 0 && !sm_spawn_wait(e->pidfd, QUIT_MS))
        sm_spawn_kill(e->pidfd);
    sm_close(e->ended);
    sm_close(e->pidfd);
    sm_close(e->end);
}

void sm_engine_close(struct sm_engine *e)
{
    if (!e)
        return;
    end_process(e);
    sm_hv_close(e->hv);
    sm_close(e->agent_fd);
    sm_close(e->user_lock);
    pthread_mutex_destroy(&e->life.lock);
    pthread_mutex_destroy(&e->quick.lock);
    pthread_mutex_destroy(&e->lock);
    free(e);
}

int sm_engine_is_emulated(struct sm_engine *e, bool *emulated, sm_error *err)
{
    return sm_hv_needs_assist(e->hv, emulated, err);
}

void sm_engine_fingerprint(const struct sm_engine *e, struct sm_fingerprint *f)
{
    uint8_t cpu[SM_CPU_DIGEST_BYTES];
    sm_hv_cpu_digest(e->hv, cpu);
    sm_fingerprint_add(f, sm_vmm_build_id, sizeof(sm_vmm_build_id));
    sm_fingerprint_add(f, cpu, sizeof(cpu));
    sm_usual_parts_fingerprint(f);
}

int sm_engine_check_shape(uint64_t memory_bytes, unsigned vcpus, sm_error *err)
{
    return sm_machine_check_shape(memory_bytes, vcpus, err);
}

/* ---- calls ----------------------------------------------------------------------------------- */

/* The last word of the process: how the machine ended; else a line of what it was refused; or it
 * had none. */
static void read_end(struct sm_engine *e, enum sm_vm_end *how, sm_error *err)
{
    union {
        struct sm_machine_end_record record;
        char line[sizeof(struct sm_machine_end_record)];
    } end;
    ssize_t n = sm_record_peek(e->end, &end, sizeof(end));
    bool told = n == sizeof(end) && end.record.how > SM_VM_RUNNING &&
                end.record.how <= SM_VM_INTERNAL_ERROR &&
                memchr(end.record.message, '\0', sizeof(end.record.message));
    *how = told ? (enum sm_vm_end)end.record.how : SM_VM_INTERNAL_ERROR;
    if (!told && atomic_load(&e->killed)) {
        *how = SM_VM_KILLED;
        sm_error_set(err, SM_EGUEST, "the machine was stopped");
    } else if (told) {
        sm_error_set(err, SM_EGUEST, "%s", end.record.message);
    } else if (n > 0 && n < (ssize_t)sizeof(end)) {
        sm_error_set(
            err, SM_EGUEST, "the process that runs the VM was ended: %.*s", (int)n, end.line);
    } else {
        sm_error_set(err, SM_EGUEST, "the process that runs the VM has died");
    }
}

int sm_engine_lost(struct sm_engine *e, int rc, sm_error *err)
{
    enum sm_vm_end how;
    if (rc == -SM_EGUEST && sm_spawn_wait(e->pidfd, GONE_MS))
        read_end(e, &how, err);
    return rc;
}

/* One that does not answer in time has been taken over, or its host stands still. A late answer
 * would be taken for that of the next call, so there is none: whoever has had enough ends it. */
static int await_reply(
    struct sm_engine *e, struct sm_engine_line *line, int timeout_ms, sm_error *err)
{
    int64_t deadline = sm_deadline(timeout_ms);
    struct pollfd fds[] = {
        {.fd = line->socket, .events = POLLIN}, {.fd = e->pidfd, .events = POLLIN}};
    int n;
    while ((n = poll(fds, 2, sm_deadline_left(deadline))) < 0 && errno == EINTR)
        continue;
    if (fds[0].revents)
        return 0;
    if (n > 0)
        return sm_error_set(err, SM_EGUEST, "the VM's machine has ended");
    line->is_mute = true;
    return sm_error_set(err, SM_EGUEST, "the process that runs the VM did not answer within %d s",
        timeout_ms / 1000);
}

/* Under the line's lock. */
static int exchange(struct sm_engine *e, struct sm_engine_line *line,
    const struct sm_machine_message *m, struct sm_machine_reply *reply, int timeout_ms,
    sm_error *err)
{
    if (line->is_mute)
        return sm_error_set(err, SM_EGUEST, "the process that runs the VM does not answer");
    int rc = sm_machine_send(line->socket, m, err);
    if (!rc)
        rc = await_reply(e, line, timeout_ms, err);
    if (!rc)
        rc = sm_machine_reply_take(line->socket, reply, err);
    return line->is_mute ? rc : sm_engine_lost(e, rc, err);
}

static int call(struct sm_engine *e, struct sm_engine_line *line,
    const struct sm_machine_message *m, struct sm_machine_reply *reply, int timeout_ms,
    sm_error *err)
{
    if (line->socket < 0)
        return sm_error_set(err, SM_EINVAL, "the VM has no machine yet");
    pthread_mutex_lock(&line->lock);
    int rc = exchange(e, line, m, reply, timeout_ms, err);
    pthread_mutex_unlock(&line->lock);
    return rc;
}

struct sm_machine_message *sm_engine_message(enum sm_machine_call what, sm_error *err)
{
    struct sm_machine_message *m = malloc(sizeof(*m));
    if (!m) {
        sm_error_set(err, SM_ENOMEM, "no memory for a request to the VM's machine");
        return NULL;
    }
    m->request = (struct sm_machine_request){.call = what};
    m->body_bytes = m->n_fds = 0;
    return m;
}

int sm_engine_work_ms(const struct sm_engine *e)
{
    uint64_t mib = e->n_pages * SM_SNAPSHOT_PAGE >> 20;
    return (int)SM_MIN(LIFE_MS + mib * MS_A_MIB, (uint64_t)INT_MAX);
}

int sm_engine_call_life(struct sm_engine *e, const struct sm_machine_message *m,
    struct sm_machine_reply *reply, sm_error *err)
{
    return call(e, &e->life, m, reply, sm_engine_work_ms(e), err);
}

int sm_engine_call_quick(struct sm_engine *e, const struct sm_machine_message *m,
    struct sm_machine_reply *reply, sm_error *err)
{
    return call(e, &e->quick, m, reply, QUICK_MS, err);
}

/* A call of a few numbers; 0 or the failure. reply may be NULL. */
static int ask(const struct sm_engine *engine, enum sm_machine_call what, uint32_t number,
    struct sm_machine_reply *reply, sm_error *err)
{
    /* What looks at an engine does not change what it shows: the lines are its only state. */
    struct sm_engine *e = (struct sm_engine *)(uintptr_t)engine;
    struct sm_machine_reply unread;
    auto_free struct sm_machine_message *m = sm_engine_message(what, err);
    if (!m)
        return -SM_ENOMEM;
    m->request.size = number;
    reply = reply ? reply : &unread;
    return what < SM_CALL_END_STREAMS ? sm_engine_call_life(e, m, reply, err)
                                      : sm_engine_call_quick(e, m, reply, err);
}

/* ---- its beginning --------------------------------------------------------------------------- */

/* Both ends, ours first. */
static int make_pair(int type, int ends[2], sm_error *err)
{
    return socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, ends) == 0
               ? 0
               : sm_error_errno(err, errno, "cannot make a socket for the VM's machine");
}

static int start_process(struct sm_engine *e, const int theirs[], sm_error *err)
{
    auto_free char *program = NULL;
    int rc = sm_locate(PROGRAM, "SUPERMACHINE_LIBEXEC_DIR", "", &program, err);
    if (rc)
        return rc;
    auto_fd client = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (client < 0)
        return sm_error_errno(err, errno, "cannot name this process to the VM's machine");
    const char *const argv[] = {program, "machine", NULL};
    sm_machine_user_take(&e->uid, &e->user_lock);
    const int fds[] = {theirs[0], theirs[1], theirs[2], theirs[3], client, e->user_lock};
    _Static_assert(SM_MACHINE_USER - SM_MACHINE_LIFE == 5, "in their order");
    const struct sm_spawn spawn = {.program = program, .argv = argv, .fds = fds, .n_fds = 6};
    return sm_spawn(&spawn, &e->pidfd, &e->pid, err);
}

/* The process, and the sockets to it. */
static int make_process(struct sm_engine *e, sm_error *err)
{
    int theirs[4] = {-1, -1, -1, -1},
        *ours[4] = {&e->life.socket, &e->quick.socket, &e->end, &e->streams}, rc = 0;
    for (unsigned i = 0; i < 4 && !rc; i++) {
        int ends[2];
        rc = make_pair(SOCK_SEQPACKET, ends, err);
        if (!rc) {
            *ours[i] = ends[0];
            theirs[i] = ends[1];
        }
    }
    if (!rc)
        rc = start_process(e, theirs, err);
    /* Its last word, or its end, should another process have the other end of that socket: a child
     * that the caller forked meanwhile. */
    if (!rc)
        rc = sm_either_make((const int[]){e->end, e->pidfd}, 2, &e->ended, err);
    for (unsigned i = 0; i < 4; i++)
        sm_close(theirs[i]);
    return rc;
}

static int open_file(const char *path, const char *what, int *fd, sm_error *err)
{
    *fd = open(path, O_RDONLY | O_CLOEXEC);
    return *fd < 0 ? sm_error_errno(err, errno, "cannot open the %s %s", what, path) : 0;
}

/* Borrowed descriptors, by SM_START_*; -1: none. */
static void give(struct sm_machine_message *m, const int fds[SM_START_N_FDS])
{
    for (unsigned i = 0; i < SM_START_N_FDS; i++) {
        if (fds[i] < 0)
            continue;
        m->request.start.has |= 1u << i;
        m->fds[m->n_fds++] = fds[i];
    }
}

static int describe(const struct sm_engine *e, struct sm_machine_message *m,
    const struct sm_engine_config *config, const char *snapshot, sm_error *err)
{
    const struct sm_vm_shape *shape = &config->shape;
    m->request.start = (struct sm_machine_shape){
        .memory_bytes = shape->memory_bytes,
        .vcpus = shape->vcpus,
        .uid = e->uid,
        .n_written = (uint32_t)config->n_written,
        .speaks_first = config->card.speaks_first,
        .count_instructions = config->count_instructions,
    };
    memcpy(m->request.start.mac, config->card.mac, sizeof(config->card.mac));
    const char *const texts[] = {
        shape->cmdline, shape->kernel, shape->initramfs, config->rootfs, snapshot};
    _Static_assert(sizeof(texts) / sizeof(texts[0]) == SM_START_TEXTS, "all of them");
    _Static_assert(sizeof(struct sm_engine_run) == sizeof(struct sm_machine_run), "as it is");
    int rc =
        sm_machine_add(m, config->written, config->n_written * sizeof(struct sm_machine_run), err);
    for (unsigned i = 0; i < SM_START_TEXTS && !rc; i++)
        rc = sm_machine_add_text(m, texts[i], err);
    return rc;
}

static int start(struct sm_engine *e, const struct sm_engine_config *config, const char *snapshot,
    int fds[SM_START_N_FDS], sm_error *err)
{
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_START, err);
    auto_fd rootfs = -1;
    struct sm_machine_reply reply;
    if (!m)
        return -SM_ENOMEM;
    e->n_vcpus = config->shape.vcpus;
    e->n_pages = config->shape.memory_bytes / SM_SNAPSHOT_PAGE;
    int rc = make_process(e, err);
    if (!rc)
        rc = describe(e, m, config, snapshot, err);
    if (!rc && (rootfs = open(config->rootfs, O_RDONLY | O_CLOEXEC)) < 0)
        rc = sm_error_errno(err, errno, "cannot open %s", config->rootfs);
    if (rc)
        return rc;
    fds[SM_START_KVM] = sm_hv_fd(e->hv);
    fds[SM_START_ROOTFS] = rootfs;
    fds[SM_START_CARD] = config->card.fd;
    give(m, fds);
    return sm_engine_call_life(e, m, &reply, err);
}

int sm_engine_boot(struct sm_engine *e, const struct sm_engine_config *config, sm_error *err)
{
    auto_fd kernel = -1;
    auto_fd initramfs = -1;
    auto_fd agent = -1;
    int ends[2];
    int rc = open_file(config->shape.kernel, "kernel", &kernel, err);
    if (!rc && config->shape.initramfs)
        rc = open_file(config->shape.initramfs, "initramfs", &initramfs, err);
    if (!rc)
        rc = make_pair(SOCK_STREAM, ends, err);
    if (rc)
        return rc;
    e->agent_fd = ends[0];
    agent = ends[1];
    int fds[SM_START_N_FDS] = {[SM_START_SNAPSHOT] = -1,
        [SM_START_KERNEL] = kernel,
        [SM_START_INITRAMFS] = initramfs,
        [SM_START_AGENT] = agent};
    return start(e, config, NULL, fds, err);
}

int sm_engine_restore(struct sm_engine *e, const struct sm_engine_config *config, int fd,
    const char *path, sm_error *err)
{
    int fds[SM_START_N_FDS] = {[SM_START_SNAPSHOT] = fd,
        [SM_START_KERNEL] = -1,
        [SM_START_INITRAMFS] = -1,
        [SM_START_AGENT] = -1};
    return start(e, config, path, fds, err);
}

void sm_engine_replug(struct sm_engine *e, int fd)
{
    const struct sm_machine_stream s = {.kind = SM_STREAM_REPLUG};
    sm_record_send_now(e->streams, &s, sizeof(s), &fd, 1);
    sm_close(fd);
}

/* A file in memory, for what the machine has to show. */
static int make_sheet(int *fd, sm_error *err)
{
    *fd = memfd_create("supermachine", MFD_CLOEXEC);
    return *fd < 0 ? sm_error_errno(err, errno, "cannot make a file in memory") : 0;
}

/* Nobody promises that what the sheet has stands still: it is read once. */
static int read_pages(int sheet, uint64_t n_pages, struct sm_page_set *set, sm_error *err)
{
    size_t bytes = (n_pages / 64 + 1) * sizeof(uint64_t);
    set->changed = malloc(bytes);
    if (!set->changed)
        return sm_error_set(err, SM_ENOMEM, "no memory to list the pages of guest RAM");
    if (pread(sheet, set->changed, bytes, 0) != (ssize_t)bytes)
        return sm_error_set(err, SM_EPROTOCOL, "the VM's machine tells of too few pages");
    return 0;
}

int sm_engine_written(struct sm_engine *e, struct sm_page_set **out, sm_error *err)
{
    auto_fd sheet = -1;
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_WRITTEN, err);
    SM_CLEANUP(sm_page_set_free_cleanup) struct sm_page_set *set = calloc(1, sizeof(*set));
    struct sm_machine_reply reply = {.rc = 0};
    if (!m || !set)
        return sm_error_set(err, SM_ENOMEM, "no memory to list the pages of guest RAM");
    int rc = make_sheet(&sheet, err);
    if (rc)
        return rc;
    m->fds[m->n_fds++] = sheet;
    rc = sm_engine_call_life(e, m, &reply, err);
    set->n_pages = e->n_pages;
    if (!rc && reply.pages && reply.pages != e->n_pages)
        rc = sm_error_set(
            err, SM_EPROTOCOL, "the VM's machine tells of pages that it does not have");
    if (!rc && reply.pages)
        rc = read_pages(sheet, e->n_pages, set, err);
    if (!rc)
        *out = sm_steal_ptr(&set);
    return rc;
}

/* ---- streams --------------------------------------------------------------------------------- */

int sm_engine_accept(
    struct sm_engine *e, struct sm_wait *wait, int *fd, uint64_t *came_ns, sm_error *err)
{
    for (;;) {
        struct pollfd fds[2] = {
            {.fd = e->agent_fd, .events = POLLIN}, /* it speaks first */
            {.fd = e->ended, .events = POLLIN},
        };
        int n = poll(fds, 2, sm_wait_slice(wait));
        if (n < 0 && errno != EINTR)
            return sm_error_errno(err, errno, "cannot wait for the VM");
        if (n > 0 && fds[0].revents & POLLIN)
            break;
        if (n > 0)
            return sm_error_set(err, SM_EGUEST, "the machine has ended");
        if (n == 0 && sm_wait_over(wait))
            return sm_wait_failed(wait, err, "the agent in the VM was not ready");
    }
    *fd = sm_steal_fd(&e->agent_fd);
    *came_ns = sm_now_ns();
    return 0;
}

int sm_engine_connect(struct sm_engine *e, uint32_t port, int *fd, sm_error *err)
{
    const struct sm_machine_stream s = {
        .kind = SM_STREAM_BRIDGE, .target = {.port = port, .timeout_ms = ACCEPT_MS}};
    int ends[2];
    int rc = make_pair(SOCK_STREAM, ends, err);
    if (rc)
        return rc;
    rc = sm_record_send_now(e->streams, &s, sizeof(s), &ends[1], 1);
    sm_close(ends[1]);
    if (rc) {
        sm_close(ends[0]);
        if (rc == -EAGAIN)
            return sm_error_set(err, SM_ELIMIT,
                "too many connections wait for the VM, which stands still or is very busy");
        return rc == -EPIPE ? sm_error_set(err, SM_EGUEST, "the machine has ended")
                            : sm_error_errno(err, -rc, "cannot make a connection to the VM");
    }
    *fd = ends[0];
    return 0;
}

void sm_engine_end_streams(struct sm_engine *e)
{
    ask(e, SM_CALL_END_STREAMS, 0, NULL, NULL);
}

void sm_engine_wait_quiet(struct sm_engine *e, struct sm_wait *wait)
{
    ask(e, SM_CALL_QUIET, (uint32_t)sm_wait_slice(wait), NULL, NULL);
}

/* ---- its life -------------------------------------------------------------------------------- */

int sm_engine_wait(struct sm_engine *e, struct sm_wait *wait, enum sm_vm_end *how, sm_error *err)
{
    struct pollfd end = {.fd = e->ended, .events = POLLIN};
    enum sm_vm_end unread;
    for (;;) {
        int n = poll(&end, 1, sm_wait_slice(wait));
        if (n > 0)
            break;
        if (n < 0 && errno != EINTR)
            return sm_error_errno(err, errno, "cannot wait for the VM");
        if (n == 0 && sm_wait_over(wait))
            return sm_error_set(err, SM_ETIMEOUT, "the machine still runs");
    }
    read_end(e, how ? how : &unread, err);
    return 0;
}

int sm_engine_end_fd(const struct sm_engine *e)
{
    return e->ended;
}

bool sm_engine_has_halted(struct sm_engine *e)
{
    struct sm_machine_reply reply = {.rc = 0};
    return ask(e, SM_CALL_HALTED, 0, &reply, NULL) == 0 && reply.yes;
}

/* In order, unless that takes too long, or somebody waits for an answer already. */
static bool end_in_order(struct sm_engine *e)
{
    struct sm_machine_reply reply;
    struct pollfd ended = {.fd = e->end, .events = POLLIN};
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_KILL, NULL);
    int64_t deadline = sm_deadline(KILL_MS);
    int busy;
    while ((busy = pthread_mutex_trylock(&e->quick.lock)) && sm_deadline_left(deadline))
        poll(NULL, 0, KILL_POLL_MS);
    if (busy)
        return false;
    int rc = m ? exchange(e, &e->quick, m, &reply, KILL_MS, NULL) : -SM_ENOMEM;
    pthread_mutex_unlock(&e->quick.lock);
    return rc == 0 && poll(&ended, 1, 0) == 1; /* it tells its end before it answers */
}

void sm_engine_kill(struct sm_engine *e)
{
    atomic_store(&e->killed, true);
    if (e->pidfd >= 0 && !end_in_order(e))
        sm_spawn_kill(e->pidfd);
}

int sm_engine_pause(struct sm_engine *e, sm_error *err)
{
    return ask(e, SM_CALL_PAUSE, 0, NULL, err);
}

int sm_engine_resume(struct sm_engine *e, sm_error *err)
{
    return ask(e, SM_CALL_RESUME, 0, NULL, err);
}

bool sm_engine_is_paused(struct sm_engine *e)
{
    struct sm_machine_reply reply = {.rc = 0};
    return ask(e, SM_CALL_IS_PAUSED, 0, &reply, NULL) == 0 && reply.yes;
}

const struct sm_guest_clock *sm_engine_clock(struct sm_engine *e)
{
    return e ? &e->clock : NULL;
}

/* ---- looking at it --------------------------------------------------------------------------- */

size_t sm_engine_console(const struct sm_engine *engine, char *buf, size_t size)
{
    struct sm_engine *e = (struct sm_engine *)(uintptr_t)engine;
    auto_fd sheet = -1;
    auto_free struct sm_machine_message *m = sm_engine_message(SM_CALL_CONSOLE, NULL);
    struct sm_machine_reply reply;
    if (size)
        *buf = '\0';
    if (!m || make_sheet(&sheet, NULL))
        return 0;
    m->request.size = (uint32_t)SM_MIN(size, (size_t)CONSOLE_MAX);
    m->fds[m->n_fds++] = sheet;
    if (sm_engine_call_quick(e, m, &reply, NULL) || reply.console > CONSOLE_MAX)
        return 0;
    ssize_t n = size ? pread(sheet, buf, size - 1, 0) : 0;
    if (size)
        buf[n > 0 ? n : 0] = '\0';
    return reply.console;
}

void sm_engine_last_lines(const struct sm_engine *e, char *buf, size_t size)
{
    struct sm_machine_reply reply;
    *buf = '\0';
    if (ask(e, SM_CALL_LAST_LINES, (uint32_t)size, &reply, NULL) == 0)
        snprintf(buf, size, "%s", reply.text);
    sm_text_clean(buf, true);
}

/* Of one that does not answer any more: as they were told last. */
void sm_engine_get_counters(const struct sm_engine *engine, sm_vm_counters *counters)
{
    struct sm_engine *e = (struct sm_engine *)(uintptr_t)engine;
    struct sm_machine_reply reply;
    int rc = ask(e, SM_CALL_COUNTERS, 0, &reply, NULL);
    pthread_mutex_lock(&e->lock);
    if (!rc)
        e->counters = reply.counters;
    *counters = e->counters;
    pthread_mutex_unlock(&e->lock);
}

void sm_engine_get_timing(const struct sm_engine *e, struct sm_engine_timing *timing)
{
    struct sm_machine_reply reply;
    *timing = (struct sm_engine_timing){0};
    if (ask(e, SM_CALL_TIMING, 0, &reply, NULL))
        return;
    const struct sm_machine_timing_reply *t = &reply.timing;
    *timing = (struct sm_engine_timing){
        .created_ns = t->created_ns,
        .loaded_ns = t->loaded_ns,
        .entered_ns = t->entered_ns,
        .ram_map_us = t->ram_map_us,
        .vcpu_restore_us = t->vcpu_restore_us,
        .irqchip_restore_us = t->irqchip_restore_us,
        .clock_us = t->clock_us,
        .device_restore_us = t->device_restore_us,
    };
}
