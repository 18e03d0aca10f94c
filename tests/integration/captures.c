/* Captures one VM from two threads at once, while a third one tries to let it run and a fourth one
 * starts commands, which wait for the end of a capture and no longer. Then goes on with each
 * capture, whose command must say where it is. Arguments: image, directory for the files. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <supermachine.h>

#define THREADS 2
#define ROUNDS  3

static sm_vm *vm;
static const char *dir;
static atomic_bool over;
static atomic_int failures;

static void check(int rc, const sm_error *err, const char *what)
{
    if (!rc)
        return;
    fprintf(stderr, "captures: %s: %s\n", what, err->message);
    failures++;
}

static void *capture(void *arg)
{
    sm_error err;
    char path[4096];
    snprintf(path, sizeof(path), "%s/%s.snap", dir, (const char *)arg);
    for (int i = 0; i < ROUNDS; i++)
        check(sm_vm_snapshot(vm, path, NULL, &err), &err, path);
    return NULL;
}

/* Nobody has paused it but captures: that is not for us to end. */
static void *let_run(void *arg)
{
    sm_error err;
    while (!over) {
        if (sm_vm_resume(vm, &err) == 0)
            check(1, &(sm_error){.message = "it took"}, "a resume in the middle of a capture");
        usleep(500);
    }
    return arg;
}

static void *start_commands(void *arg)
{
    static const char *const argv[] = {"true", NULL};
    sm_error err;
    sm_exec *exec;
    while (!over) {
        int rc = sm_exec_start(vm, &(sm_exec_config){.argv = argv}, &exec, &err);
        if (!rc)
            rc = sm_exec_wait(exec, -1, NULL, &err);
        check(rc, &err, "a command that is started in the middle of captures");
        sm_exec_close(exec);
        if (rc)
            break;
    }
    return arg;
}

static int go_on(sm_image *image, const char *name, sm_error *err)
{
    char path[4096], text[256] = "";
    sm_vm *clone;
    sm_exec *exec = NULL;
    snprintf(path, sizeof(path), "%s/%s.snap", dir, name);
    const sm_vm_config config = {.snapshot = path, .service = true};
    int rc = sm_vm_start(image, &config, &clone, err);
    if (rc)
        return rc;
    rc = sm_exec_start(clone, &(sm_exec_config){.stdout_fd = SM_FD_PIPE}, &exec, err);
    if (!rc) {
        int fd = sm_exec_fd(exec, 1);
        for (ssize_t n; !strchr(text, '\n') && (n = read(fd, text + strlen(text), 100)) > 0;)
            ;
        printf("%.*s\n", (int)strcspn(text, "\n"), text); /* one read may bring several */
        close(fd);
    }
    sm_exec_close(exec);
    sm_vm_close(clone);
    return rc;
}

int main(int argc, char **argv)
{
    static const char *const names[THREADS] = {"one", "two"};
    static const char *const command[] = {
        "sh", "-c", "i=0; while :; do i=$((i + 1)); echo at $i; sleep 0.05; done", NULL};
    sm_error err;
    sm_store *store;
    sm_image *image;
    sm_exec *exec;
    pthread_t threads[THREADS], resumer, starter;
    if (argc != 3)
        return 2;
    dir = argv[2];
    if (sm_store_open(&store, NULL, &err) || sm_image_open(store, argv[1], NULL, &image, &err) ||
        sm_vm_start(image, NULL, &vm, &err) ||
        sm_exec_start(vm, &(sm_exec_config){.argv = command, .stdout_fd = 2}, &exec, &err)) {
        fprintf(stderr, "captures: %s\n", err.message);
        return 1;
    }
    pthread_create(&resumer, NULL, let_run, NULL);
    pthread_create(&starter, NULL, start_commands, NULL);
    for (int i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, capture, (void *)names[i]);
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    over = true;
    pthread_join(resumer, NULL);
    pthread_join(starter, NULL);

    check(sm_vm_pause(vm, &err), &err, "pause");
    if (sm_vm_snapshot(vm, "/never", NULL, &err) != -SM_EINVAL)
        check(1, &err, "a paused VM");
    check(sm_vm_resume(vm, &err), &err, "resume");
    sm_exec_close(exec);
    sm_vm_close(vm);
    for (int i = 0; i < THREADS; i++)
        check(go_on(image, names[i], &err), &err, names[i]);
    sm_image_close(image);
    sm_store_close(store);
    return failures != 0;
}
