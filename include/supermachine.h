/*
 * libsupermachine: run OCI images as hardware-isolated microVMs.
 *
 *     sm_error err;
 *     sm_store *store = NULL; sm_image *image = NULL; sm_vm *vm = NULL; sm_exec *exec = NULL;
 *     sm_exec_result result;
 *     const char *argv[] = {"uname", "-a", NULL};
 *     if (sm_store_open(&store, NULL, &err) ||
 *         sm_image_open(store, "oci:demo", NULL, &image, &err) ||
 *         sm_vm_start(image, NULL, &vm, &err) ||
 *         sm_exec_start(vm, &(sm_exec_config){.argv = argv, .stdout_fd = 1}, &exec, &err) ||
 *         sm_exec_wait(exec, -1, &result, &err))
 *             fprintf(stderr, "%s\n", err.message);
 *     sm_exec_close(exec); sm_vm_close(vm); sm_image_close(image); sm_store_close(store);
 *
 * Rules that hold for every function:
 * - It returns 0, or a negative enum sm_code and fills *err (which may be NULL). On failure no out
 *   parameter is written and nothing is left behind. Any function may fail with SM_ENOMEM, and one
 *   that touches files with SM_EIO, SM_EPERM, SM_ENOSPC or SM_ELIMIT; what else a caller may want
 *   to tell apart is said at the function. What needs the guest fails with SM_EGUEST once that has
 *   ended.
 * - The library never prints, never exits, keeps no global state and installs no signal handler
 *   that replaces one of the caller's (vCPU threads are woken by a signal that only they unblock).
 * - Objects may be used from several threads at once, unless said otherwise; *_close must be the
 *   last call on an object and accepts NULL. A child object must be closed before its parent: execs
 *   before their VM, VMs before their image, images before their store. No object survives a fork.
 * - A callback is called on the thread that called the library, before that call returns, unless
 *   said otherwise; what it is given lives as long as its call. It may use the library, but not
 *   close the object.
 * - A configuration structure that is all zero (or a NULL pointer to it) means "the defaults".
 * - Strings and structures that are passed in are copied. Strings that are returned belong to the
 *   object that returned them and live as long as it does; what is malloc'ed is said to be, and is
 *   the caller's to free.
 * - Descriptors that are passed in stay the caller's; those that are given are close-on-exec.
 * - Sizes are in bytes. Timeouts are in milliseconds by the clock; negative means "no limit of
 *   mine" (internal bounds still hold, which go by the guest's own time on a busy host).
 */
#ifndef SUPERMACHINE_H
#define SUPERMACHINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SM_API __attribute__((visibility("default")))

/* ---- errors ------------------------------------------------------------------------------- */

enum sm_code {
    SM_OK = 0,
    SM_EINVAL,       /* a value the caller passed makes no sense */
    SM_ENOTFOUND,    /* image, file, command, VM: not there */
    SM_EEXIST,       /* there already */
    SM_EPERM,        /* the system does not let us */
    SM_EBUSY,        /* in use by somebody else */
    SM_ENOMEM,       /* host memory */
    SM_ENOSPC,       /* disk full or quota reached */
    SM_EIO,          /* the system failed at reading or writing */
    SM_ETIMEOUT,     /* a bound on waiting was reached */
    SM_EUNSUPPORTED, /* understood, but not possible here */
    SM_ECORRUPT,     /* data does not match its digest, length or format */
    SM_ELIMIT,       /* input exceeds a bound that protects the host */
    SM_EHYPERVISOR,  /* /dev/kvm is missing, unusable or failed */
    SM_EGUEST,       /* the guest failed: panic, triple fault, agent lost */
    SM_EPROTOCOL,    /* the agent or the registry broke the protocol */
    SM_ECANCELLED,   /* the caller asked for it */
    SM_ENOEXEC,      /* the command is there but cannot be executed */
    SM_ENETWORK,     /* a network peer could not be reached or failed */
};

typedef struct sm_error {
    enum sm_code code;
    int sys_errno;      /* errno behind it, 0 where there is none */
    char message[1024]; /* one sentence: what failed, on what, what to do; after it, where a guest
                         * kernel died, the end of its console on lines of their own */
} sm_error;

/* Version of the library, "MAJOR.MINOR.PATCH"; a constant. */
SM_API const char *sm_version(void);

/* ---- progress ----------------------------------------------------------------------------- */

