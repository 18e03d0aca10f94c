/* supermachine run: an image, a microVM, a command, its exit code. */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/control.h"
#include "cli/image_options.h"
#include "cli/memory_limit.h"
#include "cli/network.h"
#include "cli/lists.h"
#include "cli/options.h"
#include "cli/podman.h"
#include "cli/process.h"
#include "cli/progress.h"
#include "cli/signals.h"
#include "cli/terminal.h"
#include "cli/vm_options.h"
#include "util/bytes.h"
#include "util/clock.h"

#define STOP_TIMEOUT_MS 30000
#define EXIT_KILLED     (128 + SIGKILL) /* with its VM, by us */
#define EXIT_SHUT_DOWN  (128 + SIGINT)  /* as reboot(2) ends a container */

enum {
    OPT_ENV_FILE = 0x200,
    OPT_ENTRYPOINT,
    OPT_NAME,
    OPT_INIT,
    OPT_SYSTEMD,
    OPT_TIMEOUT,
    OPT_STOP_TIMEOUT,
    OPT_RM,
    OPT_TIMING,
    OPT_COLD,
    OPT_NO_AUTO_PORTS,
    OPT_SOCKET,
    OPT_LOG_CONNECTIONS,
    OPT_NETWORK,
    OPT_EGRESS,
    OPT_ALLOW,
    OPT_DENY,
    OPT_SNAPSHOT,
    OPT_ENV_HOST,
    OPT_HTTP_PROXY,
    OPT_UNSETENV,
    OPT_UNSETENV_ALL,
    OPT_GROUP_ADD,
    OPT_PRIVILEGED,
    OPT_CAP_ADD,
    OPT_CAP_DROP,
    OPT_SECURITY_OPT,
    OPT_ULIMIT,
    OPT_SYSCTL,
    OPT_UMASK,
    OPT_OOM_SCORE_ADJ,
    OPT_READ_ONLY,
    OPT_READ_ONLY_TMPFS,
    OPT_TMPFS,
    OPT_SHM_SIZE,
    OPT_STOP_SIGNAL,
    OPT_EXPOSE,
    OPT_TLS_VERIFY,
    OPT_ADD_HOST,
    OPT_DNS,
    OPT_DNS_SEARCH,
    OPT_DNS_OPTION,
};

