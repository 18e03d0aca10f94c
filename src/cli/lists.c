/* See lists.h. Lines of an environment file are judged as docker judges them. */
#include "cli/lists.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/cli.h"
#include "util/bytes.h"
#include "util/cleanup.h"

_Noreturn void cli_no_memory(void)
{
    cli_fail("out of memory");
    exit(CLI_EXIT_FAILURE);
}

void cli_list_add(struct sm_strv *list, const char *text)
{
    if (!sm_strv_add(list, text))
        cli_no_memory();
}

void cli_list_add_words(struct sm_strv *list, const char *text)
{
    for (;; text++) {
        size_t len = strcspn(text, ",");
        auto_free char *word = strndup(text, len);
        if (!word)
            cli_no_memory();
        cli_list_add(list, word);
        text += len;
        if (!*text)
            return;
    }
}

bool cli_env_add(struct sm_strv *env, const char *text)
{
    const char *eq = strchr(text, '=');
    if (!*text || eq == text)
        return false;
    if (eq) {
        cli_list_add(env, text);
        return true;
    }
    const char *value = getenv(text);
    if (value) {
        auto_free char *pair = NULL;
        if (asprintf(&pair, "%s=%s", text, value) < 0)
            cli_no_memory();
        cli_list_add(env, pair);
    }
    return true;
}

/* What keeps a line of an environment file from being one, as docker has it; NULL: nothing. */
static const char *env_line_fault(const char *line, size_t size)
{
    json_t *text = json_stringn(line, size);
    bool is_utf8 = text && strlen(line) == size;
    json_decref(text);
    if (!is_utf8)
        return "is no text in UTF-8";
    size_t name = strcspn(line, "=");
    if (name == 0)
        return "has no name before the '='";
    if (strcspn(line, " \t") < name)
        return "has white space in the variable's name";
    return NULL;
}

int cli_env_add_file(struct sm_strv *env, const char *path)
{
    static const char bom[] = "\xef\xbb\xbf";
    auto_file file = fopen(path, "re");
    if (!file)
        return cli_fail("cannot read the environment file '%s': %s", path, strerror(errno));
    auto_free char *line = NULL;
    size_t size = 0, number = 0;
    ssize_t n;
    while ((n = getline(&line, &size, file)) >= 0) {
        while (n > 0 && (line[n - 1] == '\n' || line[n - 1] == '\r'))
            line[--n] = '\0';
        const char *text = line;
        if (number++ == 0 && strncmp(text, bom, strlen(bom)) == 0)
            text += strlen(bom);
        text += strspn(text, " \t");
        if ((!*text && text == line + n) || *text == '#')
            continue;
        const char *fault = env_line_fault(text, (size_t)(line + n - text));
        if (fault)
            return cli_fail("line %zu of the environment file '%s' %s", number, path, fault);
        cli_env_add(env, text);
    }
    if (ferror(file))
        return cli_fail("cannot read the environment file '%s': %s", path, strerror(errno));
    return CLI_EXIT_OK;
}

void cli_env_add_all(struct sm_strv *env)
{
    for (char **pair = environ; *pair; pair++)
        if (strchr(*pair, '=') && **pair != '=')
            cli_list_add(env, *pair);
}

void cli_env_add_proxies(struct sm_strv *env)
{
    static const char *const names[] = {"http_proxy", "https_proxy", "ftp_proxy", "no_proxy",
        "HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY"};
    for (size_t i = 0; i < SM_ARRAY_LEN(names); i++)
        cli_env_add(env, names[i]);
}
