/* What the files of vmm/ share. */
#ifndef SM_VMM_MACHINE_INTERNAL_H
#define SM_VMM_MACHINE_INTERNAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "arch/arch.h"
#include "devices/bus.h"
#include "devices/guest_memory.h"
#include "devices/serial.h"
#include "devices/virtio_mmio.h"
#include "devices/vsock/vsock.h"
#include "util/guest_wait.h"
#include "util/loop.h"
#include "util/thread.h"
#include "vmm/machine.h"
#include "vmm/parts.h"

/* Memory slots. */
enum { SLOT_RAM, SLOT_FILES = SLOT_RAM + SM_ARCH_MAX_RAM };
_Static_assert(SLOT_FILES + SM_MACHINE_MAX_PARTS <= SM_HV_MAX_SLOTS, "a slot for each part's file");

struct sm_machine_device {
    char role[SM_SNAPSHOT_ROLE_BYTES];
    struct sm_virtio_dev *dev;
    struct sm_machine *machine;
    struct sm_bell irq;
    struct sm_loop_watch *irq_watch; /* NULL: the hypervisor hears the bell */
    struct sm_arch_place place;
    uint64_t config[2]; /* for snapshots, see struct sm_snapshot_device */
};

/* A host mapping that the guest sees. */
struct sm_mapping {
    uint8_t *reserved; /* what was mapped, for munmap; NULL: nothing */
    size_t reserved_bytes;
    uint8_t *host; /* aligned start in it */
    size_t bytes;
    uint64_t gpa;
};

/* A part's file, by the part's index. */
struct sm_machine_file {
    struct sm_mapping map;
    char *name; /* as it was asked for */
    int fd;     /* -1: there is none */
    uint64_t bytes;
};

struct sm_machine_vcpu {
    struct sm_machine *machine;
    struct sm_hv_vcpu *hv;
    struct sm_thread thread;
    unsigned index;
    atomic_int tid;               /* of the thread; 0: has not begun */
    struct sm_machine_task *task; /* for the thread, under the machine's lock; NULL: nothing */
};

/* What the vCPU threads are asked to do. HOLD: nothing yet, the vCPU has never run. */
enum { REQUEST_HOLD, REQUEST_RUN, REQUEST_PARK, REQUEST_QUIT };

enum machine_state {
    MACHINE_CREATED, /* no vCPU has run yet */
    MACHINE_LOADED,  /* nor here, but saved state is in place: resume starts it */
    MACHINE_RUNNING,
    MACHINE_PAUSED,
    MACHINE_ENDED,
};

struct sm_machine {
    /* Set by create, not changed until close. */
    uint64_t memory_bytes;
    unsigned n_vcpus;
    char *kernel, *initramfs, *cmdline;
    int (*open)(void *arg, const char *path);
    void *open_arg;
    bool opens_nothing; /* this process, but by `open` */
    const struct sm_page_sources *page_sources;
    int (*vcpu_begins)(sm_error *err);
    bool count_instructions;
    struct sm_hv *hv, *own_hv; /* own_hv: hv if it is ours to close */
    struct sm_hv_vm *vm;
    struct sm_mapping ram;
    struct sm_guest_memory memory;
    char *snapshot_name; /* of ram_fd; NULL: not known */
    int ram_fd;          /* the snapshot file that RAM is mapped from; -1: anonymous */
    uint64_t ram_offset; /* of RAM in it */
    struct sm_loop *loop;
    struct sm_bus mmio, pio;
    struct sm_serial *serial;
    struct sm_vsock *vsock;
    struct sm_machine_file files[SM_MACHINE_MAX_PARTS]; /* of the parts */
    unsigned n_files;
    struct sm_machine_device devices[SM_MACHINE_MAX_PARTS]; /* likewise */
    unsigned n_devices;
    struct sm_machine_vcpu vcpus[SM_MACHINE_MAX_VCPUS];
    struct sm_bell ended; /* rung once */
    struct sm_guest_clock clock;

    atomic_uint request;
    atomic_bool said_panic; /* on the console */

    pthread_mutex_t control;        /* serialises boot, load, pause, resume, kill */
    bool loop_started, loop_paused; /* under control, as what follows: */
    unsigned n_pauses;

    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t changed;
    enum machine_state state;
    unsigned n_parked;
    struct sm_machine_end end;
    struct sm_machine_timing timing;
};

/* memory.c */
int sm_machine_map_ram(struct sm_machine *m, sm_error *err);  /* reserves the range */
int sm_machine_back_ram(struct sm_machine *m, sm_error *err); /* makes it memory */
/* Maps the RAM of a snapshot file over ours, copy-on-write. */
int sm_machine_map_snapshot(
    struct sm_machine *m, int fd, const struct sm_snapshot *s, sm_error *err);
/* The files of the parts, one after the other from sm_arch_files_base on. */
int sm_machine_map_files(
    struct sm_machine *m, const struct sm_machine_part *parts, unsigned n, sm_error *err);
/* Puts the mappings into memory slots. */
int sm_machine_set_slots(struct sm_machine *m, sm_error *err);
void sm_machine_unmap(struct sm_machine *m); /* all of it */

/* devices.c: whether there can be such a list of parts; makes all devices and puts them on the
 * buses; connects them to the VM. */
int sm_machine_check_parts(const struct sm_machine_part *parts, unsigned n, sm_error *err);
int sm_machine_make_devices(
    struct sm_machine *m, const struct sm_machine_config *config, sm_error *err);
int sm_machine_attach_devices(struct sm_machine *m, sm_error *err);
void sm_machine_drop_devices(struct sm_machine *m);

/* vcpus.c */
/* Starts the vCPUs' threads, which hold. */
int sm_machine_start_vcpus(struct sm_machine *m, sm_error *err);
/* A vCPU's state, while all hold or are parked; on the thread that may touch it. Under control. */
int sm_machine_get_vcpu(
    struct sm_machine *m, unsigned index, struct sm_vcpu_state *state, sm_error *err);
int sm_machine_set_vcpu(
    struct sm_machine *m, unsigned index, const struct sm_vcpu_state *state, sm_error *err);
/* Device thread and vCPUs begin. Under control. */
int sm_machine_go(struct sm_machine *m, sm_error *err);
void sm_machine_join_vcpus(struct sm_machine *m);
/* The machine is over: the first call counts. From any thread. */
void sm_machine_finish(struct sm_machine *m, enum sm_vm_end how, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Serial line observer. */
void sm_machine_console_line(void *machine, const char *line);
/* The reset register of the platform. */
extern const struct sm_bus_ops sm_machine_reset_ops;

#endif
