/* Baking. See bake.h. */
#include "vm/bake.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "image/verify.h"
#include "snapshot/cache.h"
#include "snapshot/reader.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/guest_wait.h"
#include "vm/bring_up.h"
#include "vm/capture.h"
#include "vm/command.h"
#include "vm/exec.h"
#include "vm/hot.h"
#include "vm/ports.h"
#include "vm/snapshots.h"

#define IDLE_QUIET_MS    100
#define BOOTED_SETTLE_MS 30000
#define STREAMS_END_MS   1000
#define DEFAULT_UNTIL_S  300
#define SETTLE_MS        2000   /* what was started may go on for ever; this long it may settle */
#define WARMUP_WAIT_MS   600000 /* of the guest's own time */

enum state { BASE, WARM, SERVICE };
static const char *const state_names[] = {[BASE] = "base", [WARM] = "warm", [SERVICE] = "service"};
#define N_STATES 3

struct bake {
    sm_image *image;
    struct sm_vm_plan plan; /* of the VM that is captured */
    const sm_bake_options *options;
    struct sm_snapshot_cache *cache;
    char keys[N_STATES][SM_BAKE_KEY_SIZE];
    char asked[33]; /* fingerprint of the options, in the note */
    char began[33]; /* fingerprint of the warm-up and its network: what warm and service share */
    bool decides;   /* where runs begin from now on */
    sm_vm *vm;      /* what is captured */
    sm_snapshot_stats *stats;
};

/* ---- keys ------------------------------------------------------------------------------------ */

static void add_text(struct sm_fingerprint *f, const char *text)
{
    sm_fingerprint_add(f, text ? text : "", text ? strlen(text) : 0);
}

static void add_list(struct sm_fingerprint *f, const char *const *list)
{
    uint64_t n = 0;
    for (; list && list[n]; n++)
        add_text(f, list[n]);
    sm_fingerprint_add(f, &n, sizeof(n));
}

static void add_strv(struct sm_fingerprint *f, const struct sm_strv *v)
{
    add_list(f, (const char *const *)v->items);
}

static void make_keys(
    struct bake *b, const struct sm_guest_files *files, const struct sm_engine *engine)
{
    const struct sm_oci_config *image = &b->image->config;
    struct sm_fingerprint f;
    sm_guest_files_fingerprint(files, &b->plan.shape, engine, &f);
    sm_bake_key(b->image, &f, b->keys[BASE]);
    add_strv(&f, &image->env);
    add_text(&f, image->user);
    add_text(&f, image->working_dir);
    sm_bake_key(b->image, &f, b->keys[WARM]);
    add_strv(&f, &image->entrypoint);
    add_strv(&f, &image->cmd);
    sm_bake_key(b->image, &f, b->keys[SERVICE]);
}

static void put_hex(const struct sm_fingerprint *f, char hex[33])
{
    uint8_t bytes[16];
    sm_fingerprint_bytes(f, bytes);
    for (int i = 0; i < 16; i++)
        snprintf(hex + 2 * i, 3, "%02x", bytes[i]);
}

static void note_asked(struct bake *b)
{
    const sm_bake_options *o = b->options;
    const uint64_t until[] = {o->until, o->until == SM_BAKE_SECONDS ? o->seconds : 0};
    struct sm_fingerprint f;
    sm_fingerprint_init(&f);
    add_list(&f, o->warmup);
    add_text(&f, b->plan.network.plug);
    add_text(&f, b->plan.network.egress);
    put_hex(&f, b->began);
    sm_fingerprint_add(&f, until, sizeof(until));
    put_hex(&f, b->asked);
}

static int find(const struct bake *b, enum state state, char **path, sm_error *err)
{
    return sm_snapshot_cache_find(b->cache, b->keys[state], path, err);
}

static int target(const struct bake *b, enum state state, char **path, sm_error *err)
{
    return sm_snapshot_cache_path(b->cache, b->keys[state], path, err);
}

static bool fits(const char *noted, const char *wanted)
{
    return !wanted || (noted && strcmp(noted, wanted) == 0);
}

