/* supermachine login, logout: credentials of registries, kept where other container tools keep
 * them. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>

#include "cli/cli.h"
#include "cli/image_options.h"
#include "cli/options.h"

enum { OPT_PASSWORD_STDIN = 256, MAX_PASSWORD = 4097 };

static const struct cli_option login_options[] = {
    {'u', "username", "USER", "the user (asked for)"},
    {OPT_PASSWORD_STDIN, "password-stdin", NULL,
        "read the password from standard input (asked for)"},
    CLI_REGISTRY_OPTIONS,
    {0},
};

static const struct cli_option logout_options[] = {
    {OPT_AUTHFILE, "authfile", "FILE", "credentials of registries (those of podman and docker)"},
    {0},
};

/* Reads a line without its end; false at the end of the input. */
static bool read_line(char *buf, size_t size)
{
    if (!fgets(buf, (int)size, stdin))
        return false;
    buf[strcspn(buf, "\r\n")] = '\0';
    return *buf != '\0';
}

static bool ask(const char *question, char *buf, size_t size, bool secret)
{
    struct termios old, quiet;
    fputs(question, stderr);
    bool hide = secret && tcgetattr(STDIN_FILENO, &old) == 0;
    if (hide) {
        quiet = old;
        quiet.c_lflag &= ~(tcflag_t)ECHO;
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &quiet);
    }
    bool ok = read_line(buf, size);
    if (hide) {
        tcsetattr(STDIN_FILENO, TCSAFLUSH, &old);
        fputc('\n', stderr);
    }
    return ok;
}

static int login(const struct cli_command *self, int argc, char **argv)
{
    sm_image_options how = {0};
    const char *user = NULL;
    bool from_stdin = false;
    int id, status;
    while ((id = cli_next_option(self, argc, argv)) > 0) {
        if (id == 'u')
            user = optarg;
        else if (id == OPT_PASSWORD_STDIN)
            from_stdin = true;
        else
            cli_take_image_option(self, id, &how, &status);
    }
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind + 1 < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind + 1]);
    const char *host = optind < argc ? argv[optind] : "docker.io";
    char name[256], password[MAX_PASSWORD];
    bool terminal = isatty(STDIN_FILENO);
    if (from_stdin && !user)
        return cli_fail_usage(self, "--password-stdin needs --username");
    if (!from_stdin && !terminal)
        return cli_fail_usage(
            self, "there is no terminal to ask for the password, use --password-stdin");
    if (!user && !ask("User: ", name, sizeof(name), false))
        return cli_fail("no user was given");
    setvbuf(stdin, NULL, _IONBF, 0); /* no second copy of the password */
    if (from_stdin ? !read_line(password, sizeof(password))
                   : !ask("Password: ", password, sizeof(password), true))
        return cli_fail("no password was given");
    sm_error err;
    int rc = sm_registry_login(host, user ? user : name, password, &how, &err);
    explicit_bzero(password, sizeof(password));
    if (rc)
        return cli_fail_error(&err);
    printf("logged in to %s\n", host);
    return CLI_EXIT_OK;
}

const struct cli_command cli_login = {
    .name = "login",
    .synopsis = "[REGISTRY]",
    .summary = "Log in to a registry (docker.io).",
    .options = login_options,
    .run = login,
};

static int logout(const struct cli_command *self, int argc, char **argv)
{
    sm_image_options how = {0};
    int id, status;
    while ((id = cli_next_option(self, argc, argv)) > 0)
        cli_take_image_option(self, id, &how, &status);
    if (id != CLI_OPTIONS_END)
        return cli_options_exit(id);
    if (optind + 1 < argc)
        return cli_fail_usage(self, "unexpected argument '%s'", argv[optind + 1]);
    const char *host = optind < argc ? argv[optind] : "docker.io";
    sm_error err;
    if (sm_registry_logout(host, &how, &err))
        return cli_fail_error(&err);
    printf("logged out of %s\n", host);
    return CLI_EXIT_OK;
}

const struct cli_command cli_logout = {
    .name = "logout",
    .synopsis = "[REGISTRY]",
    .summary = "Forget the credentials of a registry (docker.io).",
    .options = logout_options,
    .run = logout,
};
