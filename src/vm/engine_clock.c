/*
 * The guest's time (util/guest_wait.h), as the kernel tells it of the threads of the machine's
 * process that run vCPUs. A guest that has taken that process over can have its time run as it
 * likes: those who wait for it wait longer then, or not as long.
 *
 * System calls: openat, read, close, getdents64; of /proc/PID/task.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hypervisor.h"
#include "util/bytes.h"
#include "util/cleanup.h"
#include "vm/engine_impl.h"

#define VCPU_NAME "vcpu"

static bool is_vcpu(int pid, int tid)
{
    char path[64], name[32] = "";
    snprintf(path, sizeof(path), "/proc/%d/task/%d/comm", pid, tid);
    auto_file file = fopen(path, "re");
    return file && fgets(name, sizeof(name), file) &&
           strncmp(name, VCPU_NAME, strlen(VCPU_NAME)) == 0;
}

/* Under the lock. A thread gives itself its name, so not all may have theirs at first. */
static void find_vcpus(struct sm_engine *e)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task", e->pid);
    auto_dir dir = opendir(path);
    const struct dirent *entry;
    e->n_vcpu_tids = 0;
    while (dir && (entry = readdir(dir)) && e->n_vcpu_tids < SM_ARRAY_LEN(e->vcpu_tids)) {
        int tid = atoi(entry->d_name);
        if (tid > 0 && is_vcpu(e->pid, tid))
            e->vcpu_tids[e->n_vcpu_tids++] = tid;
    }
}

/* What the kernel says of one thread: time on a CPU, time in the queue of one. */
static void add_schedstat(int pid, int tid, uint64_t *ran_ns, uint64_t *waited_ns)
{
    char path[64];
    snprintf(path, sizeof(path), "/proc/%d/task/%d/schedstat", pid, tid);
    auto_file file = fopen(path, "re");
    unsigned long long ran, waited;
    if (!file || fscanf(file, "%llu %llu", &ran, &waited) != 2)
        return;
    *ran_ns += ran;
    *waited_ns += waited;
}

static void cpu_time(void *arg, uint64_t *ran_ns, uint64_t *waited_ns)
{
    struct sm_engine *e = arg;
    *ran_ns = *waited_ns = 0;
    pthread_mutex_lock(&e->lock);
    if (e->n_vcpu_tids < e->n_vcpus)
        find_vcpus(e);
    for (unsigned i = 0; i < e->n_vcpu_tids; i++)
        add_schedstat(e->pid, e->vcpu_tids[i], ran_ns, waited_ns);
    pthread_mutex_unlock(&e->lock);
}

static bool is_emulated(void *arg)
{
    const struct sm_engine *e = arg;
    bool emulated;
    return sm_hv_needs_assist(e->hv, &emulated, NULL) == 0 && emulated;
}

struct sm_guest_clock sm_engine_make_clock(struct sm_engine *e)
{
    return (struct sm_guest_clock){.cpu_time = cpu_time, .is_emulated = is_emulated, .arg = e};
}
