/* Restores VMs from the image's snapshot, one after the other. Has every vCPU of each do something,
 * and prints a line with what must be new in each: a random number and the machine id. Arguments:
 * image, number of vCPUs, number of VMs. */
#include <stdio.h>
#include <stdlib.h>

#include <supermachine.h>

static int print_file(sm_vm *vm, const char *path, sm_error *err)
{
    void *data;
    size_t size;
    int rc = sm_vm_read_file(vm, path, 100, &data, &size, err);
    if (rc)
        return rc;
    printf("%.*s", (int)size, (const char *)data);
    free(data);
    return 0;
}

static int restore(sm_image *image, unsigned vcpus, sm_error *err)
{
    sm_vm *vm;
    sm_vm_timing timing;
    int rc = sm_vm_start(image, &(sm_vm_config){.vcpus = vcpus}, &vm, err);
    if (rc)
        return rc;
    sm_vm_get_timing(vm, &timing);
    if (!timing.restored)
        printf("not restored\n");
    /* The first one is empty: it is read when every CPU has run a function of the kernel's. */
    if ((rc = print_file(vm, "/proc/sys/vm/stat_refresh", err)) == 0 &&
        (rc = print_file(vm, "/proc/sys/kernel/random/uuid", err)) == 0)
        rc = print_file(vm, "/etc/machine-id", err);
    sm_vm_close(vm);
    return rc;
}

int main(int argc, char **argv)
{
    sm_error err;
    sm_store *store;
    sm_image *image;
    if (argc != 4)
        return 2;
    int rc = sm_store_open(&store, NULL, &err);
    if (!rc)
        rc = sm_image_open(store, argv[1], NULL, &image, &err);
    for (int i = 0; !rc && i < atoi(argv[3]); i++)
        rc = restore(image, (unsigned)atoi(argv[2]), &err);
    if (rc) {
        fprintf(stderr, "restore-many: %s\n", err.message);
        return 1;
    }
    sm_image_close(image);
    sm_store_close(store);
    return 0;
}