/* Whether there is one, and its note says so; NULL: whatever it says. */
static bool is_noted(const struct bake *b, enum state state, const char *asked, const char *began)
{
    auto_free char *path = NULL;
    auto_fd fd = -1;
    auto_snapshot s = NULL;
    if (target(b, state, &path, NULL) || sm_snapshot_open(path, &fd, NULL) ||
        sm_snapshot_load_meta(fd, path, &s, NULL))
        return false;
    struct sm_note note;
    sm_note_read(&note, s->note);
    bool same = fits(note.asked, asked) && fits(note.began, began);
    sm_note_clear(&note);
    return same;
}

/* Is there one, and of what is asked for now? */
static bool is_there(const struct bake *b, enum state state)
{
    auto_free char *path = NULL;
    return find(b, state, &path, NULL) == 0 &&
           (state == BASE || is_noted(b, state, b->asked, NULL));
}

static void say(const struct bake *b, const char *what)
{
    const struct sm_vm_events *events = &b->plan.events;
    if (events->progress)
        events->progress(events->progress_arg, &(sm_progress){.what = what});
}

/* ---- the guest ------------------------------------------------------------------------------- */

static int wait_idle(sm_vm *vm, uint32_t timeout_ms, sm_error *err)
{
    const struct sm_wire_wait_idle idle = {.quiet_ms = IDLE_QUIET_MS, .timeout_ms = timeout_ms};
    struct sm_guest_wait w;
    sm_vm_begin_wait(vm, &w, timeout_ms);
    int rc = sm_vm_ask(vm, SM_WIRE_WAIT_IDLE, &idle, SM_WIRE_OK, NULL, &w.wait, err);
    return rc ? sm_error_prefix(err, rc, "the VM does not become idle") : 0;
}

/* A guest that has nothing to do makes the best snapshot. One that a busy host keeps from getting
 * there is captured as it is: what it was doing goes on in every restore. */
static void settle(struct bake *b, uint32_t timeout_ms)
{
    wait_idle(b->vm, timeout_ms, NULL);
}

static int wait_for_warmup(struct bake *b, sm_exec *exec, sm_exec_result *result, sm_error *err)
{
    struct sm_guest_wait w;
    sm_guest_wait_begin(&w, sm_engine_clock(b->vm->engine), WARMUP_WAIT_MS);
    int rc = sm_exec_await(exec, &w.wait, result, err);
    return rc == -SM_ETIMEOUT ? sm_wait_failed(&w.wait, err, "it did not end") : rc;
}

static int run_warmup(struct bake *b, sm_error *err)
{
    say(b, "warming up");
    sm_exec *exec;
    sm_exec_result result;
    const sm_exec_config config = {.argv = b->options->warmup};
    int rc = sm_vm_exec(b->vm, &config, &exec, err);
    if (!rc) {
        rc = wait_for_warmup(b, exec, &result, err);
        sm_vm_end_exec(exec);
    }
    if (rc)
        return sm_error_prefix(err, rc, "the warm-up command '%.100s'", b->options->warmup[0]);
    if (result.signal)
        return sm_error_set(err, SM_EGUEST, "the warm-up command '%.100s' was ended by signal %d",
            b->options->warmup[0], result.signal);
    if (result.exit_code)
        return sm_error_set(err, SM_EGUEST, "the warm-up command '%.100s' ended with exit code %d",
            b->options->warmup[0], result.exit_code);
    return 0;
}

/* Starts the image's own command so that it outlives its connection, and notes it. */
static int start_command(struct bake *b, struct sm_note *note, sm_error *err)
{
    static const sm_exec_config config;
    auto_command command = {0};
    struct sm_wire_started started;
    struct sm_guest_wait w;
    bool systemd;
    int rc = sm_command_describe(&b->image->config, &config, &command, err);
    if (!rc)
        rc = sm_command_be_first(&config, &command, &systemd, err);
    if (!rc)
        rc = sm_command_stop_signal(&b->image->config, &config, systemd, &note->stop_signal, err);
    if (rc)
        return rc;
    command.wire.flags |= SM_WIRE_EXEC_DETACH | SM_WIRE_EXEC_STDOUT | SM_WIRE_EXEC_STDERR;
    sm_vm_begin_wait(b->vm, &w, 0);
    rc = sm_vm_ask(b->vm, SM_WIRE_EXEC, &command.wire, SM_WIRE_STARTED, &started, &w.wait, err);
    if (!rc)
        note->pid = started.pid;
    return rc;
}

