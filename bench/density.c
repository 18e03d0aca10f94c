/*
 * What an idle restored VM costs in memory: bench-density IMAGE N restores N of them and prints, in
 * KiB, for the first and for each after it, how much more this process and its VMs' processes have
 * (Pss: what is shared with others by parts), and for each after the first how much less the system
 * has left (MemAvailable: with page tables and what KVM keeps). The VMs' processes are known by a
 * variable that they inherit; of other users' (root's machines are of users of their own) only root
 * is told.
 */
#include <ctype.h>
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <supermachine.h>

#define MARK     "SM_BENCH_DENSITY"
#define MAX_VMS  256
#define SETTLE_S 3 /* a VM is still busy with what its restore has to do */

struct memory {
    long pss, family, available; /* KiB */
    int processes;
};

static long field(const char *path, const char *name)
{
    char line[256];
    long value = -1;
    FILE *file = fopen(path, "r");
    while (file && value < 0 && fgets(line, sizeof(line), file)) {
        if (strncmp(line, name, strlen(name)) == 0)
            value = strtol(line + strlen(name), NULL, 10);
    }
    if (file)
        fclose(file);
    return value;
}

static bool is_ours(const char *pid)
{
    char path[64], text[16384], mark[64];
    snprintf(path, sizeof(path), "/proc/%.16s/environ", pid);
    snprintf(mark, sizeof(mark), MARK "=%d", (int)getpid());
    FILE *file = fopen(path, "r");
    size_t n = file ? fread(text, 1, sizeof(text), file) : 0;
    if (file)
        fclose(file);
    return n && memmem(text, n, mark, strlen(mark) + 1);
}

/* Of the VMs' processes; *n: how many there are. */
static long family_pss(int *n)
{
    long pss = 0;
    DIR *proc = opendir("/proc");
    const struct dirent *entry;
    *n = 0;
    while (proc && (entry = readdir(proc))) {
        char path[64];
        if (!isdigit((unsigned char)entry->d_name[0]) || !is_ours(entry->d_name))
            continue;
        snprintf(path, sizeof(path), "/proc/%.16s/smaps_rollup", entry->d_name);
        pss += field(path, "Pss:");
        ++*n;
    }
    if (proc)
        closedir(proc);
    return pss;
}

static struct memory measure(void)
{
    int n;
    sleep(SETTLE_S);
    long family = family_pss(&n);
    return (struct memory){
        .pss = field("/proc/self/smaps_rollup", "Pss:"),
        .family = family,
        .processes = n,
        .available = field("/proc/meminfo", "MemAvailable:"),
    };
}

static int hold(sm_image *image, sm_vm **vms, int n, sm_error *err)
{
    struct memory none = measure();
    int rc = sm_vm_start(image, NULL, &vms[0], err);
    if (rc)
        return rc;
    struct memory first = measure();
    for (int i = 1; i < n; i++) {
        rc = sm_vm_start(image, NULL, &vms[i], err);
        if (rc)
            return rc;
    }
    struct memory last = measure();
    printf(
        "the first idle VM, of %d process%s:\n", first.processes, first.processes == 1 ? "" : "es");
    printf("  its processes (Pss)                  %8ld KiB\n", first.family - none.family);
    printf("  more of this one (Pss)               %8ld KiB\n", first.pss - none.pss);
    printf("%d idle VMs, for each after the first:\n", n);
    printf("  their processes (Pss)                %8ld KiB\n",
        (last.family - first.family) / (n - 1));
    printf("  more of this one (Pss)               %8ld KiB\n", (last.pss - first.pss) / (n - 1));
    printf("  less for others (MemAvailable)       %8ld KiB\n",
        (first.available - last.available) / (n - 1));
    return 0;
}

int main(int argc, char **argv)
{
    sm_error err;
    sm_store *store = NULL;
    sm_image *image = NULL;
    sm_vm *vms[MAX_VMS] = {NULL};
    int n = argc == 3 ? atoi(argv[2]) : 0;
    if (n < 2 || n > MAX_VMS) {
        fprintf(stderr, "usage: bench-density IMAGE N, with N from 2 to %d\n", MAX_VMS);
        return 2;
    }
    char self[16];
    snprintf(self, sizeof(self), "%d", (int)getpid());
    setenv(MARK, self, 1);
    int failed = sm_store_open(&store, NULL, &err) ||
                 sm_image_open(store, argv[1], NULL, &image, &err) || hold(image, vms, n, &err);
    if (failed)
        fprintf(stderr, "bench-density: %s\n", err.message);
    for (int i = 0; i < n; i++)
        sm_vm_close(vms[i]);
    sm_image_close(image);
    sm_store_close(store);
    return failed;
}
