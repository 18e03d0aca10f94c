/*
 * What a confined process can no longer do by the layers alone, without a list of system calls: a
 * hole in a list is then not a hole in the wall. As who runs the test, and if that is root as a
 * user without privileges, too.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "confined.h"
#include "util/cleanup.h"

#define MIB (1ULL << 20)

static const struct sm_sandbox_spec nothing = {0};

/* Of a system call: 0 if it could be done, else its errno. */
static int result(long rc)
{
    return rc < 0 ? errno : 0;
}

static int read_file(const void *path)
{
    return result(open(path, O_RDONLY | O_CLOEXEC));
}

static int write_file(const void *path)
{
    return result(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
}

static int execute(const void *path)
{
    return result(execl(path, path, NULL));
}

static int connect_to(int domain, const void *to, socklen_t length)
{
    auto_fd fd = socket(domain, SOCK_STREAM | SOCK_CLOEXEC, 0);
    return fd < 0 ? errno : result(connect(fd, to, length));
}

static int connect_to_port(const void *to)
{
    return connect_to(AF_INET, to, sizeof(struct sockaddr_in));
}

static int connect_to_name(const void *to)
{
    return connect_to(AF_UNIX, to, sizeof(struct sockaddr_un));
}

static int trace(const void *pid)
{
    return result(ptrace(PTRACE_SEIZE, *(const pid_t *)pid, NULL, NULL));
}

static int send_signal(const void *pid)
{
    return result(kill(*(const pid_t *)pid, 0));
}

static int become_another(const void *arg)
{
    return result(setuid(12345));
}

static int mount_something(const void *arg)
{
    return result(mount("x", "/", "tmpfs", 0, NULL));
}

static int look_at(const void *path)
{
    struct stat st;
    return result(stat(path, &st));
}

static int send_datagram(const void *to)
{
    auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return result(sendto(fd, "x", 1, 0, to, sizeof(struct sockaddr_in)));
}

/* 0: no capability is left, and none comes back. Of who had no right to lower it: BOUNDING_SET. */
#define BOUNDING_SET 1
static int look_for_rights(const void *arg)
{
    for (int cap = 0; prctl(PR_CAPBSET_READ, cap, 0, 0, 0) >= 0; cap++)
        if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) != 0)
            return BOUNDING_SET;
    return prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1 && prctl(PR_GET_DUMPABLE) == 0 ? 0 : 2;
}

/* A host that does not give a layer, a container or a chroot, cannot be asked to refuse by it. */
static bool has(const struct confined *end, enum sm_sandbox_layer layer)
{
    return end->layers.layer[layer].state == SM_LAYER_IN_FORCE ||
           (layer == SM_LAYER_EMPTY_ROOT && end->layers.layer[layer].state == SM_LAYER_PARTLY);
}

static void assert_refused_by(
    enum sm_sandbox_layer layer, const struct sm_sandbox_spec *spec, act_fn *act, const void *arg)
{
    struct confined end = confine(spec, NULL, act, arg);
    assert_true(end.result != 0 || !has(&end, layer));
}

/* A socket of this test that listens on 127.0.0.1. */
static int listen_on_port(struct sockaddr_in *at)
{
    socklen_t length = sizeof(*at);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    *at = (struct sockaddr_in){.sin_family = AF_INET};
    at->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    assert_int_equal(bind(fd, (struct sockaddr *)at, sizeof(*at)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)at, &length), 0);
    return fd;
}

/* A directory of two files, which everybody may read, and one file beside it. */
struct files {
    char top[32], shown[48], inside[64], link[64], beside[64];
};