static const struct cli_option options[] = {
    {'i', "interactive", NULL, "pass standard input to the command"},
    {'t', "tty", NULL, "give the command a terminal"},
    {'e', "env", "NAME[=VALUE]", "set an environment variable, or pass ours on"},
    {OPT_ENV_FILE, "env-file", "FILE", "set those of a file, one NAME[=VALUE] per line"},
    {OPT_ENV_HOST, "env-host", NULL, "pass on all of ours that the image does not set"},
    {OPT_HTTP_PROXY, "http-proxy", "=BOOL", "pass on those that name a proxy"},
    {OPT_UNSETENV, "unsetenv", "NAME", "leave out a variable of the image's"},
    {OPT_UNSETENV_ALL, "unsetenv-all", NULL, "leave out all of them"},
    {'w', "workdir", "DIR", "start in this directory"},
    {'u', "user", "USER[:GROUP]", "run as this user, by name or number"},
    {OPT_GROUP_ADD, "group-add", "GROUP", "give it this group, too"},
    {OPT_ENTRYPOINT, "entrypoint", "COMMAND",
        "replace the image's entrypoint; empty: none; several words: [\"A\", \"B\"]"},
    {OPT_PRIVILEGED, "privileged", NULL, "give the command all rights over its VM"},
    {OPT_CAP_ADD, "cap-add", "CAPABILITY", "give it this one, or ALL"},
    {OPT_CAP_DROP, "cap-drop", "CAPABILITY", "take this one from it, or ALL"},
    {OPT_SECURITY_OPT, "security-opt", "no-new-privileges", "set-user-ID programs give it nothing"},
    {OPT_ULIMIT, "ulimit", "NAME=SOFT[:HARD]", "set a limit, such as nofile=1024:4096; -1: none"},
    {OPT_SYSCTL, "sysctl", "NAME=VALUE", "set a parameter of the guest's kernel first"},
    {OPT_UMASK, "umask", "MASK", "start with this umask (0022)"},
    {OPT_OOM_SCORE_ADJ, "oom-score-adj", "N", "-1000 to 1000: whom the guest ends without memory"},
    {OPT_READ_ONLY, "read-only", NULL, "make / read-only; /run, /tmp and /var/tmp are in memory"},
    {OPT_READ_ONLY_TMPFS, "read-only-tmpfs", "=BOOL", "or not (true)"},
    {OPT_TMPFS, "tmpfs", "DIR[:OPTIONS]", "mount a file system in memory there"},
    {OPT_SHM_SIZE, "shm-size", "SIZE", "size of /dev/shm"},
    {OPT_STOP_SIGNAL, "stop-signal", "SIGNAL", "what a SIGTERM becomes (the image's)"},
    CLI_VM_OPTIONS,
    CLI_PULL_OPTION,
    CLI_IMAGE_OPTIONS,
    {OPT_TLS_VERIFY, "tls-verify", "=BOOL", NULL},
    {OPT_NAME, "name", "NAME", "name of the VM"},
    {'h', "hostname", "NAME", "host name in the VM (its name)"},
    {'p', "publish", "[[IP:]HOST:]GUEST[/udp]",
        "make a port of the VM reachable on this host, or a range"},
    {'P', "publish-all", NULL, "and those that are exposed, on free ports of 127.0.0.1"},
    {OPT_EXPOSE, "expose", "PORT[/udp]", "expose a port or a range that the image does not"},
    {OPT_NO_AUTO_PORTS, "no-auto-ports", NULL,
        "only those: what listens in the VM gets none by itself"},
    {OPT_SOCKET, "socket", "PATH", "a unix socket that leads to the VM's ports"},
    {OPT_LOG_CONNECTIONS, "log-connections", NULL, "print who connects to the VM's ports"},
    {OPT_NETWORK, "network", "user|none|tap:IF", "what the network card is plugged into (user)"},
    {OPT_ADD_HOST, "add-host", "NAME:ADDRESS", "add a line to the VM's /etc/hosts"},
    {OPT_DNS, "dns", "ADDRESS", "use this name server (the host's)"},
    {OPT_DNS_SEARCH, "dns-search", "DOMAIN", "look names up in this domain, too (the host's)"},
    {OPT_DNS_OPTION, "dns-option", "OPTION", "an option for resolv.conf, such as ndots:2"},
    {OPT_EGRESS, "egress", "all|public|none",
        "what the VM may connect to (all; none with --allow)"},
    {OPT_ALLOW, "allow", "TARGET",
        "and also to this address, network, name or host-loopback[:PORT]"},
    {OPT_DENY, "deny", "TARGET", "but not to this one"},
    {OPT_SYSTEMD, "systemd", "true|false|always",
        "prepare for systemd as process 1 (true: if it is)"},
    {OPT_INIT, "init", NULL, "run the command as the child of a small init"},
    {OPT_TIMEOUT, "timeout", "SECONDS", "kill the command after this time"},
    {OPT_STOP_TIMEOUT, "stop-timeout", "SECONDS", "end the VM so long after a SIGTERM (30)"},
    {OPT_RM, "rm", NULL, "remove the VM at its end (always done)"},
    {OPT_TIMING, "timing", NULL, "print on standard error how long each stage took"},
    {OPT_COLD, "cold", NULL, "boot, and restore no snapshot"},
    {OPT_SNAPSHOT, "snapshot", "FILE",
        "restore this file, which 'snapshot create' made of the image"},
    {'q', "quiet", NULL, "no progress"},
    {0},
};

struct run {
    const char *image;
    sm_image_options image_options;
    sm_vm_config vm;
    sm_exec_config exec;
    struct sm_strv env, file_env; /* what -e says goes before what a file says */
    struct sm_strv default_env, unset_env;
    struct sm_strv groups, cap_add, cap_drop, ulimits, sysctls, tmpfs, hosts;
    struct sm_strv dns, dns_search, dns_options;
    struct sm_strv entrypoint, publish, expose;
    struct cli_policy policy;
    char *policy_text, *cwd;
    int stop_timeout_ms;
    char made_up_name[16];
    bool interactive, timing, quiet, env_host, http_proxy;
};