/* Told of what takes time: of the whole, and, while layers are downloaded, of each of them. */
typedef struct sm_progress {
    /* a short phrase, as "unpacking layer 2 of 3"; of a layer: its digest, shortened */
    const char *what;
    uint64_t done, total;   /* bytes; total 0: unknown */
    unsigned layer, layers; /* which layer of how many, from 1 on; 0: it is about the whole */
} sm_progress;

/* Called some ten times a second at most. */
typedef void sm_progress_fn(void *arg, const sm_progress *progress);

/* ---- store -------------------------------------------------------------------------------- */

typedef struct sm_store sm_store;

/* Opens (and creates, mode 0700) the store at `dir`; NULL means $XDG_DATA_HOME/supermachine, or
 * ~/.local/share/supermachine. Several processes may have one store open. SM_EPERM: it is another
 * user's, or others may write into it. */
SM_API int sm_store_open(sm_store **store, const char *dir, sm_error *err);
SM_API void sm_store_close(sm_store *store);

/* ---- images ------------------------------------------------------------------------------- */

typedef struct sm_image sm_image;

/* When a registry is asked for an image that is named without a digest. */
enum sm_pull_policy {
    SM_PULL_MISSING = 0, /* when the store has no image of the name */
    SM_PULL_ALWAYS,      /* whether the name has moved */
    SM_PULL_NEVER,
};

typedef struct sm_image_options {
    const char *platform;     /* "linux/amd64[/variant]"; NULL: the host's */
    sm_progress_fn *progress; /* NULL: silent */
    void *progress_arg;
    enum sm_pull_policy pull;
    const char *tls_ca;     /* PEM file of a CA that registries may use; NULL: the system's CAs */
    const char *authfile;   /* credentials; NULL: where container tools keep them */
    bool insecure_registry; /* plain HTTP and TLS without verification will do */
    int cancel_fd; /* when it can be read, getting the image ends with SM_ECANCELLED; 0: none */
} sm_image_options;

/* Makes the image `reference` ready to run: finds it in the store, or gets it and builds its root
 * filesystem. References: "oci:DIR[:REF]", "oci-archive:FILE[:REF]", "docker-archive:FILE[:REF]",
 * where FILE may be "-", the standard input of this process; a registry's
 * "[HOST/]NAME[:TAG][@DIGEST]", read as container tools do; the digest or unique digest prefix of
 * an image in the store. SM_ENOTFOUND: there is no such image; SM_EINVAL: no such reference;
 * SM_ENETWORK and SM_EPROTOCOL: a registry's fault; SM_ECORRUPT: the image's; SM_EUNSUPPORTED: of
 * another platform, or of a kind that is not known; SM_ECANCELLED. The image stays in the store at
 * least until it is closed. */
SM_API int sm_image_open(sm_store *store, const char *reference, const sm_image_options *options,
    sm_image **image, sm_error *err);
SM_API void sm_image_close(sm_image *image);
SM_API const char *sm_image_digest(const sm_image *image); /* manifest digest, "sha256:..." */
SM_API const char *sm_image_config(const sm_image *image); /* OCI image config, JSON text */
SM_API const char *sm_image_rootfs(const sm_image *image); /* path of the ext4 file */

/* One image of the store. */
typedef struct sm_store_image {
    const char *const *names; /* that lead to it, NULL at the end; may be empty */
    const char *digest;       /* of the manifest */
    const char *platform;     /* "linux/amd64" */
    const char *source;       /* the reference it was made from */
    uint64_t size_bytes;      /* of its root filesystem; the file is sparse: */
    uint64_t disk_bytes;      /* what it takes on the disk; images of the same layers share it */
    int64_t created;          /* when it was made ready, seconds since 1970 */
} sm_store_image;

typedef void sm_store_list_fn(void *arg, const sm_store_image *image);

/* Calls fn for every image of the store, newest first. */
SM_API int sm_store_list(sm_store *store, sm_store_list_fn *fn, void *arg, sm_error *err);

/* Removes a name from the store, and with the last name, or where the reference is a digest, the
 * image itself. SM_EBUSY while a VM runs from it or an sm_image is open; SM_ENOTFOUND. */
SM_API int sm_store_remove(sm_store *store, const char *reference, sm_error *err);

/* Gives the image a further name, "[HOST/]NAME[:TAG]", which another image may have had until then.
 * SM_ENOTFOUND: there is no such image; SM_EINVAL: it is no such name. */
SM_API int sm_store_tag(sm_store *store, const char *reference, const char *name, sm_error *err);

/* Reads the image's whole root filesystem and compares it with what was built. SM_ECORRUPT: it is
 * damaged, and made anew, from the layers, when the image is opened next; SM_ENOTFOUND: the store
 * does not have it. (What is cheap is compared at every sm_image_open.) */