static int wait_for_listener(sm_vm *vm, uint32_t timeout_ms, sm_error *err)
{
    const struct sm_wire_wait_listen listen = {.timeout_ms = timeout_ms};
    struct sm_wire_sockets sockets;
    struct sm_guest_wait w;
    sm_vm_begin_wait(vm, &w, timeout_ms);
    int rc = sm_vm_ask(vm, SM_WIRE_WAIT_LISTEN, &listen, SM_WIRE_SOCKETS, &sockets, &w.wait, err);
    return rc ? sm_error_prefix(err, rc, "the image's command does not listen") : 0;
}

/* The guest runs for so long; that it ends meanwhile is the failure. */
static int let_run(sm_vm *vm, unsigned seconds, sm_error *err)
{
    struct sm_wait wait = sm_wait_ms(seconds * INT64_C(1000));
    return sm_engine_wait(vm->engine, &wait, NULL, err) == 0 ? -SM_EGUEST : 0;
}

/* Starts the image's own command, and waits as asked for. */
static int start_service(struct bake *b, struct sm_note *note, sm_error *err)
{
    say(b, "starting the image's command");
    uint32_t seconds = b->options->seconds ? b->options->seconds : DEFAULT_UNTIL_S;
    int rc = start_command(b, note, err);
    if (rc)
        return rc;
    switch (b->options->until) {
    case SM_BAKE_SECONDS:
        return let_run(b->vm, b->options->seconds, err);
    case SM_BAKE_LISTENING:
        rc = wait_for_listener(b->vm, seconds * 1000, err);
        if (!rc)
            settle(b, SETTLE_MS);
        return rc;
    default:
        return wait_idle(b->vm, seconds * 1000, err);
    }
}

/* ---- capturing ------------------------------------------------------------------------------- */

/* Stops the guest and copies what is to be written. */
static int capture(struct bake *b, enum state state, struct sm_note note, bool delta,
    struct sm_capture *capture, sm_error *err)
{
    note.state = state_names[state];
    /* What runs in it ran under this policy, and shall never get a wider one; in the base nothing
     * runs. */
    if (state != BASE) {
        note.egress = b->vm->egress;
        note.asked = b->asked;
        note.began = b->began;
    }
    /* A stream that is still being closed would cost every restore a reset of the guest's
     * connections. */
    struct sm_wait quiet = sm_wait_ms(STREAMS_END_MS);
    sm_engine_wait_quiet(b->vm->engine, &quiet);
    return sm_capture_take(capture, b->vm, &note, delta, err);
}

/* Boots, and captures the base; the file is being written when this returns. */
static int boot_and_capture(struct bake *b, struct sm_capture *base, sm_error *err)
{
    say(b, "booting once to bake a snapshot");
    auto_free char *path = NULL;
    int rc = sm_vm_new(b->image, &b->plan, sm_now_ns(), &b->vm, err);
    if (!rc)
        rc = sm_vm_boot(b->vm, &b->plan, err);
    if (!rc)
        rc = sm_vm_freeze(b->vm, err); /* nobody runs; but the guest makes ready for a capture */
    if (!rc)
        settle(b, BOOTED_SETTLE_MS);
    if (!rc)
        rc = target(b, BASE, &path, err);
    if (!rc)
        rc = capture(b, BASE, (struct sm_note){0}, false, base, err);
    if (!rc)
        rc = sm_capture_write(base, path, -1, err);
    return rc;
}

/* The base is there: what is made on top of it is made in a VM restored from it, so that only what
 * changed has to be looked at. */
static int restore_base(struct bake *b, const char *path, sm_error *err)
{
    int rc = sm_vm_new(b->image, &b->plan, sm_now_ns(), &b->vm, err);
    return rc ? rc : sm_vm_restore(b->vm, &b->plan, path, err);
}

static int make_state(struct bake *b, enum state state, struct sm_note *note, sm_error *err)
{
    int rc = b->options->warmup ? run_warmup(b, err) : 0;
    if (rc)
        return rc;
    if (state == SERVICE)
        return start_service(b, note, err);
    settle(b, SETTLE_MS);
    return 0;
}