static uint64_t now_us(void)
{
    return sm_now_ns() / 1000;
}

static const struct cli_setting settings[] = {
    {CLI_SETS_FLAG('i', struct run, interactive)},
    {CLI_SETS_FLAG(OPT_TIMING, struct run, timing)},
    {CLI_SETS_FLAG(OPT_ENV_HOST, struct run, env_host)},
    {CLI_SETS_FLAG('t', struct run, exec.tty)},
    {CLI_SETS_TEXT('u', struct run, exec.user)},
    {CLI_SETS_LIST(OPT_UNSETENV, struct run, unset_env)},
    {CLI_SETS_FLAG(OPT_UNSETENV_ALL, struct run, exec.unset_all_env)},
    {CLI_SETS_WORDS(OPT_GROUP_ADD, struct run, groups)},
    {CLI_SETS_FLAG(OPT_PRIVILEGED, struct run, exec.privileged)},
    {CLI_SETS_WORDS(OPT_CAP_ADD, struct run, cap_add)},
    {CLI_SETS_WORDS(OPT_CAP_DROP, struct run, cap_drop)},
    {CLI_SETS_WORDS(OPT_ULIMIT, struct run, ulimits)},
    {CLI_SETS_WORDS(OPT_SYSCTL, struct run, sysctls)},
    {CLI_SETS_TEXT(OPT_UMASK, struct run, exec.umask)},
    {CLI_SETS_FLAG(OPT_READ_ONLY, struct run, exec.read_only)},
    {CLI_SETS_LIST(OPT_TMPFS, struct run, tmpfs)},
    {CLI_SETS_TEXT(OPT_STOP_SIGNAL, struct run, exec.stop_signal)},
    {CLI_SETS_WORDS(OPT_ADD_HOST, struct run, hosts)},
    {CLI_SETS_WORDS(OPT_DNS, struct run, dns)},
    {CLI_SETS_WORDS(OPT_DNS_SEARCH, struct run, dns_search)},
    {CLI_SETS_WORDS(OPT_DNS_OPTION, struct run, dns_options)},
    {CLI_SETS_FLAG(OPT_INIT, struct run, exec.init)},
    {CLI_SETS_TIME(OPT_TIMEOUT, struct run, exec.timeout_ms)},
    {CLI_SETS_TIME(OPT_STOP_TIMEOUT, struct run, stop_timeout_ms)},
    {CLI_SETS_TEXT(OPT_NAME, struct run, vm.name)},
    {CLI_SETS_TEXT('h', struct run, vm.hostname)},
    {CLI_SETS_FLAG(OPT_COLD, struct run, vm.cold)},
    {CLI_SETS_TEXT(OPT_SNAPSHOT, struct run, vm.snapshot)},
    {CLI_SETS_FLAG('P', struct run, vm.publish_exposed)},
    {CLI_SETS_FLAG(OPT_NO_AUTO_PORTS, struct run, vm.no_found_ports)},
    {CLI_SETS_TEXT(OPT_SOCKET, struct run, vm.socket)},
    {CLI_SETS_FLAG(OPT_LOG_CONNECTIONS, struct run, vm.log_connections)},
    {CLI_SETS_TEXT(OPT_NETWORK, struct run, vm.network)},
    {CLI_SETS_TEXT(OPT_EGRESS, struct run, policy.mode)},
    {CLI_SETS_FLAG('q', struct run, quiet)},
    {0},
};

static int take_systemd(const struct cli_command *self, const char *text, enum sm_systemd *to)
{
    static const char *const words[] = {
        [SM_SYSTEMD_AUTO] = "true",
        [SM_SYSTEMD_ALWAYS] = "always",
        [SM_SYSTEMD_NEVER] = "false",
    };
    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        if (strcmp(text, words[i]) == 0) {
            *to = (enum sm_systemd)i;
            return 0;
        }
    }
    return cli_fail_usage(self, "'--systemd %s' is not true, false or always", text);
}

/* From "/", as docker and podman have it. */
static void take_directory(struct run *run, const char *path)
{
    free(run->cwd);
    if (asprintf(&run->cwd, "%s%s", *path == '/' ? "" : "/", path) < 0)
        cli_no_memory();
    run->exec.cwd = run->cwd;
}