SM_API int sm_store_verify(sm_store *store, const char *reference, sm_error *err);

/* Writes an image as an archive: oci's, or (sm_store_save_as) docker's, for older tools as well.
 * A file appears whole or not at all. The path "-" is the standard output of this process.
 * SM_ENOTFOUND: the store does not have the image; SM_EUNSUPPORTED: nor its layers, or no manifest
 * of it, as of what a docker-archive was loaded from. */
SM_API int sm_store_save(sm_store *store, const char *reference, const char *path, sm_error *err);
enum sm_archive_format { SM_ARCHIVE_OCI, SM_ARCHIVE_DOCKER };
SM_API int sm_store_save_as(sm_store *store, const char *reference, enum sm_archive_format format,
    const char *path, sm_error *err);

/* Makes all images of an archive ready under the names they have in it; *names, malloc'ed, lists
 * them (digests of those without), a line each. The path "-" is the standard input of this process.
 * SM_ENOTFOUND: there is no such file; SM_ECORRUPT: it is no archive of images. options as for
 * sm_image_open. */
SM_API int sm_store_load(sm_store *store, const char *path, const sm_image_options *options,
    char **names, sm_error *err);

/* What nothing needs: blobs of no image, root filesystems of no image, what killed processes left.
 * With `all`, images that no registry name leads to, too (they are made again when they are
 * needed). Nothing that is in use is touched. It fails when something could not be removed, after
 * it has removed the others; *result tells what it removed either way. */
typedef struct sm_prune_result {
    unsigned images, rootfs, blobs; /* removed */
    uint64_t bytes;                 /* given back to the disk */
} sm_prune_result;
SM_API int sm_store_prune_images(sm_store *store, bool all, sm_prune_result *result, sm_error *err);

/* What the store takes on the disk, as far as it can be read. */
typedef struct sm_disk_usage {
    uint64_t files, bytes; /* clones share: the sum may be more than the disk holds */
} sm_disk_usage;
typedef struct sm_store_usage {
    sm_disk_usage blobs;     /* manifests, configs and compressed layers that were pulled */
    sm_disk_usage rootfs;    /* root filesystems */
    sm_disk_usage snapshots; /* baked */
    sm_disk_usage other;     /* names, records, temporary files */
} sm_store_usage;
SM_API void sm_store_measure(sm_store *store, sm_store_usage *usage);

/* ---- registries --------------------------------------------------------------------------- */

/* Checks user and password with the registry `host` and keeps them where container tools do
 * (authfile; NULL: the user's auth.json, mode 0600). options (or NULL) gives authfile, tls_ca and
 * insecure_registry. The password goes through a file in memory to the program that uses it.
 * SM_EPERM: they are wrong; SM_ENETWORK. Logout: SM_ENOTFOUND: there are none. */
SM_API int sm_registry_login(const char *host, const char *user, const char *password,
    const sm_image_options *options, sm_error *err);
SM_API int sm_registry_logout(const char *host, const sm_image_options *options, sm_error *err);

/* ---- virtual machines --------------------------------------------------------------------- */

typedef struct sm_vm sm_vm;

/* One line for a log ("denied: TCP 10.0.0.1 port 80: private or reserved range"), text without
 * control characters. Called from threads of the VM, one at a time, until sm_vm_close returns, at
 * most a few times a second; must neither block nor use the VM. */
typedef void sm_notice_fn(void *arg, const char *line);

