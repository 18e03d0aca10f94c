/* Challenges (RFC 7235, distribution's token specification). See http_auth.h. */
#include "builder/http_auth.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "image/json.h"
#include "util/bytes.h"
#include "util/error.h"

enum { MAX_TOKEN = 64 << 10 };

static const char *skip_space(const char *p)
{
    return p + strspn(p, " \t,");
}

/* Reads NAME="VALUE" or NAME=VALUE; NULL when there is none. */
static const char *take_parameter(
    const char *p, const char **name, size_t *name_len, char *value, size_t room)
{
    *name = p;
    *name_len = strcspn(p, "= \t,");
    p += *name_len;
    if (*p != '=')
        return NULL;
    p++;
    size_t n = 0;
    bool quoted = *p == '"';
    if (quoted)
        p++;
    while (*p && (quoted ? *p != '"' : !strchr(" \t,", *p))) {
        if (quoted && *p == '\\' && p[1])
            p++;
        if (n + 1 >= room)
            return NULL;
        value[n++] = *p++;
    }
    value[n] = '\0';
    if (quoted && *p++ != '"')
        return NULL;
    return p;
}

bool sm_challenge_parse(struct sm_challenge *challenge, const char *text)
{
    const char *p = skip_space(text);
    if (strncasecmp(p, "Basic", 5) == 0 && (p[5] == ' ' || !p[5])) {
        challenge->basic = true;
        return true;
    }
    if (strncasecmp(p, "Bearer ", 7) != 0)
        return false;
    struct sm_challenge found = {.bearer = true, .basic = challenge->basic};
    p = skip_space(p + 7);
    while (*p) {
        const char *name;
        size_t len;
        char value[512];
        p = take_parameter(p, &name, &len, value, sizeof(value));
        if (!p)
            return false;
        if (len == 5 && strncasecmp(name, "realm", 5) == 0)
            snprintf(found.realm, sizeof(found.realm), "%s", value);
        else if (len == 7 && strncasecmp(name, "service", 7) == 0)
            snprintf(found.service, sizeof(found.service), "%.255s", value);
        else if (len == 5 && strncasecmp(name, "scope", 5) == 0)
            snprintf(found.scope, sizeof(found.scope), "%s", value);
        p = skip_space(p);
    }
    if (!*found.realm)
        return false;
    *challenge = found;
    return true;
}

char *sm_basic_credentials(const char *user, const char *password)
{
    auto_free char *pair = NULL;
    int n = asprintf(&pair, "%s:%s", user, password);
    if (n < 0) {
        pair = NULL;
        return NULL;
    }
    char *text = malloc((size_t)(n + 2) / 3 * 4 + 1);
    if (text)
        EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)pair, n);
    explicit_bzero(pair, (size_t)n);
    return text;
}

int sm_token_parse(const char *data, size_t size, char **token, sm_error *err)
{
    auto_json *root = NULL;
    int rc = sm_json_parse(data, size, "the token server's answer", &root, err);
    if (rc)
        return rc;
    const char *text = sm_json_string(root, "token");
    if (!text)
        text = sm_json_string(root, "access_token");
    if (!text || !*text || strlen(text) > MAX_TOKEN)
        return sm_error_set(
            err, SM_EPROTOCOL, "the token server's answer has no valid token in it");
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p <= 0x20 || (unsigned char)*p >= 0x7f)
            return sm_error_set(
                err, SM_EPROTOCOL, "the token server's answer has no valid token in it");
    *token = strdup(text);
    return *token ? 0 : sm_error_set(err, SM_ENOMEM, "out of memory");
}
