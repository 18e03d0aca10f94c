/* Several VMs in one process, each driven by a thread of its own through all of the public API,
 * from one image. Ends with 0 and "ok" when all of it was right. Arguments: image, number of
 * VMs. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <supermachine.h>

#include "vm_shell.h"

#define MAX_VMS 8

static sm_image *image;

static void must(int ok, int vm, const char *what, const sm_error *err)
{
    if (!ok) {
        fprintf(stderr, "VM %d: %s: %s\n", vm, what, err ? err->message : "wrong");
        exit(1);
    }
}

/* Runs a shell script and returns its exit code; its output goes to text. */
static int shell(sm_vm *vm, int i, const char *script, char *text, size_t size)
{
    sm_error err;
    int code = vm_shell(vm, script, STDERR_FILENO, text, size, &err);
    must(code >= 0, i, script, &err);
    return code;
}

static void *drive(void *arg)
{
    int i = (int)(long)arg;
    sm_error err;
    sm_vm *vm;
    char name[16], text[256], script[128], content[64];
    void *data;
    size_t size;
    snprintf(name, sizeof(name), "number-%d", i);
    const sm_vm_config config = {.name = name, .vcpus = 1 + (unsigned)i % 2};
    must(!sm_vm_start(image, &config, &vm, &err), i, "start", &err);
    must(!strcmp(sm_vm_name(vm), name), i, "name", NULL);

    snprintf(script, sizeof(script), "hostname; exit %d", 10 + i);
    must(shell(vm, i, script, text, sizeof(text)) == 10 + i, i, "exit code", NULL);
    text[strcspn(text, "\n")] = '\0';
    must(!strcmp(text, name), i, "host name", NULL);

    snprintf(content, sizeof(content), "content of %d", i);
    must(!sm_vm_write_file(vm, "/root/file", content, strlen(content), 0640, 3, 4, &err), i,
        "write", &err);
    must(!sm_vm_read_file(vm, "/root/file", 1000, &data, &size, &err), i, "read", &err);
    must(size == strlen(content) && !memcmp(data, content, size), i, "content", NULL);
    free(data);
    shell(vm, i, "stat -c '%a %u %g' /root/file", text, sizeof(text));
    must(!strcmp(text, "640 3 4\n"), i, "mode and owner", NULL);
    must(sm_vm_read_file(vm, "/root/file", 3, &data, &size, &err) == -SM_ELIMIT, i, "limit", &err);
    must(sm_vm_read_file(vm, "/root/none", 9, &data, &size, &err) == -SM_ENOTFOUND, i, "no file",
        &err);
    must(sm_vm_read_file(vm, "relative", 9, &data, &size, &err) == -SM_EINVAL, i, "relative", &err);

    must(!sm_vm_pause(vm, &err), i, "pause", &err);
    must(!sm_vm_resume(vm, &err), i, "resume", &err);
    must(shell(vm, i, "true", text, sizeof(text)) == 0, i, "after resume", NULL);

    sm_vm_timing timing;
    sm_vm_counters counters;
    sm_vm_get_timing(vm, &timing);
    sm_vm_get_counters(vm, &counters);
    must(timing.ready_us > 0 && counters.exits > 0, i, "timing and counters", NULL);

    enum sm_vm_end end;
    must(sm_vm_wait(vm, 0, &end, &err) == -SM_ETIMEOUT, i, "still runs", &err);
    bool deaf = i == 0; /* a guest that answers nothing is killed when the time is over */
    if (deaf)
        must(!sm_vm_pause(vm, &err), i, "pause", &err);
    must(!sm_vm_stop(vm, deaf ? 200 : 600000, &err), i, "stop", &err);
    must(!sm_vm_wait(vm, 0, &end, &err), i, "wait", &err);
    must(end == (deaf ? SM_VM_KILLED : SM_VM_POWERED_OFF), i, "how it ended", NULL);
    sm_exec *exec;
    const char *argv[] = {"true", NULL};
    must(sm_exec_start(vm, &(sm_exec_config){.argv = argv}, &exec, &err) < 0, i,
        "exec after the end", &err);
    sm_vm_close(vm);
    return NULL;
}

int main(int argc, char **argv)
{
    sm_error err;
    sm_store *store;
    pthread_t threads[MAX_VMS];
    int n = argc == 3 ? atoi(argv[2]) : 0;
    if (n < 1 || n > MAX_VMS)
        return 2;
    must(!sm_store_open(&store, NULL, &err), -1, "store", &err);
    must(!sm_image_open(store, argv[1], NULL, &image, &err), -1, "image", &err);
    for (long i = 0; i < n; i++)
        pthread_create(&threads[i], NULL, drive, (void *)i);
    for (int i = 0; i < n; i++)
        pthread_join(threads[i], NULL);
    sm_image_close(image);
    sm_store_close(store);
    puts("ok");
    return 0;
}