static void make_files(struct files *files)
{
    strcpy(files->top, "/tmp/sandbox-XXXXXX");
    assert_non_null(mkdtemp(files->top));
    snprintf(files->shown, sizeof(files->shown), "%s/shown", files->top);
    snprintf(files->inside, sizeof(files->inside), "%s/file", files->shown);
    snprintf(files->link, sizeof(files->link), "%s/link", files->shown);
    snprintf(files->beside, sizeof(files->beside), "%s/beside", files->top);
    assert_int_equal(chmod(files->top, 0755), 0);
    assert_int_equal(mkdir(files->shown, 0755), 0);
    close(open(files->inside, O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    close(open(files->beside, O_WRONLY | O_CREAT | O_CLOEXEC, 0666));
    assert_int_equal(chmod(files->inside, 0666), 0);
    assert_int_equal(symlink("../beside", files->link), 0);
}

static void remove_files(const struct files *files)
{
    unlink(files->inside);
    unlink(files->link);
    unlink(files->beside);
    rmdir(files->shown);
    rmdir(files->top);
}

static void no_file_is_opened_made_or_executed(void **state)
{
    struct files files;
    make_files(&files);
    assert_int_not_equal(confine(&nothing, NULL, read_file, files.inside).result, 0);
    assert_int_not_equal(confine(&nothing, NULL, read_file, "/").result, 0);
    assert_int_not_equal(confine(&nothing, NULL, read_file, "/proc/self/maps").result, 0);
    assert_int_not_equal(confine(&nothing, NULL, write_file, files.inside).result, 0);
    assert_int_not_equal(confine(&nothing, NULL, write_file, "/tmp/x").result, 0);
    assert_int_not_equal(confine(&nothing, NULL, write_file, "/x").result, 0);
    assert_int_not_equal(confine(&nothing, NULL, execute, "/bin/true").result, 0);
    remove_files(&files);
}

static void what_is_listed_is_read_and_nothing_else(void **state)
{
    struct files files;
    make_files(&files);
    const char *paths[] = {"/is/not/there", files.shown, NULL};
    struct sm_sandbox_spec spec = {.read_paths = paths};
    struct confined end = confine(&spec, NULL, read_file, files.inside);
    assert_int_equal(end.result, 0);
    assert_int_not_equal(confine(&spec, NULL, write_file, files.inside).result, 0);
    assert_int_not_equal(confine(&spec, NULL, read_file, files.beside).result, 0);
    assert_int_not_equal(confine(&spec, NULL, read_file, files.link).result, 0);
    paths[1] = files.inside;
    assert_int_equal(confine(&spec, NULL, read_file, files.inside).result, 0);
    assert_int_not_equal(confine(&spec, NULL, read_file, files.shown).result, 0);
    assert_int_equal(confine(&spec, NULL, look_at, files.inside).result, 0);
    assert_refused_by(SM_LAYER_EMPTY_ROOT, &spec, look_at, files.beside);
    remove_files(&files);
}

static int make_and_remove(const void *directory)
{
    char from[96], to[96];
    snprintf(from, sizeof(from), "%s/a", (const char *)directory);
    snprintf(to, sizeof(to), "%s/b", (const char *)directory);
    int rc = write_file(from);
    return rc ? rc : result(rename(from, to)) ? errno : result(unlink(to));
}

/* Who keeps the host's root has its paths and no others, by Landlock alone. */
static void paths_of_the_host_are_kept_as_listed(void **state)
{
    struct files files;
    make_files(&files);
    assert_int_equal(chmod(files.shown, 0777), 0);
    const char *read[] = {"/etc", NULL}, *write[] = {files.shown, NULL};
    struct sm_sandbox_spec spec = {.keeps_root = true, .read_paths = read, .write_paths = write};
    assert_int_equal(confine(&spec, NULL, read_file, "/etc/passwd").result, 0);
    assert_int_equal(confine(&spec, NULL, read_file, files.inside).result, 0);
    assert_int_equal(confine(&spec, NULL, write_file, files.inside).result, 0);
    struct confined end = confine(&spec, NULL, make_and_remove, files.shown);
    assert_int_equal(end.result, 0);
    assert_int_equal(end.layers.layer[SM_LAYER_EMPTY_ROOT].state, SM_LAYER_NOT_WANTED);
    assert_int_equal(end.layers.layer[SM_LAYER_USER_NAMESPACE].state, SM_LAYER_NOT_WANTED);
    assert_refused_by(SM_LAYER_LANDLOCK, &spec, read_file, files.beside);
    assert_refused_by(SM_LAYER_LANDLOCK, &spec, read_file, files.link);
    assert_refused_by(SM_LAYER_LANDLOCK, &spec, write_file, files.beside);
    assert_refused_by(SM_LAYER_LANDLOCK, &spec, make_and_remove, files.top);
    assert_refused_by(SM_LAYER_LANDLOCK, &spec, execute, "/bin/true");
    remove_files(&files);
}

/* It may still end what it has started before, which is outside of it. */
static void signals_are_left_to_who_ends_others(void **state)
{
    struct sm_sandbox_spec spec = {.keeps_root = true, .ends_others = true};
    pid_t parent = getpid();
    if (confine_as_nobody && geteuid() == 0) /* whose parent is root's */
        return;
    assert_int_equal(confine(&spec, NULL, send_signal, &parent).result, 0);
    spec.ends_others = false;
    assert_refused_by(SM_LAYER_LANDLOCK, &spec, send_signal, &parent);
}

/* Root's paths may be others' files; what else it could do is gone. */
static int look_for_file_rights(const void *path)
{
    return read_file(path) ? 1 : setuid(12345) == 0 ? 2 : mount_something(NULL) == 0 ? 3 : 0;
}

static void root_keeps_the_rights_to_files_alone(void **state)
{
    if (geteuid() != 0 || confine_as_nobody)
        return;
    struct files files;
    make_files(&files);
    assert_int_equal(chown(files.inside, 12, 12), 0);
    assert_int_equal(chmod(files.inside, 0600), 0);
    const char *read[] = {files.shown, NULL};
    struct sm_sandbox_spec spec = {.keeps_root = true, .read_paths = read};
    assert_int_equal(confine(&spec, NULL, look_for_file_rights, files.inside).result, 1);
    spec.keeps_file_rights = true;
    assert_int_equal(confine(&spec, NULL, look_for_file_rights, files.inside).result, 0);
    remove_files(&files);
}

/* Neither a service of the host's loopback, nor, by its name, one of its unix sockets. */
static void no_service_of_the_host_is_reached(void **state)
{
    struct sockaddr_in at;
    auto_fd tcp = listen_on_port(&at);
    assert_int_equal(connect_to_port(&at), 0);
    assert_refused_by(SM_LAYER_NETWORK_NAMESPACE, &nothing, connect_to_port, &at);
    assert_int_equal(send_datagram(&at), 0);
    assert_refused_by(SM_LAYER_NETWORK_NAMESPACE, &nothing, send_datagram, &at);

    struct sockaddr_un name = {.sun_family = AF_UNIX};
    snprintf(name.sun_path + 1, sizeof(name.sun_path) - 1, "sandbox-test-%d", (int)getpid());
    auto_fd abstract = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(abstract, (struct sockaddr *)&name, sizeof(name)), 0);
    assert_int_equal(listen(abstract, 1), 0);
    assert_int_equal(connect_to_name(&name), 0);
    assert_refused_by(SM_LAYER_NETWORK_NAMESPACE, &nothing, connect_to_name, &name);
}

static void who_has_the_network_reaches_it_and_no_file(void **state)
{
    struct sm_sandbox_spec spec = {.has_network = true};
    struct sockaddr_in at;
    auto_fd tcp = listen_on_port(&at);
    struct confined end = confine(&spec, NULL, connect_to_port, &at);
    assert_int_equal(end.result, 0);
    assert_int_equal(end.layers.layer[SM_LAYER_NETWORK_NAMESPACE].state, SM_LAYER_NOT_WANTED);
    assert_int_not_equal(confine(&spec, NULL, read_file, "/etc/passwd").result, 0);
}

/* The parent is of the same user: what Unix allows, the layers do not. */
static void nobody_else_is_touched(void **state)
{
    pid_t parent = getpid();
    assert_refused_by(SM_LAYER_USER_NAMESPACE, &nothing, trace, &parent);
    assert_refused_by(SM_LAYER_LANDLOCK, &nothing, send_signal, &parent);
}

static void no_right_is_left(void **state)
{
    struct confined end = confine(&nothing, NULL, look_for_rights, NULL);
    assert_int_equal(end.result, has(&end, SM_LAYER_NO_CAPABILITIES) ? 0 : BOUNDING_SET);
    assert_int_not_equal(confine(&nothing, NULL, become_another, NULL).result, 0);
    assert_int_equal(confine(&nothing, NULL, mount_something, NULL).result, EPERM);
}

static int map_memory(const void *size)
{
    void *p = mmap(
        NULL, *(const size_t *)size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return p == MAP_FAILED ? errno : 0;
}

static int grow_file(const void *fd)
{
    return result(pwrite(*(const int *)fd, "x", 1, MIB));
}

static int duplicate(const void *number)
{
    for (int i = 0; i < *(const int *)number; i++)
        if (dup(STDERR_FILENO) < 0)
            return errno;
    return 0;
}

static void no_limit_is_exceeded(void **state)
{
    struct sm_sandbox_spec spec = {
        .data_limit = 64 * MIB, .file_limit = MIB, .descriptor_limit = 32};
    size_t less = 32 * MIB, more = 128 * MIB;
    auto_fd file = memfd_create("sandbox", MFD_CLOEXEC);
    int few = 8, many = 64;
    assert_int_equal(confine(&nothing, NULL, map_memory, &more).result, 0);
    assert_int_equal(confine(&spec, NULL, map_memory, &less).result, 0);
    assert_int_equal(confine(&spec, NULL, map_memory, &more).result, ENOMEM);
    assert_int_equal(confine(&nothing, NULL, grow_file, &file).result, 0);
    assert_int_equal(ftruncate(file, 0), 0);
    assert_int_equal(confine(&spec, NULL, grow_file, &file).result, EFBIG);
    assert_int_equal(confine(&spec, NULL, duplicate, &few).result, 0);
    assert_int_equal(confine(&spec, NULL, duplicate, &many).result, EMFILE);
}

static int who_am_i(const void *arg)
{
    return (int)(geteuid() * 1000 + getegid());
}

static void the_user_stays_or_becomes_who_was_asked_for(void **state)
{
    struct sm_sandbox_spec other = {.change_user = true, .uid = 12, .gid = 34};
    int me = confine_as_nobody && geteuid() == 0 ? 65534 * 1001 : who_am_i(NULL);
    assert_int_equal(confine(&nothing, NULL, who_am_i, NULL).result, me);
    if (geteuid() != 0 || confine_as_nobody)
        return;
    struct confined end = confine(&other, NULL, who_am_i, NULL);
    assert_int_equal(end.result, 12 * 1000 + 34);
    assert_int_equal(end.layers.layer[SM_LAYER_USER].state, SM_LAYER_IN_FORCE);
    assert_int_equal(confine(&other, NULL, look_for_rights, NULL).result, 0);
}

static void each_layer_says_what_it_is(void **state)
{
    struct confined end = confine(&nothing, NULL, look_for_rights, NULL);
    for (int i = 0; i < SM_LAYERS; i++) {
        enum sm_layer_state at = end.layers.layer[i].state;
        assert_true(strlen(sm_layer_name((enum sm_sandbox_layer)i)) > 0);
        assert_true((at == SM_LAYER_IN_FORCE) == (end.layers.layer[i].reason[0] == '\0'));
        assert_string_not_equal(end.layers.layer[i].reason, "it did not come to that");
    }
    assert_int_equal(end.layers.layer[SM_LAYER_SECCOMP].state, SM_LAYER_NOT_WANTED);
    assert_int_equal(end.layers.layer[SM_LAYER_LIMITS].state, SM_LAYER_IN_FORCE);
}

static int as_nobody(void **state)
{
    confine_as_nobody = true;
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_file_is_opened_made_or_executed),
        cmocka_unit_test(what_is_listed_is_read_and_nothing_else),
        cmocka_unit_test(paths_of_the_host_are_kept_as_listed),
        cmocka_unit_test(signals_are_left_to_who_ends_others),
        cmocka_unit_test(root_keeps_the_rights_to_files_alone),
        cmocka_unit_test(no_service_of_the_host_is_reached),
        cmocka_unit_test(who_has_the_network_reaches_it_and_no_file),
        cmocka_unit_test(nobody_else_is_touched),
        cmocka_unit_test(no_right_is_left),
        cmocka_unit_test(no_limit_is_exceeded),
        cmocka_unit_test(the_user_stays_or_becomes_who_was_asked_for),
        cmocka_unit_test(each_layer_says_what_it_is),
    };
    int failed = cmocka_run_group_tests_name("as who runs it", tests, NULL, NULL);
    return failed + cmocka_run_group_tests_name("as nobody", tests, as_nobody, NULL);
}