/* The value of one option; 0, or the exit code after a message. */
static int take_option(const struct cli_command *self, struct run *run, int id)
{
    int status;
    if (cli_take_vm_option(self, id, &run->vm, &status) ||
        cli_take_image_option(self, id, &run->image_options, &status) ||
        cli_take_setting(self, settings, id, run, &status) ||
        cli_take_podman_option(self, id, &status))
        return status;
    switch (id) {
    case 'e':
        if (!cli_env_add(&run->env, optarg))
            return cli_fail_usage(self, "'--env %s' is not NAME=VALUE or NAME", optarg);
        return 0;
    case OPT_ENV_FILE:
        return cli_env_add_file(&run->file_env, optarg);
    case 'w':
        take_directory(run, optarg);
        return 0;
    case OPT_HTTP_PROXY:
        run->http_proxy = !optarg || strcmp(optarg, "true") == 0;
        return 0;
    case OPT_ENTRYPOINT:
        cli_take_entrypoint(&run->entrypoint, optarg);
        return 0;
    case OPT_SYSTEMD:
        return take_systemd(self, optarg, &run->exec.systemd);
    case OPT_SECURITY_OPT:
        return cli_take_security_option(self, optarg, &run->exec);
    case OPT_OOM_SCORE_ADJ:
        return cli_take_oom_score(self, optarg, &run->exec);
    case OPT_READ_ONLY_TMPFS:
        run->exec.no_tmpfs = optarg && strcmp(optarg, "true") != 0;
        return 0;
    case OPT_SHM_SIZE:
        return cli_take_shm_size(self, optarg, &run->tmpfs);
    case OPT_TLS_VERIFY:
        run->image_options.insecure_registry = optarg && strcmp(optarg, "true") != 0;
        return 0;
    case OPT_EXPOSE:
        return cli_take_ports(self, "expose", optarg, &run->expose);
    case 'p':
        return cli_take_ports(self, "publish", optarg, &run->publish);
    case OPT_ALLOW:
    case OPT_DENY:
        cli_policy_rule(&run->policy, id == OPT_ALLOW, optarg);
        return 0;
    default: /* --rm */
        return 0;
    }
}

/* A flag that is said to be off, whatever was said before. */
static void take_back(struct run *run, int id)
{
    cli_unset(settings, id, run);
    if (id == OPT_INSECURE_REGISTRY)
        run->image_options.insecure_registry = false;
}

static void print_stage(const char *stage, uint64_t from, uint64_t to)
{
    if (to >= from)
        fprintf(stderr, "  %-28s %10.2f ms\n", stage, (double)(to - from) / 1e3);
}

struct stamps {
    uint64_t start, image, vm, exec, end;
};

static void print_timing(const struct stamps *at, const sm_vm *vm, const sm_exec_result *result)
{
    sm_vm_timing t;
    sm_vm_counters c;
    sm_vm_get_timing(vm, &t);
    sm_vm_get_counters(vm, &c);
    fprintf(stderr, "timing:\n");
    print_stage("image ready", at->start, at->image);
    if (t.baked_us)
        print_stage("snapshot baked", 0, t.baked_us);
    print_stage("files found", 0, t.found_us);
    print_stage("VM created", t.found_us, t.created_us);
    if (t.restored) {
        print_stage("snapshot loaded", t.created_us, t.loaded_us);
        fprintf(stderr,
            "    (RAM %llu, vCPUs %llu, interrupts %llu, clock %llu, devices %llu us)\n",
            (unsigned long long)t.ram_map_us, (unsigned long long)t.vcpu_restore_us,
            (unsigned long long)t.irqchip_restore_us, (unsigned long long)t.clock_us,
            (unsigned long long)t.device_restore_us);
    } else {
        print_stage("kernel loaded", t.created_us, t.loaded_us);
    }
    print_stage("vCPU in the guest", t.loaded_us, t.kernel_entry_us);
    print_stage("guest, until agent connects", t.kernel_entry_us, t.agent_start_us);
    print_stage("clock, entropy, identity", t.agent_start_us, t.ready_us);
    print_stage(
        t.restored ? "= restore to agent ready" : "= power-on to agent ready", 0, t.ready_us);
    print_stage("command started", at->vm, at->exec);
    print_stage("command and its output", at->exec, at->end);
    print_stage("= all", at->start, at->end);
    fprintf(
        stderr, "  %-28s %10.2f ms\n", "command, seen by the guest", (double)result->wall_us / 1e3);
    fprintf(stderr, "  guest exits %llu (mmio %llu, pio %llu, assists %llu)\n",
        (unsigned long long)c.exits, (unsigned long long)c.mmio, (unsigned long long)c.pio,
        (unsigned long long)c.assists);
    if (c.instructions)
        fprintf(stderr, "  guest instructions emulated by KVM %llu\n",
            (unsigned long long)c.instructions);
}

