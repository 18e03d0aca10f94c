/*
 * Where credentials are looked for, in this order: the file that was named (option or
 * $REGISTRY_AUTH_FILE) alone; $XDG_RUNTIME_DIR/containers/auth.json,
 * ~/.config/containers/auth.json, ~/.docker/config.json. In each file a helper that is named for
 * the host comes first, then `auths` from the most special name (host/namespace/repository) to the
 * host, then the file's general helper.
 */
#include "builder/credentials.h"

#include <fcntl.h>
#include <libgen.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <string.h>

#include "builder/credential_helper.h"
#include "builder/http_auth.h"
#include "image/json.h"
#include "util/bytes.h"
#include "util/error.h"
#include "util/file.h"

enum {
    MAX_PLACES = 4,
    LOCK_WAIT_MS = 10000, /* for another login; helpers may ask the user something */
};

#define DOCKER_IO_KEY "https://index.docker.io/v1/"

struct places {
    char *paths[MAX_PLACES];
    size_t count;
};

static void places_clear(struct places *p)
{
    for (size_t i = 0; i < p->count; i++)
        free(p->paths[i]);
}

static void add_place(struct places *p, const char *dir, const char *rest)
{
    if (dir && *dir && asprintf(&p->paths[p->count], "%s%s", dir, rest) >= 0)
        p->count++;
}

static void find_places(struct places *p, const char *authfile)
{
    const char *named = authfile ? authfile : getenv("REGISTRY_AUTH_FILE");
    if (named && *named) {
        add_place(p, named, "");
        return;
    }
    const char *home = getenv("HOME"), *config = getenv("XDG_CONFIG_HOME"),
               *docker = getenv("DOCKER_CONFIG");
    add_place(p, getenv("XDG_RUNTIME_DIR"), "/containers/auth.json");
    add_place(p, config && *config ? config : home,
        config && *config ? "/containers/auth.json" : "/.config/containers/auth.json");
    add_place(p, docker && *docker ? docker : home,
        docker && *docker ? "/config.json" : "/.docker/config.json");
}

void sm_credentials_clear(struct sm_credentials *c)
{
    char *secrets[] = {c->user, c->password, c->identity_token};
    for (size_t i = 0; i < SM_ARRAY_LEN(secrets); i++) {
        if (secrets[i])
            explicit_bzero(secrets[i], strlen(secrets[i]));
        free(secrets[i]);
    }
    *c = (struct sm_credentials){0};
}

/* ---- one file -------------------------------------------------------------------------------- */

/* Names in `auths` may have a scheme and, for hosts, a path behind: "https://host/v1/". */
static bool key_is(const char *key, const char *name)
{
    if (strcmp(key, name) == 0)
        return true;
    if (strncmp(key, "https://", 8) == 0)
        key += 8;
    else if (strncmp(key, "http://", 7) == 0)
        key += 7;
    size_t n = strlen(name);
    if (strncmp(key, name, n) != 0)
        return false;
    return !key[n] || strcmp(key + n, "/") == 0 || strcmp(key + n, "/v1/") == 0 ||
           strcmp(key + n, "/v2/") == 0 || strcmp(key + n, "/v1") == 0 ||
           strcmp(key + n, "/v2") == 0;
}

static const char *helper_key(const char *host)
{
    return strcmp(host, "docker.io") == 0 ? DOCKER_IO_KEY : host;
}

static const json_t *find_entry(const json_t *map, const char *name)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)map, key,
        value) if (key_is(key, name) ||
                   (strcmp(name, "docker.io") == 0 && key_is(key, "index.docker.io"))) return value;
    return NULL;
}