static int capture_top(
    struct bake *b, enum state state, struct sm_note note, bool delta, sm_error *err)
{
    auto_free char *base_path = NULL;
    auto_free char *path = NULL;
    auto_fd base_fd = -1;
    struct sm_capture top = SM_CAPTURE_NONE;
    int rc = find(b, BASE, &base_path, err);
    if (!rc)
        rc = sm_snapshot_open(base_path, &base_fd, err);
    if (!rc)
        rc = target(b, state, &path, err);
    if (!rc)
        rc = sm_vm_freeze(b->vm, err);
    if (!rc)
        rc = sm_capture_listeners(&top, b->vm, err);
    if (!rc)
        rc = capture(b, state, note, delta, &top, err);
    if (!rc) {
        say(b, "writing the snapshot");
        rc = sm_capture_write(&top, path, base_fd, err);
    }
    if (!rc)
        rc = sm_capture_finish(&top, b->stats, err);
    sm_capture_clear(&top);
    return rc;
}

/* Tries a start, for what it writes (hot.h). What goes wrong with it takes nothing but time from
 * later ones. */
static void try_start(struct bake *b, enum state state)
{
    const struct sm_wire_exec exec = {
        .flags =
            SM_WIRE_EXEC_FIRST | SM_WIRE_EXEC_TRIAL | SM_WIRE_EXEC_STDOUT | SM_WIRE_EXEC_STDERR,
        .argv = {.strv = (const char *const[]){"true", NULL}},
    };
    auto_free char *path = NULL;
    struct sm_channel channel;
    struct sm_guest_wait w;
    if (target(b, state, &path, NULL) || sm_vm_new(b->image, &b->plan, sm_now_ns(), &b->vm, NULL))
        return;
    int rc = sm_vm_restore(b->vm, &b->plan, path, NULL);
    sm_vm_begin_wait(b->vm, &w, 0);
    if (!rc && !(rc = sm_vm_channel(b->vm, &channel, NULL))) {
        rc = sm_channel_ask(&channel, SM_WIRE_EXEC, &exec, SM_WIRE_STARTED,
            &(struct sm_wire_started){0}, &w.wait, NULL);
        if (!rc)
            rc =
                sm_channel_expect(&channel, SM_WIRE_EXIT, &(struct sm_wire_exit){0}, &w.wait, NULL);
        sm_channel_close(&channel);
    }
    if (!rc)
        sm_hot_note(b->vm->engine, path, NULL);
    sm_vm_free(b->vm);
    b->vm = NULL;
}

/* Under the lock. */
static int bake(struct bake *b, enum state state, sm_error *err)
{
    auto_free char *base_path = NULL;
    struct sm_capture base = SM_CAPTURE_NONE;
    struct sm_note note = {0};
    int rc = sm_imgstore_verify(b->image->store, &b->image->info, err);
    if (rc)
        return rc;
    bool restored = state != BASE && find(b, BASE, &base_path, NULL) == 0;
    rc = restored ? restore_base(b, base_path, err) : boot_and_capture(b, &base, err);
    if (!rc && state != BASE && !restored)
        rc = sm_capture_resume(&base, err);
    if (!rc && state != BASE)
        rc = make_state(b, state, &note, err); /* while the base is written */
    if (!rc && !restored)
        rc = sm_capture_finish(&base, state == BASE ? b->stats : NULL, err);
    if (!rc && state != BASE)
        rc = capture_top(b, state, note, restored, err);
    sm_capture_clear(&base);
    sm_vm_free(b->vm);
    b->vm = NULL;
    if (!rc && state != SERVICE)
        try_start(b, state);
    return rc;
}

/* ---- finding --------------------------------------------------------------------------------- */

/* Takes away what runs would begin with instead of what was baked. Under the lock. */
static int drop_others(const struct bake *b, enum state baked, sm_error *err)
{
    int rc = 0;
    for (enum state state = WARM; !rc && state <= SERVICE; state++) {
        if (state == baked || (baked != BASE && is_noted(b, state, NULL, b->began)))
            continue;
        rc = sm_snapshot_cache_remove(b->cache, b->keys[state], err);
        if (rc == -SM_ENOTFOUND)
            rc = 0;
    }
    return rc;
}