typedef struct sm_vm_config {
    const char *name;      /* for messages and listings; NULL: made up */
    const char *hostname;  /* NULL: the name */
    uint64_t memory_bytes; /* guest RAM, multiple of 2 MiB; 0: 256 MiB */
    unsigned vcpus;        /* 1..16; 0: 1 */
    const char *kernel; /* vmlinux or bzImage; NULL: the one that was installed with the library */
    const char *initramfs; /* the agent's cpio; NULL: the installed one */
    const char *cmdline;   /* appended to the kernel command line; NULL: nothing */
    /* wall clock, from power-on or restore to agent ready. 0: the guest is given up after 120 s of
     * its own time, in which it ran or had nothing to do, however long that takes on a busy host
     * (600 s of running where KVM has no hardware virtualisation below) */
    int boot_timeout_ms;
    bool count_instructions; /* fill in sm_vm_counters.instructions */

    /* How the VM comes to be. By default it is restored from the snapshot that was baked for this
     * image and this configuration; if there is none yet, it is baked first. */
    bool cold;            /* boot it instead */
    const char *snapshot; /* restore this file, made of the same image by sm_vm_snapshot, instead;
                               * memory and vCPUs are then those of the file, and others are
                               * refused; NULL: none */
    /* restore with the image's own command running, if it was baked so; from a file of
     * sm_vm_snapshot: go on with the command that ran in it. See sm_exec_start */
    bool service;
    sm_progress_fn *progress; /* of baking; NULL: silent */
    void *progress_arg;
    /* "user", "none" or "tap:IFNAME[,OPTION...]" (docs/network.md); NULL: user */
    const char *network;
    /* what the guest may reach, in the form of docs/network.md; NULL: all but the host's own
     * loopback. A snapshot's policy can only become narrower. */
    const char *egress;
    const char *const *publish; /* ports as sm_vm_publish takes them, NULL-terminated; NULL: none */
    /* and those that the image's config exposes, at 127.0.0.1 and any free port */
    bool publish_exposed;
    bool no_found_ports; /* what listens in the guest gets no port of the host by itself */
    /* path of the VM's front door, a unix socket (docs/network.md), or "@NAME" in the abstract
     * namespace; NULL: none */
    const char *socket;
    bool log_ports; /* tell `notice` of ports that were found */
    /* tell it of connections to ports, with their source, at a bounded rate */
    bool log_connections;
    sm_notice_fn *notice; /* told of denied connections and the like; NULL: nobody */
    void *notice_arg;

    /* The VM's own command: process 1 of its container, so that nothing in there outlives it. It is
     * started with the VM, in one exchange; sm_vm_take_command gives it, and says whether it could
     * be started. Borrowed until then. NULL: there is none, and process 1 is a small init of
     * ours. */
    const struct sm_exec_config *command;

    /* What the guest's resolv.conf has instead of the host's; NULL: the host's. */
    const char *const *dns;         /* addresses of at most three name servers */
    const char *const *dns_search;  /* domains; "." alone: none */
    const char *const *dns_options; /* as "ndots:2" */
} sm_vm_config;

/* Why a VM ended. */
enum sm_vm_end {
    SM_VM_RUNNING = 0,
    SM_VM_POWERED_OFF,   /* the guest or sm_vm_stop ended it in order */
    SM_VM_KILLED,        /* sm_vm_close or a failed stop */
    SM_VM_PANICKED,      /* guest kernel panic */
    SM_VM_TRIPLE_FAULT,  /* the guest CPU shut down */
    SM_VM_INTERNAL_ERROR /* the hypervisor or the VMM could not go on */
};

/* Times are microseconds since sm_vm_start was called, baking not included; 0: not reached. */
typedef struct sm_vm_timing {
    bool restored;       /* from a snapshot; false: booted */
    uint64_t baked_us;   /* what baking took before that, 0 if the snapshot was there */
    uint64_t found_us;   /* the files that the VM is made of are known */
    uint64_t created_us; /* VM, memory, devices and vCPUs exist */
    uint64_t loaded_us; /* kernel, initramfs and boot data, or the snapshot's state, are in place */
    uint64_t kernel_entry_us; /* vCPU 0 entered the guest */
    uint64_t agent_start_us; /* the first word of the agent; of a restore its answer, as ready_us */
    uint64_t ready_us;       /* clock, entropy and identity are set; requests are answered */
    /* of loading a snapshot, each by itself */
    uint64_t ram_map_us, vcpu_restore_us, irqchip_restore_us, clock_us, device_restore_us;
} sm_vm_timing;

typedef struct sm_vm_counters {
    uint64_t exits;        /* KVM_RUN returns to user space, all vCPUs */
    uint64_t instructions; /* that KVM emulated: all of the guest kernel's where KVM has no hardware
                            * virtualisation below; 0: not asked for, or this KVM does not tell */
    uint64_t mmio;
    uint64_t pio;
    /* instructions completed for the kernel's emulator, see docs/architecture.md */
    uint64_t assists;
} sm_vm_counters;

/* Starts a VM from `image` and returns when its agent is ready. Before anything of the user's runs,
 * the guest has the host's wall clock, fresh entropy, and a host name and machine id of its own.
 * config may be NULL. SM_EHYPERVISOR or SM_EPERM: KVM cannot be used; SM_EINVAL: what the
 * configuration asks for makes no sense; SM_EBUSY: a port is taken; SM_EGUEST: the guest died;
 * SM_ETIMEOUT: its agent was not ready in time; SM_EUNSUPPORTED and SM_ECORRUPT: the snapshot does
 * not fit, or is damaged; SM_ELIMIT: more than 256 ports are to be published. Its own command is
 * looked at before anything is made, so it fails as sm_exec_check does, too; whether it could be
 * started sm_vm_take_command says. Ports are open before it begins: when one is taken nothing has
 * run. */
