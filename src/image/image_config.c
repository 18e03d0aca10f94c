/* What an OCI image config says about running the image. See image_config.h. */
#include "image/image_config.h"

#include <jansson.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "util/cleanup.h"
#include "util/error.h"

/* More than any image has; what the agent takes is bounded too, by the wire format. */
#define MAX_LIST 4096

static int no_memory(sm_error *err)
{
    return sm_error_set(err, SM_ENOMEM, "no memory for the image's configuration");
}

/* A string, "" where there is none or null. */
static int take_string(const json_t *config, const char *key, char **value, sm_error *err)
{
    const json_t *v = json_object_get(config, key);
    if (v && !json_is_null(v) && !json_is_string(v))
        return sm_error_set(err, SM_ECORRUPT, "%s in the image's configuration is no string", key);
    *value = strdup(json_is_string(v) ? json_string_value(v) : "");
    return *value ? 0 : no_memory(err);
}

static int take_list(const json_t *config, const char *key, struct sm_strv *list, sm_error *err)
{
    const json_t *v = json_object_get(config, key);
    if (!v || json_is_null(v))
        return 0;
    if (json_is_string(v)) /* seen in the wild, meaning one word */
        return sm_strv_add(list, json_string_value(v)) ? 0 : no_memory(err);
    if (!json_is_array(v) || json_array_size(v) > MAX_LIST)
        return sm_error_set(err, SM_ECORRUPT,
            "%s in the image's configuration is no list of at most %d strings", key, MAX_LIST);
    for (size_t i = 0; i < json_array_size(v); i++) {
        const char *text = json_string_value(json_array_get(v, i));
        if (!text)
            return sm_error_set(err, SM_ECORRUPT,
                "%s in the image's configuration has an entry that is no string", key);
        if (!sm_strv_add(list, text))
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

int sm_signal_number(const char *name)
{
    char *end;
    long number = strtol(name, &end, 10);
    if (*name && !*end)
        return number > 0 && number < 65 ? (int)number : 0;
    if (strncasecmp(name, "SIG", 3) == 0)
        name += 3;
    /* The numbers are those of the guest: Linux, whose real-time signals begin at 34 for
     * programs. */
    const int rtmin = 34, rtmax = 64;
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

int sm_oci_config_parse(struct sm_oci_config *config, const char *json, sm_error *err)
{
    *config = (struct sm_oci_config){0};
    struct sm_oci_config c = {0};
    auto_free char *stop_signal = NULL;
    json_error_t where;
    json_t *root = json_loads(json, 0, &where);
    if (!root)
        return sm_error_set(err, SM_ECORRUPT, "the image's configuration is no JSON (line %d: %s)",
            where.line, where.text);
    const json_t *run = json_object_get(root, "config");
    int rc = take_list(run, "Entrypoint", &c.entrypoint, err);
    if (!rc)
        rc = take_list(run, "Cmd", &c.cmd, err);
    if (!rc)
        rc = take_list(run, "Env", &c.env, err);
    if (!rc)
        rc = take_keys(run, "ExposedPorts", &c.exposed, err);
    if (!rc)
        rc = take_string(run, "User", &c.user, err);
    if (!rc)
        rc = take_string(run, "WorkingDir", &c.working_dir, err);
    if (!rc)
        rc = take_string(run, "StopSignal", &stop_signal, err);
    json_decref(root);
    if (rc) {
        sm_oci_config_clear(&c);
        return rc;
    }
    c.stop_signal = sm_signal_number(stop_signal);
    if (!c.stop_signal)
        c.stop_signal = SIGTERM;
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
