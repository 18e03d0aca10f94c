/*
 * What a caller asks of a command's process, as the agent gets it. What the words mean, and which
 * are none, was recorded from podman 4.3.1 (`podman run --cap-add ... grep Cap /proc/self/status`).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "util/bytes.h"
#include "vm/process.h"

#define LIST(...) ((const char *const[]){__VA_ARGS__ __VA_OPT__(, ) NULL})

/* One line of what is in the message. */
static void describe(const sm_exec_config *config, char *text, size_t size)
{
    struct sm_process process = {0};
    struct sm_wire_process *p = &process.wire;
    sm_error err;
    if (sm_process_describe(config, &process, &err)) {
        snprintf(text, size, "refused: %s", err.message);
        sm_process_clear(&process);
        return;
    }
    size_t n = (size_t)snprintf(text, size, "flags=%x", p->flags);
    if (p->flags & SM_WIRE_PROCESS_CAPABILITIES)
        n += (size_t)snprintf(text + n, size - n, " bounding=%llx ambient=%llx",
            (unsigned long long)p->bounding, (unsigned long long)p->ambient);
    if (p->flags & SM_WIRE_PROCESS_UMASK)
        n += (size_t)snprintf(text + n, size - n, " umask=%o", p->umask);
    if (p->flags & SM_WIRE_PROCESS_OOM_SCORE)
        n += (size_t)snprintf(text + n, size - n, " oom=%d", p->oom_score_adj);
    struct sm_wire_limit l;
    for (uint32_t i = 0; sm_wire_limit_get(p, i, &l); i++)
        n += (size_t)snprintf(text + n, size - n, " limit=%u:%lld:%lld", l.resource,
            (long long)l.soft, (long long)l.hard);
    for (size_t i = 0; i < process.tmpfs.count; i++)
        n += (size_t)snprintf(text + n, size - n, " tmpfs=%s", p->tmpfs.strv[i]);
    for (size_t i = 0; i < process.hosts.count; i++)
        n += (size_t)snprintf(text + n, size - n, " hosts=%s", p->hosts.strv[i]);
    sm_process_clear(&process);
}

struct row {
    sm_exec_config config;
    const char *want; /* of a refusal: its beginning */
};

static void try(const struct row *rows, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char got[2048];
        describe(&rows[i].config, got, sizeof(got));
        if (strncmp(rows[i].want, "refused", 7) == 0)
            got[strlen(rows[i].want)] = 0;
        assert_string_equal(got, rows[i].want);
    }
}

static void capabilities(void **state)
{
    const struct row rows[] = {
        {{0}, "flags=0"},
        {{.cap_add = LIST("net_raw")}, "flags=1 bounding=800425fb ambient=2000"},
        {{.cap_add = LIST("CAP_NET_RAW", "cap_chown")}, "flags=1 bounding=800425fb ambient=2001"},
        {{.cap_add = LIST("chown")}, "flags=1 bounding=800405fb ambient=1"},
        {{.cap_drop = LIST("chown")}, "flags=1 bounding=800405fa ambient=0"},
        {{.cap_drop = LIST("net_raw")}, "flags=0"}, /* has none of it anyway */
        {{.cap_drop = LIST("all")}, "flags=1 bounding=0 ambient=0"},
        {{.cap_drop = LIST("ALL"), .cap_add = LIST("CAP_CHOWN")}, "flags=1 bounding=1 ambient=1"},
        {{.cap_add = LIST("all")}, "flags=1 bounding=ffffffffffffffff ambient=ffffffffffffffff"},
        {{.cap_add = LIST("all"), .cap_drop = LIST("net_raw")},
            "flags=1 bounding=ffffffffffffdfff ambient=ffffffffffffdfff"},
        {{.privileged = true}, "flags=201 bounding=ffffffffffffffff ambient=0"},
        {{.privileged = true, .cap_drop = LIST("all")},
            "flags=201 bounding=ffffffffffffffff ambient=0"},
        {{.cap_add = LIST("checkpoint_restore")},
            "flags=1 bounding=100800405fb ambient=10000000000"},
        {{.cap_add = LIST("net_raw"), .cap_drop = LIST("CAP_NET_RAW")},
            "refused: the capability NET_RAW cannot be both added and dropped"},
        {{.cap_add = LIST("all"), .cap_drop = LIST("all")}, "refused: all capabilities cannot"},
        {{.cap_add = LIST("nosuch")}, "refused: there is no capability 'nosuch'"},
        {{.cap_drop = LIST("")}, "refused: there is no capability ''"},
        {{.cap_drop = LIST("CAP_")}, "refused: there is no capability 'CAP_'"},
        {{.no_new_privileges = true}, "flags=80"},
    };
    try(rows, SM_ARRAY_LEN(rows));
}