static int exit_code(const sm_exec_result *result)
{
    if (result->timed_out)
        return CLI_EXIT_TIMEOUT;
    return result->signal ? 128 + result->signal : result->exit_code;
}

/* Runs the command in a VM that is ready. */
static int run_command(struct run *run, sm_vm *vm, struct cli_control *control, struct stamps *at)
{
    sm_error err;
    sm_exec *exec = NULL;
    at->vm = now_us();
    cli_signals_hold(vm, run->stop_timeout_ms);
    int rc = sm_vm_take_command(vm, &exec, &err);
    if (rc) {
        if (cli_signals_release())
            return EXIT_KILLED;
        cli_fail_error(&err);
        return rc == -SM_ENOTFOUND ? CLI_EXIT_NOTFOUND
               : rc == -SM_ENOEXEC ? CLI_EXIT_NOEXEC
                                   : CLI_EXIT_FAILURE;
    }
    cli_control_attach(control, vm); /* a capture goes on with the command, so not before */
    at->exec = now_us();
    cli_signals_attach(exec, run->exec.tty);
    if (run->exec.tty && run->interactive && isatty(STDIN_FILENO))
        cli_terminal_raw(STDIN_FILENO);
    sm_exec_result result;
    rc = sm_exec_wait(exec, -1, &result, &err);
    bool killed = cli_signals_release();
    cli_terminal_restore();
    at->end = now_us();
    sm_exec_close(exec);
    enum sm_vm_end end;
    if (rc && killed)
        return EXIT_KILLED;
    if (rc && sm_vm_wait(vm, 0, &end, NULL) == 0 && end == SM_VM_POWERED_OFF) {
        cli_fail("the guest shut itself down before the command had ended");
        return EXIT_SHUT_DOWN;
    }
    if (rc)
        return cli_fail_error(&err);
    if (result.timed_out)
        cli_fail("the command was killed because --timeout was over");
    else if (result.out_of_memory)
        cli_fail("the command was killed because the VM ran out of its %llu MiB of memory; "
                 "-m gives it more",
            (unsigned long long)sm_vm_get_memory(vm) >> 20);
    if (run->timing)
        print_timing(at, vm, &result);
    return exit_code(&result);
}

/* Each connection to a port of the VM is a descriptor of ours. */
static void raise_file_limit(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}

/* The VM's name is taken before it is started. 0, or the exit code after a message. */
static int reserve_name(struct run *run, struct cli_control **control)
{
    bool taken, named = run->vm.name != NULL;
    if (!named) {
        uint32_t random = 0;
        (void)!getrandom(&random, sizeof(random), 0);
        snprintf(run->made_up_name, sizeof(run->made_up_name), "vm-%08x", random);
        run->vm.name = run->made_up_name;
    }
    *control = cli_control_reserve(run->vm.name, &taken);
    if (taken)
        return cli_fail("a VM named '%s' runs already", run->vm.name);
    if (*control || !named || errno == EINVAL) /* what is no name is told when the VM is started */
        return 0;
    if (errno == EPERM)
        return cli_fail(
            "the directory for names of VMs is not only yours; set XDG_RUNTIME_DIR to one that is");
    return cli_fail(
        "the VM cannot have the name '%s': %s; set XDG_RUNTIME_DIR to a directory where it can",
        run->vm.name, strerror(errno));
}

