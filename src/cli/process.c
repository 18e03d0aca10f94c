/* What a command's process is. See process.h. */
#include "cli/process.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/lists.h"
#include "cli/values.h"
#include "util/bytes.h"
#include "util/cleanup.h"

/* Whether it was a JSON array of texts. */
static bool take_array(struct sm_strv *list, const json_t *array)
{
    for (size_t i = 0; i < json_array_size(array); i++)
        if (!json_is_string(json_array_get(array, i)))
            return false;
    for (size_t i = 0; i < json_array_size(array); i++)
        cli_list_add(list, json_string_value(json_array_get(array, i)));
    return json_is_array(array);
}

void cli_take_entrypoint(struct sm_strv *entrypoint, const char *text)
{
    sm_strv_clear(entrypoint);
    json_t *array = json_loads(text, 0, NULL);
    if (!take_array(entrypoint, array))
        cli_list_add(entrypoint, text);
    else if (entrypoint->count == 0)
        cli_list_add(entrypoint, "");
    json_decref(array);
}

static bool begins(const char *text, const char *with)
{
    return strncmp(text, with, strlen(with)) == 0;
}

/* What is about guards of the host's is taken as it is: they do not reach into a VM. */
int cli_take_security_option(const struct cli_command *self, const char *text, sm_exec_config *exec)
{
    static const char name[] = "no-new-privileges";
    static const char *const harmless[] = {
        "seccomp=unconfined", "apparmor=unconfined", "label=", "label:"};
    if (begins(text, name)) {
        const char *value = text + strlen(name);
        bool said = *value == '=' || *value == ':', on = said && strcmp(value + 1, "true") == 0;
        if (!*value || on || (said && strcmp(value + 1, "false") == 0)) {
            exec->no_new_privileges = !*value || on;
            return 0;
        }
    }
    for (size_t i = 0; i < SM_ARRAY_LEN(harmless); i++)
        if (begins(text, harmless[i]))
            return 0;
    if (begins(text, "seccomp="))
        return cli_fail_usage(self,
            "'--security-opt %s' is not possible: what holds a guest is its VM, and its kernel "
            "filters no system calls; leave it out",
            text);
    return cli_fail_usage(
        self, "'--security-opt %s' is not possible: it is no-new-privileges", text);
}

int cli_take_oom_score(const struct cli_command *self, const char *text, sm_exec_config *exec)
{
    uint64_t number;
    if (!cli_parse_number(*text == '-' ? text + 1 : text, 0, 1000, &number))
        return cli_fail_usage(
            self, "'--oom-score-adj %s' is not a whole number from -1000 to 1000", text);
    exec->oom_score_adj = *text == '-' ? -(int)number : (int)number;
    return 0;
}

int cli_take_shm_size(const struct cli_command *self, const char *text, struct sm_strv *tmpfs)
{
    uint64_t bytes;
    char mount[64];
    if (!cli_parse_size(text, &bytes) || !bytes)
        return cli_fail_usage(self, "'--shm-size %s' is not a size such as 64m", text);
    snprintf(mount, sizeof(mount), "/dev/shm:size=%llu", (unsigned long long)bytes);
    cli_list_add(tmpfs, mount);
    return 0;
}

/* ---- ports -------------------------------------------------------------------------------- */

/* "A-B" or "A"; last 0: nothing. Whatever else it is the library tells, which gets it as it is. */
struct range {
    unsigned first, last;
};

static bool parse_range(const char *text, size_t len, struct range *range)
{
    char copy[32];
    *range = (struct range){0};
    if (len == 0)
        return true;
    if (len >= sizeof(copy))
        return false;
    memcpy(copy, text, len);
    copy[len] = '\0';
    char *dash = strchr(copy, '-');
    if (dash)
        *dash++ = '\0';
    uint64_t first = 0, last = 0;
    if (!cli_parse_number(copy, 1, 65535, &first) ||
        !cli_parse_number(dash ? dash : copy, 1, 65535, &last) || last < first)
        return false;
    *range = (struct range){(unsigned)first, (unsigned)last};
    return true;
}

/* "[[IP:]HOST:]GUEST[/PROTOCOL]" with ranges; 0, 1: it is none, or an exit code. */
static int add_range(
    const struct cli_command *self, const char *option, const char *text, struct sm_strv *ports)
{
    size_t len = strcspn(text, "/");
    const char *slash = text + len, *guest = memrchr(text, ':', len);
    const char *host = guest ? memrchr(text, ':', (size_t)(guest - text)) : NULL;
    guest = guest ? guest + 1 : text;
    host = host ? host + 1 : text;
    struct range in, out = {0};
    if (!parse_range(guest, (size_t)(slash - guest), &in) || !in.last ||
        (guest != text && !parse_range(host, (size_t)(guest - 1 - host), &out)))
        return 1;
    if (out.last && out.last - out.first != in.last - in.first)
        return cli_fail_usage(
            self, "'--%s %s' has more ports on one side than on the other", option, text);
    for (unsigned i = 0; i <= in.last - in.first; i++) {
        char one[160], number[16] = "";
        if (out.last)
            snprintf(number, sizeof(number), "%u", out.first + i);
        snprintf(one, sizeof(one), "%.*s%s%s%u%s", (int)(host - text), text, number,
            guest != text ? ":" : "", in.first + i, slash);
        cli_list_add(ports, one);
    }
    return 0;
}

int cli_take_ports(
    const struct cli_command *self, const char *option, const char *text, struct sm_strv *ports)
{
    struct sm_strv words = {0};
    int status = 0;
    cli_list_add_words(&words, text);
    for (size_t i = 0; !status && i < words.count; i++) {
        const char *word = words.items[i];
        bool expose = strcmp(option, "expose") == 0;
        status = strlen(word) > 100 || (expose && strchr(word, ':'))
                     ? 1
                     : add_range(self, option, word, ports);
        if (status == 1 && !expose) {
            cli_list_add(ports, word); /* the library has a sentence */
            status = 0;
        } else if (status == 1) {
            status = cli_fail_usage(self, "'--expose %s' is not PORT[-PORT][/tcp|/udp]", word);
        }
    }
    sm_strv_clear(&words);
    return status;
}
