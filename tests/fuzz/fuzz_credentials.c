/* A credentials file of container tools, and what a credential helper answers. No helper is
 * started. */
#include <spawn.h>

#include "fuzz.h"
#include "builder/credential_helper.h"
#include "builder/credentials.h"
#include "util/error.h"

int __wrap_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
    const posix_spawnattr_t *attr, char *const argv[], char *const envp[]);

int __wrap_posix_spawnp(pid_t *pid, const char *file, const posix_spawn_file_actions_t *actions,
    const posix_spawnattr_t *attr, char *const argv[], char *const envp[])
{
    fuzz_demand(strncmp(file, "docker-credential-", 18) == 0 && !strchr(file, '/'));
    return ENOENT;
}

static void demand_pair(const struct sm_credentials *c)
{
    fuzz_demand(!c->user == !c->password && !(c->user && c->identity_token));
}

static void find(const char *path, const char *host, const char *repository)
{
    struct sm_credentials c;
    if (sm_credentials_find(host, repository, path, &c, NULL) == 0)
        demand_pair(&c);
    sm_credentials_clear(&c);
}

/* Input: a repository of the first host up to the line's end, then the file, which is a helper's
 * answer, too. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct fuzz_input in = {data, size};
    struct sm_credentials c = {0};
    char path[32], *repository = fuzz_text(&in, '\n');
    int fd = fuzz_file(in.data, in.left, path);
    find(path, "reg.example:5000", repository);
    find(path, "docker.io", "library/alpine");
    find(path, "docker.io", NULL);
    if (sm_helper_answer("fuzz", (const char *)in.data, in.left, &c, NULL) == 0)
        fuzz_demand(c.user || c.identity_token);
    demand_pair(&c);
    sm_credentials_clear(&c);
    close(fd);
    free(repository);
    return 0;
}