static int run_image(struct run *run)
{
    sm_error err;
    sm_store *store = NULL;
    sm_image *image = NULL;
    sm_vm *vm = NULL;
    struct cli_control *control = NULL;
    struct stamps at = {.start = now_us()};
    int status;
    if (!cli_signals_start())
        return cli_fail("cannot set up signals");
    raise_file_limit();
    run->image_options.progress = cli_progress(run->quiet);
    if (sm_store_open(&store, NULL, &err) ||
        sm_image_open(store, run->image, &run->image_options, &image, &err)) {
        cli_progress_end();
        status = cli_fail_error(&err);
        goto out;
    }
    cli_progress_end();
    at.image = now_us();
    /* Before a bake, which takes its time. What runs in a snapshot of the user's is not known
     * here. */
    if (!run->vm.snapshot && sm_exec_check(image, &run->exec, &err)) {
        status = cli_fail_error(&err);
        goto out;
    }
    run->exec.stdout_fd = STDOUT_FILENO;
    run->exec.stderr_fd = STDERR_FILENO;
    if (run->exec.tty)
        cli_terminal_size(&run->exec.rows, &run->exec.columns);
    run->vm.command = &run->exec;
    run->vm.progress = run->image_options.progress;
    status = reserve_name(run, &control);
    if (status)
        goto out;
    if (!run->vm.snapshot)
        cli_limit_memory(run->vm.memory_bytes);
    int rc = sm_vm_start(image, &run->vm, &vm, &err);
    cli_progress_end();
    if (rc) {
        status = cli_fail_error(&err);
        goto out;
    }
    if (run->vm.snapshot)
        cli_limit_memory_now();
    status = run_command(run, vm, control, &at);
    cli_control_attach(control, NULL);
out:
    cli_control_close(control);
    sm_vm_close(vm);
    sm_image_close(image);
    sm_store_close(store);
    return status;
}

/* A connection that was denied and the like; on a thread of the VM. */
static void print_notice(void *arg, const char *line)
{
    (void)arg;
    fprintf(stderr, "supermachine: %s\n", line);
}

/* Options that would do nothing. */
static int check_unplugged(const struct cli_command *self, const struct run *run)
{
    const char *option = run->vm.publish_exposed ? "--publish-all"
                         : run->publish.count    ? "--publish"
                         : run->policy.allows    ? "--allow"
                                                 : NULL;
    if (!option || !run->vm.network || strcmp(run->vm.network, "none") != 0)
        return 0;
    return cli_fail_usage(self, "%s needs a network; leave out --network none", option);
}

/* What the options leave when all are read: one may have been taken back. */
static void give_lists(struct run *run)
{
    sm_exec_config *exec = &run->exec;
    if (run->env_host)
        cli_env_add_all(&run->default_env);
    if (run->http_proxy)
        cli_env_add_proxies(&run->default_env);
    exec->env = (const char *const *)run->file_env.items;
    exec->default_env = (const char *const *)run->default_env.items;
    exec->unset_env = (const char *const *)run->unset_env.items;
    exec->groups = (const char *const *)run->groups.items;
    exec->cap_add = (const char *const *)run->cap_add.items;
    exec->cap_drop = (const char *const *)run->cap_drop.items;
    exec->ulimits = (const char *const *)run->ulimits.items;
    exec->sysctls = (const char *const *)run->sysctls.items;
    exec->tmpfs = (const char *const *)run->tmpfs.items;
    exec->hosts = (const char *const *)run->hosts.items;
    run->vm.dns = (const char *const *)run->dns.items;
    run->vm.dns_search = (const char *const *)run->dns_search.items;
    run->vm.dns_options = (const char *const *)run->dns_options.items;
}

static void clear(struct run *run)
{
    struct sm_strv *lists[] = {&run->env, &run->file_env, &run->default_env, &run->unset_env,
        &run->groups, &run->cap_add, &run->cap_drop, &run->ulimits, &run->sysctls, &run->tmpfs,
        &run->hosts, &run->dns, &run->dns_search, &run->dns_options, &run->entrypoint,
        &run->publish, &run->expose, &run->policy.rules};
    for (size_t i = 0; i < SM_ARRAY_LEN(lists); i++)
        sm_strv_clear(lists[i]);
    free(run->policy_text);
    free(run->cwd);
}

