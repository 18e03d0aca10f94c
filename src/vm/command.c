/* A command as it is asked of the agent. See command.h. */
#include "vm/command.h"

#include <signal.h>
#include <string.h>

#include "util/bytes.h"
#include "util/error.h"

#define SYSTEMD_HALT 37 /* SIGRTMIN+3, as systemd counts them */

static bool add_all(struct sm_strv *to, const char *const *from)
{
    for (; from && *from; from++) {
        if (!sm_strv_add(to, *from))
            return false;
    }
    return true;
}

static int no_memory(sm_error *err)
{
    return sm_error_set(err, SM_ENOMEM, "no memory for the command's arguments and environment");
}

int sm_command_argv(const struct sm_oci_config *image, const sm_exec_config *exec,
    struct sm_strv *argv, sm_error *err)
{
    bool ok;
    if (exec->argv) {
        ok = add_all(argv, exec->argv);
    } else {
        bool replaced = exec->entrypoint && *exec->entrypoint;
        ok = add_all(argv,
            exec->entrypoint ? exec->entrypoint : (const char *const *)image->entrypoint.items);
        if (ok && exec->args)
            ok = add_all(argv, exec->args);
        else if (ok && !replaced)
            ok = add_all(argv, (const char *const *)image->cmd.items);
    }
    if (!ok)
        return no_memory(err);
    if (argv->count == 0)
        return sm_error_set(
            err, SM_EINVAL, "the image names no command of its own; say what to run");
    if (!*argv->items[0])
        return sm_error_set(err, SM_EINVAL, "the command's name is empty");
    return 0;
}

/* Is the variable one of the names? */
static bool is_unset(const sm_exec_config *exec, const char *pair)
{
    size_t len = strcspn(pair, "=");
    bool unset = exec->unset_all_env;
    for (const char *const *name = exec->unset_env; !unset && name && *name; name++)
        unset = strlen(*name) == len && memcmp(*name, pair, len) == 0;
    return unset;
}

/* Those of a caller's that are set. */
static int set_all(
    struct sm_strv *env, const sm_exec_config *unset, const char *const *pairs, sm_error *err)
{
    for (; pairs && *pairs; pairs++) {
        const char *eq = strchr(*pairs, '=');
        if (!eq || eq == *pairs)
            return sm_error_set(
                err, SM_EINVAL, "the environment variable '%.64s' is not NAME=VALUE", *pairs);
        if (!(unset && is_unset(unset, *pairs)) && !sm_strv_set_env(env, *pairs))
            return no_memory(err);
    }
    return 0;
}

int sm_command_env(const struct sm_oci_config *image, const sm_exec_config *exec,
    struct sm_strv *env, sm_error *err)
{
    int rc = set_all(env, exec, exec->default_env, err);
    if (!rc)
        rc = set_all(env, exec, (const char *const *)image->env.items, err);
    return rc ? rc : set_all(env, NULL, exec->env, err);
}

bool sm_command_is_systemd(const struct sm_strv *argv, const sm_exec_config *config)
{
    static const char *const inits[] = {"/sbin/init", "/usr/sbin/init", "/usr/local/sbin/init"};
    if (config->systemd != SM_SYSTEMD_AUTO)
        return config->systemd == SM_SYSTEMD_ALWAYS;
    const char *name = argv->items[0], *slash = strrchr(name, '/');
    bool is = strcmp(slash ? slash + 1 : name, "systemd") == 0;
    for (size_t i = 0; i < SM_ARRAY_LEN(inits); i++)
        is = is || strcmp(name, inits[i]) == 0;
    return is;
}

int sm_command_describe(const struct sm_oci_config *image, const sm_exec_config *config,
    struct sm_command *command, sm_error *err)
{
    const char *cwd = config->cwd ? config->cwd : image->working_dir;
    if (*cwd && *cwd != '/')
        return sm_error_set(
            err, SM_EINVAL, "the working directory '%.256s' is not an absolute path", cwd);
    int rc = sm_command_argv(image, config, &command->argv, err);
    if (!rc)
        rc = sm_command_env(image, config, &command->env, err);
    if (!rc)
        rc = sm_process_describe(config, &command->process, err);
    if (rc)
        return rc;
    command->wire = (struct sm_wire_exec){
        .flags = (config->tty ? SM_WIRE_EXEC_TTY : 0) | (config->init ? SM_WIRE_EXEC_INIT : 0),
        .timeout_ms = config->timeout_ms > 0 ? (uint32_t)config->timeout_ms : 0,
        .rows = config->rows,
        .columns = config->columns,
        .user = config->user ? config->user : image->user,
        .cwd = cwd,
        .argv = {.strv = (const char *const *)command->argv.items},
        .env = {.strv = (const char *const *)command->env.items},
        .process = command->process.wire,
    };
    return 0;
}

static bool has_container(const struct sm_strv *env)
{
    size_t i = 0;
    while (i < env->count && strncmp(env->items[i], "container=", strlen("container=")) != 0)
        i++;
    return i < env->count;
}

int sm_command_be_first(
    const sm_exec_config *config, struct sm_command *command, bool *systemd, sm_error *err)
{
    *systemd = sm_command_is_systemd(&command->argv, config);
    command->wire.flags |= SM_WIRE_EXEC_FIRST | (*systemd ? SM_WIRE_EXEC_SYSTEMD : 0);
    /* The variable is engines' own word for it; somebody's own value is as good. */
    if (*systemd && !has_container(&command->env) && !sm_strv_add(&command->env, "container=oci"))
        return no_memory(err);
    command->wire.env.strv = (const char *const *)command->env.items;
    return 0;
}

void sm_command_clear(struct sm_command *command)
{
    sm_strv_clear(&command->argv);
    sm_strv_clear(&command->env);
    sm_process_clear(&command->process);
}

int sm_command_stop_signal(const struct sm_oci_config *image, const sm_exec_config *config,
    bool systemd, int *signal, sm_error *err)
{
    int number = config->stop_signal ? sm_signal_number(config->stop_signal) : image->stop_signal;
    if (config->stop_signal && !number)
        return sm_error_set(err, SM_EINVAL, "there is no signal '%.64s'", config->stop_signal);
    *signal = number ? number : systemd ? SYSTEMD_HALT : SIGTERM;
    return 0;
}

int sm_command_check(const struct sm_oci_config *image, const sm_exec_config *config, sm_error *err)
{
    auto_command command = {0};
    int signal;
    int rc = sm_command_describe(image, config, &command, err);
    if (!rc)
        rc = sm_command_stop_signal(image, config, false, &signal, err);
    struct sm_wire_writer length = {0};
    if (!rc)
        sm_wire_put(&length, SM_WIRE_EXEC, &command.wire);
    if (length.failed)
        return sm_error_set(err, SM_ELIMIT, "the command's arguments and environment are too long");
    return rc;
}

bool sm_command_is_default(const sm_exec_config *c)
{
    return !c->argv && !c->entrypoint && !c->args && !c->env && !c->default_env && !c->unset_env &&
           !c->unset_all_env && !c->cwd && !c->user && !c->tty && !c->init &&
           c->systemd == SM_SYSTEMD_AUTO && c->stdin_fd == SM_FD_NULL && c->timeout_ms <= 0 &&
           sm_process_is_default(c);
}

bool sm_command_is_terminal(const sm_exec_config *config)
{
    sm_exec_config rest = *config;
    rest.tty = false;
    rest.stdin_fd = SM_FD_NULL;
    return config->tty && sm_command_is_default(&rest);
}