SM_API int sm_vm_start(sm_image *image, const sm_vm_config *config, sm_vm **vm, sm_error *err);

/* Asks the guest to power off and waits; after timeout_ms (negative: 30 s) it is killed, and still
 * 0 is returned. 0: it is killed without being asked. Never fails. Commands that ran end with
 * SM_EGUEST. */
SM_API int sm_vm_stop(sm_vm *vm, int timeout_ms, sm_error *err);

/* Waits until the VM has ended; SM_ETIMEOUT if it runs on after timeout_ms (0: at once). *end (may
 * be NULL) tells how it ended. */
SM_API int sm_vm_wait(sm_vm *vm, int timeout_ms, enum sm_vm_end *end, sm_error *err);

/* Ends the VM now if it still runs, and frees it. Execs of the VM must have been closed; nobody may
 * still wait in one of its functions. */
SM_API void sm_vm_close(sm_vm *vm);

/* Stops all vCPUs between two instructions, within a second, and lets them go on. A pause waits for
 * a capture that is under way (sm_vm_snapshot), as the start of a command does; no resume ends it.
 * SM_EINVAL: it is paused already, or is not; SM_ETIMEOUT: a vCPU did not stop, and all run on.
 * While it is paused, requests to the guest wait. */
SM_API int sm_vm_pause(sm_vm *vm, sm_error *err);
SM_API int sm_vm_resume(sm_vm *vm, sm_error *err);

/* These never fail and never wait, but for counters, which the machine's process is asked for: of
 * one that has died, or does not answer (for two minutes, the first time), they are those that it
 * told last. */
SM_API const char *sm_vm_name(const sm_vm *vm);
SM_API void sm_vm_get_timing(const sm_vm *vm, sm_vm_timing *timing);
SM_API void sm_vm_get_counters(const sm_vm *vm, sm_vm_counters *counters);
/* Bytes of guest RAM: what was asked for, or what its snapshot has. */
SM_API uint64_t sm_vm_get_memory(const sm_vm *vm);

/* Makes a port of the guest reachable at a port of the host: "[[IP:]HOST:]GUEST[/tcp|udp]". Without
 * IP it is 127.0.0.1; without HOST, or an empty one, any free port. For this user, and root, over
 * the host's loopback the guest's service may listen on its loopback alone; others reach what is
 * bound to any address. Open connections end with the VM. SM_EINVAL: it is no such port, or the VM
 * has no network; SM_EBUSY: the host's is taken; SM_EPERM: it is one for root. */
SM_API int sm_vm_publish(sm_vm *vm, const char *port, sm_error *err);

typedef struct sm_vm_port {
    char host_ip[46];
    uint16_t host_port, guest_port;
    bool udp;
    /* not published: something listens on it in the guest, on all addresses, and is reached at
     * 127.0.0.1 by this user and root. It goes when nothing listens there any more. */
    bool found;
} sm_vm_port;

/* Copies at most `max` of the ports that lead into the guest, published and found ones, and returns
 * how many there are: at most SM_VM_MAX_PORTS. `ports` may be NULL when max is 0. Never fails. */
#define SM_VM_MAX_PORTS 512
SM_API size_t sm_vm_ports(sm_vm *vm, sm_vm_port *ports, size_t max);

/* Copies the newest bytes of the console log into buf (NUL-terminated, at most size - 1 bytes) and
 * returns the log's whole length (bounded, old lines are dropped), without its NUL. The guest's own
 * bytes, whatever they are: not for a terminal as they stand. Never fails. */
SM_API size_t sm_vm_console(const sm_vm *vm, char *buf, size_t size);

/* ---- commands in a VM --------------------------------------------------------------------- */

typedef struct sm_exec sm_exec;

/* What stdin_fd, stdout_fd and stderr_fd may be beside a descriptor. */
#define SM_FD_NULL  0    /* /dev/null in the guest */
#define SM_FD_PIPE  (-1) /* a pipe whose other end sm_exec_fd gives */
#define SM_FD_STDIN (-2) /* the standard input of this process; descriptor 0 is SM_FD_NULL */