/* With nothing else asked for, the image's own command may be running in the snapshot already; in
 * a file of the user's it may have a terminal, and be waiting for this one. */
static bool goes_on(const struct run *run)
{
    sm_exec_config exec = run->exec;
    if (run->vm.snapshot && exec.tty) {
        exec.tty = false;
        exec.stdin_fd = SM_FD_NULL;
    }
    return sm_exec_is_default(&exec);
}

static int main_run(const struct cli_command *self, int argc, char **argv)
{
    struct run run = {.stop_timeout_ms = STOP_TIMEOUT_MS};
    int status = 0, id;
    bool off;
    while (!status && (id = cli_next_flag(self, argc, argv, &off)) != CLI_OPTIONS_END) {
        if (id < 0) {
            status = cli_options_exit(id);
            goto out;
        }
        if (off)
            take_back(&run, id);
        else
            status = take_option(self, &run, id);
    }
    if (status)
        goto out;
    if (optind == argc) {
        status = cli_fail_usage(self, "which image?");
        goto out;
    }
    run.image = argv[optind++];
    if (optind < argc)
        run.exec.args = (const char *const *)(argv + optind);
    for (size_t i = 0; i < run.env.count; i++)
        cli_list_add(&run.file_env, run.env.items[i]);
    for (size_t i = 0; run.vm.publish_exposed && i < run.expose.count; i++)
        cli_list_add(&run.publish, run.expose.items[i]);
    give_lists(&run);
    run.vm.publish = (const char *const *)run.publish.items;
    run.vm.egress = run.policy_text = cli_policy_text(&run.policy);
    status = check_unplugged(self, &run);
    if (status)
        goto out;
    run.vm.count_instructions = run.timing;
    run.vm.notice = print_notice;
    /* For people; a command's own screen is left alone. */
    run.vm.log_ports = isatty(STDERR_FILENO) && !run.quiet && !run.exec.tty;
    if (run.entrypoint.count) {
        static const char *const none[] = {NULL};
        /* Several of which the first is empty are no command, which is told. */
        run.exec.entrypoint = *run.entrypoint.items[0] || run.entrypoint.count > 1
                                  ? (const char *const *)run.entrypoint.items
                                  : none;
    }
    run.exec.stdin_fd = run.interactive ? SM_FD_STDIN : SM_FD_NULL;
    run.vm.service = goes_on(&run);
    status = run_image(&run);
out:
    clear(&run);
    return status;
}

const struct cli_command cli_run = {
    .name = "run",
    .synopsis = "IMAGE [COMMAND [ARG...]]",
    .summary = "Run a command in a new microVM.",
    .notes =
        "IMAGE is oci:DIR[:REF], oci-archive:FILE[:REF], docker-archive:FILE[:REF] (FILE may be -: the\n"
        "standard input, which the command then finds at its end), an image of\n"
        "'supermachine image ls', or a registry's [HOST/]NAME[:TAG][@DIGEST]. Without COMMAND the\n"
        "image's own command is run.\n"
        "\n"
        "From a --snapshot what ran in it goes on, seen as it is, or by its terminal with -it;\n"
        "with a COMMAND or other options that runs beside it.\n"
        "\n"
        "The first run boots once and bakes a snapshot; from then on runs restore it in\n"
        "milliseconds.\n"
        "\n"
        "IF is IFNAME[,ip=ADDRESS/LENGTH][,gw=ADDRESS][,ip6=..][,gw6=..][,mac=MAC][,dns=ADDRESS]...: a tap\n"
        "interface of this host; the guest has 10.0.2.15/24 and the gateway 10.0.2.2 unless\n"
        "others are given.\n"
        "\n"
        "Ends with the exit code of the command; 128 + N when signal N ended it; 124 when\n"
        "--timeout was over; 125 when supermachine failed; 126 when the command cannot be\n"
        "invoked; 127 when there is no such command. SIGTERM reaches the command as the image's\n"
        "stop signal; other signals as they are. What runs on --stop-timeout after a SIGTERM, or\n"
        "at the third request to end within ten seconds, is ended with its VM: 137. 130 also when\n"
        "the guest shut itself down.\n",
    .options = options,
    .also = cli_podman_options,
    .run = main_run,
};
