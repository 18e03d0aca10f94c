/* An image's configuration and names of signals, up to the command and the environment that come of
 * them. */
#include "fuzz.h"
#include "vm/command.h"

static void demand_whole(const struct sm_strv *v)
{
    for (size_t i = 0; i < v->count; i++)
        fuzz_demand(v->items[i]);
    fuzz_demand(!v->items || !v->items[v->count]);
}

static void use(const struct sm_oci_config *c, const sm_exec_config *exec)
{
    struct sm_strv argv = {0}, env = {0};
    if (sm_command_argv(c, exec, &argv, NULL) == 0)
        fuzz_demand(argv.count > 0 && *argv.items[0]);
    (void)sm_command_env(c, exec, &env, NULL);
    demand_whole(&argv);
    demand_whole(&env);
    sm_strv_clear(&argv);
    sm_strv_clear(&env);
}

/* Each is a port and a protocol. */
static void use_ports(const struct sm_oci_config *c)
{
    struct sm_strv ports = {0};
    if (sm_oci_exposed_ports(c, &ports, NULL) == 0)
        for (size_t i = 0; i < ports.count; i++) {
            char *slash;
            unsigned long port = strtoul(ports.items[i], &slash, 10);
            fuzz_demand(port > 0 && port < 65536);
            fuzz_demand(strcmp(slash, "/tcp") == 0 || strcmp(slash, "/udp") == 0);
        }
    demand_whole(&ports);
    sm_strv_clear(&ports);
}

/* Nothing that leads up is left in it. */
static void demand_directory(const char *path)
{
    fuzz_demand(!*path || *path == '/');
    for (const char *p = path; (p = strstr(p, "/..")); p++)
        fuzz_demand(p[3] && p[3] != '/');
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const words[] = {"word", NULL}, *const pairs[] = {"PATH=/bin", "A=", NULL};
    struct fuzz_input in = {data, size};
    char *text = fuzz_text(&in, '\0');
    struct sm_oci_config c;
    if (sm_oci_config_parse(&c, text, NULL) == 0) {
        fuzz_demand(c.stop_signal >= 0 && c.stop_signal < 65);
        demand_whole(&c.exposed);
        use_ports(&c);
        demand_directory(c.working_dir);
        use(&c, &(sm_exec_config){0});
        use(&c, &(sm_exec_config){.args = words, .env = pairs});
        use(&c, &(sm_exec_config){.entrypoint = words});
        sm_oci_config_clear(&c);
    }
    int number = sm_signal_number(text);
    fuzz_demand(number >= 0 && number < 65);
    free(text);
    return 0;
}