/* Whether a VM's own command is prepared for as engines do it for systemd: /run, /run/lock, /tmp
 * and /var/log/journal are empty and in memory, the variable "container" tells it where it is if
 * nobody else has set it, and its stop signal is SIGRTMIN+3 where neither caller nor image says
 * one. */
enum sm_systemd {
    SM_SYSTEMD_AUTO, /* if it is /sbin/init, also below /usr and /usr/local, or named systemd */
    SM_SYSTEMD_ALWAYS,
    SM_SYSTEMD_NEVER,
};

typedef struct sm_exec_config {
    /* What to run. argv is run as it is; where it is NULL, entrypoint followed by args is run: an
     * entrypoint that is NULL is the image's; args that are NULL are the image's Cmd, unless a
     * non-empty entrypoint was given, which drops the Cmd. All lists end with NULL. */
    const char *const *argv;
    const char *const *entrypoint;
    const char *const *args;
    const char *const *env;             /* "K=V", added to the image's; NULL: none */
    const char *cwd;                    /* NULL: the image's WorkingDir */
    const char *user;                   /* name or uid[:group or gid]; NULL: the image's User */
    bool tty;                           /* a terminal: stderr_fd is not used */
    uint16_t rows, columns;             /* of the terminal; 0: 24x80 */
    int stdin_fd, stdout_fd, stderr_fd; /* borrowed until the exec ends */
    int timeout_ms;                     /* wall clock; after it the command is killed; 0: none */
    /* of a VM's own command (SM_EINVAL of another): it is the child of a small init, which passes
     * signals on, waits for orphans, and ends with the command */
    bool init;
    enum sm_systemd systemd; /* of a VM's own command; ALWAYS is SM_EINVAL of another */
    const char *stop_signal; /* what SM_SIGNAL_STOP means, "TERM" or "15"; NULL: the image's */
    const char *const *default_env; /* "K=V", where the image says nothing of K */
    const char *const *unset_env;   /* names of variables of these and the image's to leave out */
    bool unset_all_env;             /* all of them */

    /* Attributes of the process, in the words of podman's options (docs/podman.md). Where nothing
     * is said they are what podman gives. */
    const char *const *groups;   /* supplementary ones beside the user's own, names or gids */
    bool privileged;             /* all capabilities; /proc and /sys without what is masked */
    const char *const *cap_add;  /* "NET_ADMIN", "CAP_NET_ADMIN" or "ALL": beside the usual ones; */
    const char *const *cap_drop; /* and without these */
    bool no_new_privileges;      /* set-user-ID programs and the like give it none */
    const char *const *ulimits;  /* "nofile=1024:4096", soft[:hard], -1: none */
    /* "net.ipv4.ip_forward=1": of the guest's kernel, set before the command begins */
    const char *const *sysctls;
    const char *umask;        /* octal; NULL: "0022" */
    int oom_score_adj;        /* -1000..1000: whom the guest's kernel ends when memory does */
    bool read_only;           /* / is; /run, /tmp and /var/tmp are an empty tmpfs each, */
    bool no_tmpfs;            /* or not */
    const char *const *tmpfs; /* "DIR[:OPTION,...]": mounted for the whole guest */
    /* "NAME:ADDRESS": lines that /etc/hosts gets in front; host-gateway is the gateway's. */
    const char *const *hosts;
} sm_exec_config;

typedef struct sm_exec_result {
    int exit_code;  /* 0..255, or -1 when a signal ended it */
    int signal;     /* number of the signal that ended it, 0: none */
    bool timed_out; /* killed because timeout_ms was over */
    /* the guest kernel's figure, which it keeps in steps of some 128 KiB: 0 for a small command */
    uint64_t peak_rss_bytes;
    uint64_t wall_us; /* measured in the guest */
    /* it, or the last process of it, was killed because the guest had no memory left */
    bool out_of_memory;
} sm_exec_result;

/* What is wrong with a command can be told before there is a VM to run it in: that neither the
 * caller nor the image names one, a relative working directory and the like (SM_EINVAL); that its
 * arguments and environment are too long (SM_ELIMIT). sm_exec_start checks the same. */
SM_API int sm_exec_check(const sm_image *image, const sm_exec_config *config, sm_error *err);

/* Whether nothing is asked for but to see the output of the image's own command: a VM that is
 * started for that may be asked for as a service. Reads the configuration alone; NULL: the
 * defaults, so true. */
SM_API bool sm_exec_is_default(const sm_exec_config *config);