static void limits(void **state)
{
    const struct row rows[] = {
        {{.ulimits = LIST("nofile=1024:4096", "core=-1")},
            "flags=8 limit=7:1024:4096 limit=4:-1:-1"},
        {{.ulimits = LIST("memlock=65536")}, "flags=8 limit=8:65536:65536"},
        {{.ulimits = LIST("core=0:-1")}, "flags=8 limit=4:0:-1"},
        {{.ulimits = LIST("nosuch=1")}, "refused: there is no limit 'nosuch=1'"},
        {{.ulimits = LIST("NOFILE=1")}, "refused: there is no limit 'NOFILE=1'"},
        {{.ulimits = LIST("RLIMIT_CORE=1")}, "refused: there is no limit"},
        {{.ulimits = LIST("host")}, "refused: there is no limit 'host'"},
        {{.ulimits = LIST("nofile")}, "refused: the limit 'nofile' is not"},
        {{.ulimits = LIST("nofile=")}, "refused: the limit 'nofile=' is not"},
        {{.ulimits = LIST("nofile=a")}, "refused: the limit 'nofile=a' is not"},
        {{.ulimits = LIST("nofile=1:")}, "refused: the limit 'nofile=1:' is not"},
        {{.ulimits = LIST("nofile=-2")}, "refused: the limit 'nofile=-2' is not"},
        {{.ulimits = LIST("core=0:unlimited")}, "refused: the limit 'core=0:unlimited' is not"},
        {{.ulimits = LIST("nofile=1000:2000:3000")}, "refused: the limit"},
        {{.ulimits = LIST("nofile=18446744073709551616")}, "refused: the limit"},
        {{.ulimits = LIST("nofile=2000:1000")},
            "refused: the limit 'nofile=2000:1000' has a soft limit above"},
        {{.ulimits = LIST("core=1", "core=1", "core=1", "core=1", "core=1", "core=1", "core=1",
              "core=1", "core=1", "core=1", "core=1", "core=1", "core=1", "core=1", "core=1",
              "core=1", "core=1")},
            "refused: more than 16 limits"},
    };
    try(rows, SM_ARRAY_LEN(rows));
}

static void mounts(void **state)
{
    const struct row rows[] = {
        {{.tmpfs = LIST("/x:notmpcopyup")}, "flags=40 tmpfs=6:/x:mode=1777"},
        {{.tmpfs = LIST(
              "/x:size=1m,mode=700", "/y:ro,exec,dev,notmpcopyup", "/z:notmpcopyup,tmpcopyup")},
            "flags=40 tmpfs=1073741830:/x:mode=1777,size=1m,mode=700 tmpfs=3:/y:mode=1777 "
            "tmpfs=1073741830:/z:mode=1777"},
        {{.tmpfs = LIST("/x:")}, "flags=40 tmpfs=1073741830:/x:mode=1777"},
        {{.read_only = true},
            "flags=140 tmpfs=1073741830:/run:mode=755 tmpfs=1073741830:/tmp:mode=1777 "
            "tmpfs=1073741830:/var/tmp:mode=1777"},
        {{.read_only = true, .no_tmpfs = true}, "flags=100"},
        {{.tmpfs = LIST("x")}, "refused: 'x' is no absolute path"},
        {{.tmpfs = LIST("")}, "refused: '' is no absolute path"},
        {{.tmpfs = LIST("/x:nosuch")}, "refused: 'nosuch' is no option of a tmpfs (/x)"},
        {{.tmpfs = LIST("/x:size")}, "refused: 'size' is no option"},
    };
    try(rows, SM_ARRAY_LEN(rows));
}

static void numbers_and_names(void **state)
{
    const struct row rows[] = {
        {{.umask = "077"}, "flags=2 umask=77"},
        {{.umask = "0"}, "flags=2 umask=0"},
        {{.umask = "7777"}, "flags=2 umask=777"},
        {{.umask = "0888"}, "refused: the umask '0888' is not"},
        {{.umask = "77777"}, "refused: the umask"},
        {{.umask = ""}, "refused: the umask"},
        {{.umask = "-1"}, "refused: the umask"},
        {{.oom_score_adj = 500}, "flags=4 oom=500"},
        {{.oom_score_adj = -1000}, "flags=4 oom=-1000"},
        {{.oom_score_adj = 1001}, "refused: the OOM score 1001 is not"},
        {{.groups = LIST("staff", "777")}, "flags=10"},
        {{.groups = LIST("keep-groups")}, "refused: the guest cannot keep your groups"},
        {{.sysctls = LIST("net.ipv4.ip_forward=1")}, "flags=20"},
        {{.sysctls = LIST("net.ipv4.ip_forward")}, "refused: the sysctl"},
        {{.sysctls = LIST("=1")}, "refused: the sysctl"},
        {{.hosts = LIST("box:10.0.0.1", "six:2001:db8::1")},
            "flags=400 hosts=10.0.0.1\tbox hosts=2001:db8::1\tsix"},
        {{.hosts = LIST("box")}, "refused: 'box' is not NAME:ADDRESS"},
        {{.hosts = LIST(":10.0.0.1")}, "refused: ':10.0.0.1' is not"},
        {{.hosts = LIST("box:10.0.0")}, "refused: 'box:10.0.0' is not"},
        {{.hosts = LIST("box:host-gateway")}, "flags=400 hosts=host-gateway\tbox"},
        {{.hosts = LIST("a b:10.0.0.1")}, "refused: 'a b:10.0.0.1' is not"},
        {{.hosts = LIST("a\n:10.0.0.1")}, "refused: "},
    };
    try(rows, SM_ARRAY_LEN(rows));
}

/* What is not the default cannot be had from a command that runs already. */
static void nothing_asked_for_is_told(void **state)
{
    assert_true(sm_process_is_default(&(sm_exec_config){.user = "app"}));
    const sm_exec_config configs[] = {
        {.groups = LIST("staff")},
        {.privileged = true},
        {.cap_add = LIST("net_raw")},
        {.cap_drop = LIST("net_raw")},
        {.no_new_privileges = true},
        {.ulimits = LIST("core=0")},
        {.sysctls = LIST("a=b")},
        {.umask = "022"},
        {.oom_score_adj = 1},
        {.read_only = true},
        {.tmpfs = LIST("/x")},
        {.hosts = LIST("a:1.1.1.1")},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(configs); i++)
        assert_false(sm_process_is_default(&configs[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(capabilities),
        cmocka_unit_test(limits),
        cmocka_unit_test(mounts),
        cmocka_unit_test(numbers_and_names),
        cmocka_unit_test(nothing_asked_for_is_told),
    };
    return cmocka_run_group_tests_name("process", tests, NULL, NULL);
}
