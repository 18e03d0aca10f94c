/*
 * What an idle restored VM costs in memory: bench-density IMAGE N restores N of them in this
 * process and prints, in KiB for each VM after the first, how much more the process has (Pss: what
 * is shared with others by parts) and how much less the system has left (MemAvailable: with page
 * tables and what KVM keeps).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <supermachine.h>

#define MAX_VMS  256
#define SETTLE_S 3 /* a VM is still busy with what its restore has to do */

struct memory {
    long pss, available; /* KiB */
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

static struct memory measure(void)
{
    sleep(SETTLE_S);
    return (struct memory){
        .pss = field("/proc/self/smaps_rollup", "Pss:"),
        .available = field("/proc/meminfo", "MemAvailable:"),
    };
}

static int hold(sm_image *image, sm_vm **vms, int n, sm_error *err)
{
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
    printf("%d idle VMs in one process, for each after the first:\n", n);
    printf("  more of the process (Pss)            %8ld KiB\n", (last.pss - first.pss) / (n - 1));
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