/* Starts a command; it joins the namespaces and the cgroup of process 1 of the VM's container
 * (sm_vm_config.command). When process 1 ends so do all commands there, and the next one is started
 * in a container made anew, of the same files. In a VM that was restored as a service
 * (sm_vm_config.service), a configuration that has nothing but streams for output gives the command
 * that runs already instead, once; where that has a terminal, so does one that has a terminal and
 * input, too. SM_ENOTFOUND: no such command (exit code 127 of a shell),
 * SM_ENOEXEC: cannot be executed (126); SM_EINVAL as of sm_exec_check, or a descriptor is not open
 * for what it is given for; SM_ELIMIT: arguments or environment are too long. A thread of the
 * exec's own moves its streams. */
SM_API int sm_exec_start(sm_vm *vm, const sm_exec_config *config, sm_exec **exec, sm_error *err);
/* The VM's own command (sm_vm_config.command), once; the caller's to close (sm_exec_close). Fails
 * as sm_exec_start does; SM_EINVAL also: it has none, or it was taken already. */
SM_API int sm_vm_take_command(sm_vm *vm, sm_exec **exec, sm_error *err);
/* Our end of the pipe of stream 0, 1 or 2 (SM_FD_PIPE); the caller owns it from then on. -1: it was
 * asked for already, or is no pipe. */
SM_API int sm_exec_fd(sm_exec *exec, int stream);
/* Sends a signal to the command, not to its children; SM_SIGNAL_STOP is the image's StopSignal
 * (SIGTERM where it names none). A command that has ended is not an error. Returns at once;
 * SM_EINVAL: there is no such signal; SM_EBUSY: too many wait already. */
#define SM_SIGNAL_STOP 0
SM_API int sm_exec_signal(sm_exec *exec, int signal, sm_error *err);
/* Tells the command's terminal its size. Returns at once; SM_EINVAL: it has none. */
SM_API int sm_exec_resize(sm_exec *exec, uint16_t rows, uint16_t columns, sm_error *err);
/* Waits for the end of the command and of its output; SM_ETIMEOUT: it runs on after timeout_ms (0:
 * at once). SM_EGUEST: the VM ended before it; SM_EPROTOCOL. result may be NULL. May be called
 * again, and says the same. */
SM_API int sm_exec_wait(sm_exec *exec, int timeout_ms, sm_exec_result *result, sm_error *err);
/* Frees it; a command that still runs is killed. Pipe ends that were not taken are closed. */
SM_API void sm_exec_close(sm_exec *exec);

/* ---- files in a VM ------------------------------------------------------------------------ */

/* Writes size bytes to the absolute path in the guest (replaced atomically), with these owner and
 * mode bits. At most 1 GiB (SM_ELIMIT). SM_EINVAL: the path is not absolute; SM_ENOTFOUND: its
 * directory is not there. It takes as long as it takes, so long as it moves on. */
SM_API int sm_vm_write_file(sm_vm *vm, const char *path, const void *data, size_t size, mode_t mode,
    uid_t uid, gid_t gid, sm_error *err);

/* Reads the file; *data is malloc'ed, not NULL even if *size is 0. SM_ELIMIT: it has more than max
 * bytes; SM_ENOTFOUND. */
SM_API int sm_vm_read_file(
    sm_vm *vm, const char *path, size_t max, void **data, size_t *size, sm_error *err);

/* ---- snapshots ----------------------------------------------------------------------------- */

/* A service is baked with its command running; this is when. */
enum sm_bake_until {
    SM_BAKE_READY,     /* no command is started: the agent is ready and the guest idle */
    SM_BAKE_LISTENING, /* the image's command listens on a TCP port */
    SM_BAKE_IDLE,      /* the image's command has settled: the guest is idle */
    SM_BAKE_SECONDS,   /* it has run for this time */
};

typedef struct sm_bake_options {
    /* a command that is run to its end first; what it leaves is restored: files, caches, and what
     * it has started in the background */
    const char *const *warmup;
    enum sm_bake_until until;
    unsigned seconds; /* SM_BAKE_SECONDS: the time; else how long to wait at most, 0: 300 */
    bool again;       /* bake even if the snapshot is there */
} sm_bake_options;

typedef struct sm_snapshot_stats {
    uint64_t pause_us;   /* how long the guest stood still */
    uint64_t ram_bytes;  /* its memory */
    uint64_t data_bytes; /* of that, what is in the file */
    uint64_t write_us;   /* writing the file, while the guest ran on (or was over) */
} sm_snapshot_stats;

