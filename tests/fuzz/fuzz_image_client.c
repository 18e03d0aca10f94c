/* What supermachine-image writes: it has read hostile archives. No program is started; the pipe
 * holds the input. */
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include "fuzz.h"
#include "image/client.h"
#include "store.h"

#define PID        12345
#define MAX_OUTPUT 60000 /* less than a pipe holds */

static struct {
    const uint8_t *data;
    size_t size;
    int status;
    int out; /* the writing end of the first pipe */
} program;

int __real_pipe2(int ends[2], int flags);
int __wrap_pipe2(int ends[2], int flags);
int __wrap_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
    const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);
pid_t __wrap_waitpid(pid_t pid, int *status, int options);
int __wrap_kill(pid_t pid, int sig);

int __wrap_pipe2(int ends[2], int flags)
{
    int rc = __real_pipe2(ends, flags);
    if (rc == 0 && program.out < 0)
        program.out = ends[1];
    return rc;
}

int __wrap_posix_spawn(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
    const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    (void)!write(program.out, program.data, program.size);
    *pid = PID;
    return 0;
}

pid_t __wrap_waitpid(pid_t pid, int *status, int options)
{
    fuzz_demand(pid == PID);
    *status = program.status;
    return pid;
}

int __wrap_kill(pid_t pid, int sig)
{
    fuzz_demand(pid == PID);
    return 0;
}

static void on_progress(void *arg, const sm_progress *p)
{
    fuzz_demand(p->what && p->layer <= p->layers);
}

static void begin(const uint8_t *data, size_t size, int status)
{
    program.data = data;
    program.size = size < MAX_OUTPUT ? size : MAX_OUTPUT;
    program.status = status;
    program.out = -1;
}

/* Input: how the program ends, then its output, read as that of `build`. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct sm_imgstore *store = fuzz_store();
    const struct sm_builder_options options = {.program = "none", .progress = on_progress};
    struct fuzz_input in = {data, size};
    int status = (int)fuzz_take(&in, 1) << 8, before;
    char digest[SM_DIGEST_LEN + 1];
    sm_error err = {.code = SM_OK};
    before = fuzz_next_fd();
    begin(in.data, in.left, status);
    int rc = sm_builder_build(store, "image", &options, digest, &err);
    fuzz_demand(rc <= 0 && (rc != 0 || sm_digest_valid(digest)));
    fuzz_demand(rc == 0 || *err.message);
    fuzz_demand(fuzz_next_fd() == before);
    return 0;
}