static int decode(const json_t *entry, struct sm_credentials *c, sm_error *err)
{
    const char *auth = sm_json_string(entry, "auth"), *user = sm_json_string(entry, "username"),
               *password = sm_json_string(entry, "password"),
               *token = sm_json_string(entry, "identitytoken");
    bool ok = true;
    if (token && *token) {
        c->identity_token = strdup(token);
        return c->identity_token ? 0 : sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    if (auth && *auth) {
        size_t n = strlen(auth);
        auto_free char *pair = calloc(1, n + 4);
        if (!pair)
            return sm_error_set(err, SM_ENOMEM, "out of memory");
        if (n % 4 != 0 ||
            EVP_DecodeBlock((unsigned char *)pair, (const unsigned char *)auth, (int)n) < 0)
            return sm_error_set(
                err, SM_ECORRUPT, "an entry of the credentials file is not valid base64");
        char *colon = strchr(pair, ':');
        if (!colon)
            return sm_error_set(
                err, SM_ECORRUPT, "an entry of the credentials file has no ':' in it");
        c->user = strndup(pair, (size_t)(colon - pair));
        c->password = strdup(colon + 1);
        explicit_bzero(pair, n);
        ok = c->user && c->password;
    } else if (user && password) {
        c->user = strdup(user);
        c->password = strdup(password);
        ok = c->user && c->password;
    }
    return ok ? 0 : sm_error_set(err, SM_ENOMEM, "out of memory");
}

/* The credential helper of this registry alone; NULL: there is none. */
static const char *helper_of(const json_t *root, const char *host)
{
    return json_string_value(find_entry(json_object_get(root, "credHelpers"), host));
}

static int find_in_file(const json_t *root, const char *host, const char *repository,
    struct sm_credentials *c, sm_error *err)
{
    const char *helper = helper_of(root, host);
    if (helper)
        return sm_helper_get(helper, helper_key(host), c, err);
    const json_t *auths = json_object_get(root, "auths");
    auto_free char *name = NULL;
    if (asprintf(&name, "%s/%s", host, repository ? repository : "") < 0) {
        name = NULL;
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    for (char *slash = name + strlen(name); slash; slash = strrchr(name, '/')) {
        *slash = '\0';
        const json_t *entry = find_entry(auths, name);
        if (entry) {
            int rc = decode(entry, c, err);
            if (rc || c->user || c->identity_token)
                return rc;
        }
    }
    helper = sm_json_string(root, "credsStore");
    return helper ? sm_helper_get(helper, helper_key(host), c, err) : 0;
}

int sm_credentials_find(const char *host, const char *repository, const char *authfile,
    struct sm_credentials *c, sm_error *err)
{
    struct places p = {0};
    find_places(&p, authfile);
    *c = (struct sm_credentials){0};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < p.count && !c->user && !c->identity_token; i++) {
        auto_json *root = NULL;
        rc = sm_json_load_at(AT_FDCWD, p.paths[i], &root, err);
        if (rc == -SM_ENOTFOUND && !authfile)
            rc = 0;
        else if (rc == 0)
            rc = find_in_file(root, host, repository, c, err);
        if (rc)
            sm_error_prefix(err, rc, "credentials in %.100s", p.paths[i]);
    }
    places_clear(&p);
    if (rc)
        sm_credentials_clear(c);
    return rc;
}

/* ---- changing -------------------------------------------------------------------------------- */

/* A credentials file that is being changed. Its partial file is there, and locked, before it is
 * read: of two logins at once the second sees what the first has written. */
struct change {
    char *path;
    json_t *root;
    struct sm_partial file;
};

static void change_clear(struct change *c)
{
    json_decref(c->root);
    sm_partial_close(&c->file);
    free(c->path);
}
#define auto_change SM_CLEANUP(change_clear) struct change

/* Of the file that login changes: the named one, or the first place. */
static int change_begin(struct change *c, const char *authfile, sm_error *err)
{
    struct places p = {0};
    find_places(&p, authfile);
    if (p.count == 0)
        return sm_error_set(
            err, SM_EINVAL, "there is no place for credentials: set HOME, or name a file");
    c->path = sm_steal_ptr(&p.paths[0]);
    places_clear(&p);
    auto_free char *copy = strdup(c->path);
    if (!copy || sm_make_dirs(AT_FDCWD, dirname(copy)) != 0)
        return sm_error_errno(err, errno, "cannot make the directory of %s", c->path);
    int rc = sm_partial_open(
        &c->file, AT_FDCWD, c->path, &(struct sm_partial_options){.wait_ms = LOCK_WAIT_MS}, err);
    if (rc)
        return rc;
    rc = sm_json_load_at(AT_FDCWD, c->path, &c->root, err);
    if (rc == -SM_ENOTFOUND) {
        c->root = json_object();
        rc = c->root ? 0 : sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    return rc;
}

/* Whole or not at all, and never readable for others. */
static int change_end(struct change *c, sm_error *err)
{
    auto_free char *text = json_dumps(c->root, JSON_INDENT(4));
    if (!text)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    size_t n = strlen(text);
    int rc = sm_write_all(c->file.fd, text, n) == 0
                 ? sm_partial_commit(&c->file, SM_PARTIAL_SYNC_FILE, err)
                 : sm_error_errno(err, errno, "cannot write the credentials file %s", c->path);
    explicit_bzero(text, n);
    return rc;
}

int sm_credentials_store(
    const char *host, const char *user, const char *password, const char *authfile, sm_error *err)
{
    auto_change c = {.file = SM_PARTIAL_NONE};
    int rc = change_begin(&c, authfile, err);
    if (rc)
        return rc;
    const char *helper = helper_of(c.root, host);
    if (helper)
        return sm_helper_store(helper, helper_key(host), user, password, err);
    auto_free char *pair = sm_basic_credentials(user, password);
    json_t *auths = json_object_get(c.root, "auths");
    if (pair && !auths && json_object_set_new(c.root, "auths", json_object()) == 0)
        auths = json_object_get(c.root, "auths");
    if (!pair || !json_is_object(auths) ||
        json_object_set_new(auths, host, json_pack("{s:s}", "auth", pair)) != 0)
        return sm_error_set(err, SM_ENOMEM, "cannot add credentials to %s", c.path);
    explicit_bzero(pair, strlen(pair));
    return change_end(&c, err);
}

int sm_credentials_erase(const char *host, const char *authfile, sm_error *err)
{
    auto_change c = {.file = SM_PARTIAL_NONE};
    int rc = change_begin(&c, authfile, err);
    if (rc)
        return rc;
    const char *helper = helper_of(c.root, host);
    if (helper)
        return sm_helper_erase(helper, helper_key(host), err);
    json_t *auths = json_object_get(c.root, "auths");
    const char *key;
    json_t *value;
    void *next;
    bool found = false;
    json_object_foreach_safe(auths, next, key, value)
    {
        if (key_is(key, host)) {
            json_object_del(auths, key);
            found = true;
        }
    }
    if (!found)
        return sm_error_set(err, SM_ENOTFOUND, "nobody is logged in to %s (%s)", host, c.path);
    return change_end(&c, err);
}