/* Bakes the snapshot that sm_vm_start restores for this image and configuration. With another
 * warm-up, or another end of the wait, than what is there was baked with, it is made anew, and what
 * began with another warm-up is removed; without either, VMs begin with nothing run again, and what
 * was baked of this image with them is removed. Images that differ in their configuration alone
 * share what they can. Of two callers at once (in whatever process) one works and the other waits.
 * *baked (may be NULL) is false when it was there already, and then stats stay as they are. config,
 * options and stats may be NULL; of config the shape (memory, vCPUs, kernel, initramfs, command
 * line), network, egress, boot timeout and progress are used. Fails as sm_vm_start does; SM_EGUEST
 * also when a warm-up fails, and as sm_exec_start when there is no such command; SM_ETIMEOUT when a
 * service does not get to where the wait is for. */
SM_API int sm_image_bake(sm_image *image, const sm_vm_config *config,
    const sm_bake_options *options, bool *baked, sm_snapshot_stats *stats, sm_error *err);

/* Captures the VM into a file and lets it run on; it stands still only while its memory is copied.
 * Of several threads that capture one VM each waits for those before it. The file appears whole or
 * not at all; stats may be NULL. SM_EINVAL: it is paused (sm_vm_pause), or has a command of its own
 * that was not taken yet (sm_vm_take_command); SM_ETIMEOUT: its processes did not stop, and they go
 * on; SM_EBUSY: somebody else writes that file. */
SM_API int sm_vm_snapshot(sm_vm *vm, const char *path, sm_snapshot_stats *stats, sm_error *err);

/* A snapshot of the store. */
typedef struct sm_store_snapshot {
    const char *key;
    const char *path;
    const char *digest; /* of the image that it was made of; others may use it, too */
    const char *source; /* the reference that the image was made from */
    const char *state;  /* "base", "warm" or "service" */
    uint64_t memory_bytes;
    unsigned vcpus;
    uint64_t disk_bytes;   /* clones share: the sum may be more than the disk holds */
    int64_t created, used; /* seconds since 1970 */
} sm_store_snapshot;

typedef void sm_store_snapshot_fn(void *arg, const sm_store_snapshot *snapshot);

/* Calls fn for every snapshot of the store, most recently used first. */
SM_API int sm_store_snapshots(sm_store *store, sm_store_snapshot_fn *fn, void *arg, sm_error *err);

/* Removes one, by key or unique prefix. VMs that were restored from it run on. SM_ENOTFOUND;
 * SM_EINVAL: several begin so. */
SM_API int sm_store_snapshot_remove(sm_store *store, const char *key, sm_error *err);

/* Removes snapshots that were not used for max_age_s seconds, then the least recently used until at
 * most max_bytes are left; UINT64_MAX: no such bound. It fails when something could not be removed,
 * after it has removed the others; what it removed is told either way. removed and freed_bytes may
 * be NULL. */
SM_API int sm_store_prune(sm_store *store, uint64_t max_bytes, uint64_t max_age_s, size_t *removed,
    uint64_t *freed_bytes, sm_error *err);

/* ---- snapshot files ------------------------------------------------------------------------ */

/* All that a snapshot file (SMSNAP v8, of any architecture) says but its RAM, as JSON text; *json
 * is malloc'ed. 64-bit values are strings ("0x..."), sizes and counts are numbers. SM_ENOTFOUND;
 * SM_ECORRUPT: it is no snapshot; SM_EUNSUPPORTED: of another version. */
SM_API int sm_snapshot_inspect(const char *path, char **json, sm_error *err);

/* Reads the whole file and compares it with its checksums. SM_ECORRUPT: they differ;
 * SM_EUNSUPPORTED: it has none (its structure is sound), or is of another version. */
SM_API int sm_snapshot_verify(const char *path, sm_error *err);

/* ---- the host ----------------------------------------------------------------------------- */

enum sm_check_status {
    SM_CHECK_OK,
    SM_CHECK_WARNING, /* VMs run, but not as well as they could */
    SM_CHECK_FAILED   /* no VM can run */
};

/* One finding about the host. */
typedef struct sm_check {
    const char *name; /* "kvm", "store", ... */
    enum sm_check_status status;
    const char *detail; /* what was found */
    const char *advice; /* what to do about it; NULL: nothing */
} sm_check;

typedef void sm_check_fn(void *arg, const sm_check *check);

/* Looks at everything that a VM needs on this host and reports each finding to fn. store_dir as for
 * sm_store_open; nothing is created, a small VM may run for a moment. Returns the worst status. */
SM_API enum sm_check_status sm_host_check(const char *store_dir, sm_check_fn *fn, void *arg);

#ifdef __cplusplus
}
#endif

#endif
