/* What an OCI image config says about running the image. See image_config.h. */
#include "image/image_config.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "image/json.h"
#include "util/cleanup.h"
#include "util/error.h"
#include "util/text.h"

/* More than any image has; what the agent takes is bounded too, by the wire format. */
#define MAX_LIST 4096

/* The guest is Linux. */
#define MAX_SIGNAL 64

static int no_memory(sm_error *err)
{
    return sm_error_set(err, SM_ENOMEM, "no memory for the image's configuration");
}

static int bad(const char *key, const char *what, sm_error *err)
{
    return sm_error_set(err, SM_ECORRUPT, "%s in the image's configuration %s", key, what);
}

/* Programs and environments end at a NUL, so what has one is not what its writer meant. */
static int add_word(struct sm_strv *list, const char *key, const json_t *v, sm_error *err)
{
    const char *text = json_string_value(v);
    if (!text)
        return bad(key, "has an entry that is no string", err);
    if (strlen(text) != json_string_length(v))
        return bad(key, "has an entry with a NUL in it", err);
    return sm_strv_add(list, text) ? 0 : no_memory(err);
}

/* A string, "" where there is none or null. */
static int take_string(const json_t *config, const char *key, char **value, sm_error *err)
{
    const json_t *v = json_object_get(config, key);
    if (v && !json_is_null(v) && !json_is_string(v))
        return bad(key, "is no string", err);
    if (json_is_string(v) && strlen(json_string_value(v)) != json_string_length(v))
        return bad(key, "has a NUL in it", err);
    *value = strdup(json_is_string(v) ? json_string_value(v) : "");
    return *value ? 0 : no_memory(err);
}

static int take_list(const json_t *config, const char *key, struct sm_strv *list, sm_error *err)
{
    const json_t *v = json_object_get(config, key);
    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v)) /* one word, as docker takes it; an empty one says nothing */
        return json_string_length(v) > 0 ? add_word(list, key, v, err) : 0;
    if (!json_is_array(v) || json_array_size(v) > MAX_LIST)
        return sm_error_set(err, SM_ECORRUPT,
            "%s in the image's configuration is no list of at most %d strings", key, MAX_LIST);
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < json_array_size(v); i++)
        rc = add_word(list, key, json_array_get(v, i), err);
    return rc;
}

/* [""] is how docker writes that an entrypoint of the image below is to be none. */
static int take_entrypoint(const json_t *config, struct sm_strv *list, sm_error *err)
{
    int rc = take_list(config, "Entrypoint", list, err);
    if (rc == 0 && list->count == 1 && !*list->items[0])
        sm_strv_clear(list);
    return rc;
}

/* Of a name that is there twice the last value counts. A name alone has none: for docker it takes a
 * variable away, podman takes the host's, which is nothing that an image may ask for. */
static int take_env(const json_t *config, struct sm_strv *env, sm_error *err)
{
    auto_strv list = {0};
    int rc = take_list(config, "Env", &list, err);
    for (size_t i = 0; rc == 0 && i < list.count; i++) {
        const char *pair = list.items[i];
        if (!*pair || *pair == '=')
            rc = sm_error_set(err, SM_ECORRUPT,
                "Env in the image's configuration has a variable without a name: '%.64s'", pair);
        else if (strchr(pair, '=') && !sm_strv_set_env(env, pair))
            rc = no_memory(err);
    }
    return rc;
}

/* What counts from "/", wherever its writer thought to be. */
static int take_directory(const json_t *config, const char *key, char **value, sm_error *err)
{
    auto_free char *path = NULL;
    int rc = take_string(config, key, &path, err);
    if (rc)
        return rc;
    bool said = *path;
    sm_path_clean(path);
    if (asprintf(value, "%s%s", said ? "/" : "", path) < 0) {
        *value = NULL;
        return no_memory(err);
    }
    return 0;
}

/* The keys of an object. */
static int take_keys(const json_t *config, const char *key, struct sm_strv *list, sm_error *err)
{
    json_t *v = json_object_get(config, key), *value;
    const char *text;
    if (!v || json_is_null(v))
        return 0;
    if (!json_is_object(v) || json_object_size(v) > MAX_LIST)
        return sm_error_set(err, SM_ECORRUPT,
            "%s in the image's configuration is no object of at most %d members", key, MAX_LIST);
    json_object_foreach(v, text, value)
    {
        if (!sm_strv_add(list, text))
            return no_memory(err);
    }
    return 0;
}

/* A name or a number, which may be a number of JSON's, too. What is no signal is as if nothing was
 * said, as for docker: by then there is a command to be ended. */
static int take_stop_signal(const json_t *config, int *signal, sm_error *err)
{
    const json_t *v = json_object_get(config, "StopSignal");
    auto_free char *text = NULL;
    *signal = 0;
    if (json_is_number(v)) {
        double n = json_number_value(v);
        *signal = n >= 1 && n <= MAX_SIGNAL && n == (int)n ? (int)n : 0;
    } else {
        int rc = take_string(config, "StopSignal", &text, err);
        if (rc)
            return rc;
        *signal = sm_signal_number(text);
    }
    return 0;
}

