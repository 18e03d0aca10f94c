/* A command as it is asked of the agent. See command.h. */
#include "vm/command.h"

#include <string.h>

#include "util/bytes.h"
#include "util/error.h"

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

int sm_command_env(const struct sm_oci_config *image, const sm_exec_config *exec,
    struct sm_strv *env, sm_error *err)
{
    if (!add_all(env, (const char *const *)image->env.items))
        return no_memory(err);
    for (const char *const *pair = exec->env; pair && *pair; pair++) {
        const char *eq = strchr(*pair, '=');
        if (!eq || eq == *pair)
            return sm_error_set(
                err, SM_EINVAL, "the environment variable '%.64s' is not NAME=VALUE", *pair);
        if (!sm_strv_set_env(env, *pair))
            return no_memory(err);
    }
    return 0;
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
    struct sm_strv *argv, struct sm_strv *env, struct sm_wire_exec *wire, sm_error *err)
{
    const char *cwd = config->cwd ? config->cwd : image->working_dir;
    if (*cwd && *cwd != '/')
        return sm_error_set(
            err, SM_EINVAL, "the working directory '%.256s' is not an absolute path", cwd);
    int rc = sm_command_argv(image, config, argv, err);
    if (!rc)
        rc = sm_command_env(image, config, env, err);
    if (rc)
        return rc;
    *wire = (struct sm_wire_exec){
        .flags = (config->tty ? SM_WIRE_EXEC_TTY : 0) | (config->init ? SM_WIRE_EXEC_INIT : 0),
        .timeout_ms = config->timeout_ms > 0 ? (uint32_t)config->timeout_ms : 0,
        .rows = config->rows,
        .columns = config->columns,
        .user = config->user ? config->user : image->user,
        .cwd = cwd,
        .argv = {.strv = (const char *const *)argv->items},
        .env = {.strv = (const char *const *)env->items},
    };
    return 0;
}

int sm_command_check(const struct sm_oci_config *image, const sm_exec_config *config, sm_error *err)
{
    auto_strv argv = {0};
    auto_strv env = {0};
    struct sm_wire_exec exec;
    return sm_command_describe(image, config, &argv, &env, &exec, err);
}

bool sm_command_is_default(const sm_exec_config *c)
{
    return !c->argv && !c->entrypoint && !c->args && !c->env && !c->cwd && !c->user && !c->tty &&
           !c->init && c->systemd == SM_SYSTEMD_AUTO && c->stdin_fd == SM_FD_NULL &&
           c->timeout_ms <= 0;
}
