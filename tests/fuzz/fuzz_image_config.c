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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const words[] = {"word", NULL}, *const pairs[] = {"PATH=/bin", "A=", NULL};
    struct fuzz_input in = {data, size};
    char *text = fuzz_text(&in, '\0');
    struct sm_oci_config c;
    if (sm_oci_config_parse(&c, text, NULL) == 0) {
        fuzz_demand(c.stop_signal > 0 && c.stop_signal < 65);
        demand_whole(&c.exposed);
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