int sm_signal_number(const char *name)
{
    char *end;
    long number = strtol(name, &end, 10);
    if (*name && !*end)
        return number > 0 && number <= MAX_SIGNAL ? (int)number : 0;
    if (strncasecmp(name, "SIG", 3) == 0)
        name += 3;
    /* The numbers are those of the guest: Linux, whose real-time signals begin at 34 for
     * programs. */
    const int rtmin = 34, rtmax = MAX_SIGNAL;
    if (strncasecmp(name, "RTMIN", 5) == 0 || strncasecmp(name, "RTMAX", 5) == 0) {
        bool min = strncasecmp(name, "RTMIN", 5) == 0;
        long offset = strtol(name + 5, &end, 10);
        if (*end || offset < rtmin - rtmax || offset > rtmax - rtmin)
            return 0;
        long at = (min ? rtmin : rtmax) + offset;
        return at >= rtmin && at <= rtmax ? (int)at : 0;
    }
    for (int i = 1; i < 32; i++) {
        const char *known = sigabbrev_np(i);
        if (known && strcasecmp(name, known) == 0)
            return i;
    }
    return 0;
}

/* "PORT", "FIRST-LAST", each with "/PROTOCOL" or not; what is cut off is cut off in place. */
static bool split_ports(char *text, long *first, long *last, const char **protocol)
{
    char *slash = strchr(text, '/'), *end;
    *protocol = slash ? slash + 1 : "tcp";
    if (slash)
        *slash = '\0';
    if (*text < '0' || *text > '9')
        return false;
    *first = *last = strtol(text, &end, 10);
    if (*end == '-' && end[1] >= '0' && end[1] <= '9')
        *last = strtol(end + 1, &end, 10);
    return !*end && *first > 0 && *first <= *last && *last <= 65535;
}

static int add_ports(struct sm_strv *ports, const char *text, sm_error *err)
{
    auto_free char *copy = strdup(text);
    if (!copy)
        return no_memory(err);
    long first, last;
    const char *protocol;
    bool ok = split_ports(copy, &first, &last, &protocol);
    bool udp = ok && strcasecmp(protocol, "udp") == 0;
    if (!ok || (!udp && strcasecmp(protocol, "tcp") != 0))
        return sm_error_set(err, SM_ECORRUPT,
            "ExposedPorts in the image's configuration has '%.100s', which is no port", text);
    if (last - first >= MAX_LIST || ports->count + (size_t)(last - first) >= MAX_LIST)
        return sm_error_set(err, SM_ELIMIT, "the image exposes more than %d ports", MAX_LIST);
    for (long port = first; port <= last; port++) {
        char spec[sizeof("65535/tcp")];
        snprintf(spec, sizeof(spec), "%hu/%s", (unsigned short)port, udp ? "udp" : "tcp");
        if (!sm_strv_add(ports, spec))
            return no_memory(err);
    }
    return 0;
}

int sm_oci_exposed_ports(const struct sm_oci_config *config, struct sm_strv *ports, sm_error *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < config->exposed.count; i++)
        rc = add_ports(ports, config->exposed.items[i], err);
    return rc;
}

int sm_oci_config_parse(struct sm_oci_config *config, const char *json, sm_error *err)
{
    *config = (struct sm_oci_config){0};
    struct sm_oci_config c = {0};
    auto_json *root = NULL;
    int rc = sm_json_parse_config(json, strlen(json), &root, err);
    if (rc)
        return rc;
    const json_t *run = json_object_get(root, "config");
    if (run && !json_is_null(run) && !json_is_object(run))
        return sm_error_set(err, SM_ECORRUPT, "config in the image's configuration is no object");
    if ((rc = take_entrypoint(run, &c.entrypoint, err)) ||
        (rc = take_list(run, "Cmd", &c.cmd, err)) || (rc = take_env(run, &c.env, err)) ||
        (rc = take_keys(run, "ExposedPorts", &c.exposed, err)) ||
        (rc = take_string(run, "User", &c.user, err)) ||
        (rc = take_directory(run, "WorkingDir", &c.working_dir, err)) ||
        (rc = take_stop_signal(run, &c.stop_signal, err))) {
        sm_oci_config_clear(&c);
        return rc;
    }
    *config = c;
    return 0;
}

void sm_oci_config_clear(struct sm_oci_config *config)
{
    sm_strv_clear(&config->entrypoint);
    sm_strv_clear(&config->cmd);
    sm_strv_clear(&config->env);
    sm_strv_clear(&config->exposed);
    free(config->user);
    free(config->working_dir);
    *config = (struct sm_oci_config){0};
}