/* Makes the snapshot under the lock, unless somebody has made it meanwhile. */
static int bake_locked(struct bake *b, enum state state, bool *baked, sm_error *err)
{
    struct sm_snapshot_lock *lock;
    int rc = sm_snapshot_cache_lock(b->cache, b->keys[BASE], 0, &lock, err);
    if (rc == -SM_EBUSY) {
        /* What it waits for is bounded by its guest's time; its lock ends with it. */
        say(b, "waiting for another bake");
        rc = sm_snapshot_cache_lock(b->cache, b->keys[BASE], -1, &lock, err);
    }
    if (rc)
        return rc;
    *baked = b->options->again || !is_there(b, state);
    if (*baked) {
        rc = bake(b, state, err);
        if (rc)
            rc = sm_error_prefix(err, rc, "baking '%s'", b->image->info.source);
    }
    if (!rc && b->decides)
        rc = drop_others(b, state, err);
    sm_snapshot_cache_unlock(lock);
    return rc;
}

static int find_keys(struct bake *b, sm_error *err)
{
    struct sm_guest_files files;
    struct sm_engine *engine;
    int rc = sm_guest_files_find(&files, b->image, &b->plan.shape, err);
    if (rc)
        return rc;
    rc = sm_engine_open(&engine, err);
    if (!rc) {
        make_keys(b, &files, engine);
        sm_engine_close(engine);
    }
    sm_guest_files_clear(&files);
    return rc;
}

/* The VM that a snapshot is made in: of that shape, and nothing of what a VM is asked for
 * besides. */
static struct sm_vm_plan make_plan(const struct sm_bake_request *request)
{
    return (struct sm_vm_plan){
        .shape = request->shape,
        .network = {.plug = request->plug, .egress = request->egress},
        .boot_timeout_ms = request->boot_timeout_ms,
        .events = {.progress = request->progress, .progress_arg = request->progress_arg},
    };
}

int sm_bake(sm_image *image, const struct sm_bake_request *request, const sm_bake_options *options,
    bool *baked, sm_snapshot_stats *stats, sm_error *err)
{
    struct bake b = {
        .image = image,
        .plan = make_plan(request),
        .options = options,
        .stats = stats,
        .decides = true,
    };
    enum state state = b.options->until != SM_BAKE_READY ? SERVICE
                       : b.options->warmup               ? WARM
                                                         : BASE;
    bool did = false;
    int rc = state == SERVICE ? sm_command_check(&image->config, &(sm_exec_config){0}, err) : 0;
    if (!rc)
        rc = find_keys(&b, err);
    if (!rc)
        rc = sm_snapshots_open(image->store, &b.cache, err);
    if (rc)
        return rc;
    note_asked(&b);
    rc = bake_locked(&b, state, &did, err);
    sm_snapshot_cache_close(b.cache);
    if (!rc && baked)
        *baked = did;
    return rc;
}

/* The base, by the way, for who wants to restore it. */
static int bake_base(struct bake *b, sm_vm *vm, char **path, sm_error *err)
{
    uint64_t begin = sm_now_ns();
    bool baked;
    int rc = bake_locked(b, BASE, &baked, err);
    if (!rc)
        rc = find(b, BASE, path, err);
    uint64_t took = sm_now_ns() - begin;
    vm->timing.baked_us = took / 1000;
    vm->start_ns += took;
    return rc;
}

int sm_bake_find(sm_vm *vm, const struct sm_vm_plan *plan, char **path, sm_error *err)
{
    static const sm_bake_options options;
    /* Nothing runs in what may be baked here, so it needs no network of any kind. */
    const struct sm_bake_request request = {
        .shape = plan->shape,
        .boot_timeout_ms = plan->boot_timeout_ms,
        .progress = plan->events.progress,
        .progress_arg = plan->events.progress_arg,
    };
    struct bake b = {.image = vm->image, .plan = make_plan(&request), .options = &options};
    make_keys(&b, &vm->files, vm->engine);
    int rc = sm_snapshots_open(vm->image->store, &b.cache, err);
    if (rc)
        return rc;
    bool found = (plan->service && find(&b, SERVICE, path, NULL) == 0) ||
                 find(&b, WARM, path, NULL) == 0 || find(&b, BASE, path, NULL) == 0;
    if (!found)
        rc = sm_vm_try_ports(vm, &plan->network, err);
    if (!found && !rc)
        rc = bake_base(&b, vm, path, err);
    sm_snapshot_cache_close(b.cache);
    return rc;
}
