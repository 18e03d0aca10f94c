/* Reference and platform texts. The grammar of names is that of distribution's reference package,
 * which docker, podman and skopeo share. See reference.h. */
#include "image/reference.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>

#include "util/bytes.h"
#include "util/error.h"

enum {
    MAX_REFERENCE = 4096 + 512, /* a path and a name */
    MAX_NAME = 255,             /* host and repository */
    MAX_TAG = 128,
    MIN_ID_PREFIX = 4,
};

static const struct {
    const char *prefix;
    enum sm_ref_kind kind;
} transports[] = {
    {"oci:", SM_REF_OCI_DIR},
    {"oci-archive:", SM_REF_OCI_ARCHIVE},
    {"docker-archive:", SM_REF_DOCKER_ARCHIVE},
};

static bool is_lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool is_alnum(char c)
{
    return is_lower_alnum(c) || (c >= 'A' && c <= 'Z');
}

static bool is_hex(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!((s[i] >= '0' && s[i] <= '9') || (s[i] >= 'a' && s[i] <= 'f')))
            return false;
    return true;
}

bool sm_digest_valid(const char *text)
{
    return text && strlen(text) == SM_DIGEST_LEN && memcmp(text, "sha256:", 7) == 0 &&
           is_hex(text + 7, SM_SHA256_HEX_LEN);
}

/* One path component: alphanumeric runs separated by '.', '_', "__" or any number of '-'. */
static bool component_valid(const char *s, size_t n)
{
    size_t i = 0;
    while (true) {
        size_t run = i;
        while (i < n && is_lower_alnum(s[i]))
            i++;
        if (i == run)
            return false;
        if (i == n)
            return true;
        if (s[i] == '-') {
            while (i < n && s[i] == '-')
                i++;
        } else if (s[i] == '_') {
            i += i + 1 < n && s[i + 1] == '_' ? 2 : 1;
        } else if (s[i] == '.') {
            i++;
        } else {
            return false;
        }
    }
}

static bool repository_valid(const char *s)
{
    while (true) {
        const char *slash = strchrnul(s, '/');
        if (!component_valid(s, (size_t)(slash - s)))
            return false;
        if (!*slash)
            return true;
        s = slash + 1;
    }
}

static bool port_valid(const char *s)
{
    size_t n = strlen(s);
    unsigned value = 0;
    for (size_t i = 0; i < n; i++) {
        if (s[i] < '0' || s[i] > '9' || i >= 5)
            return false;
        value = value * 10 + (unsigned)(s[i] - '0');
    }
    return n > 0 && value > 0 && value <= 65535;
}

static bool host_valid(const char *s)
{
    if (*s == '[') {
        const char *end = strchr(s, ']');
        if (!end || end == s + 1 ||
            strspn(s + 1, "0123456789abcdefABCDEF:") != (size_t)(end - s - 1))
            return false;
        return end[1] == '\0' || (end[1] == ':' && port_valid(end + 2));
    }
    const char *colon = strchrnul(s, ':');
    if (*colon && !port_valid(colon + 1))
        return false;
    while (s < colon) {
        const char *dot = memchr(s, '.', (size_t)(colon - s));
        const char *end = dot ? dot : colon;
        if (end == s || !is_alnum(*s) || !is_alnum(end[-1]))
            return false;
        for (const char *p = s; p < end; p++)
            if (!is_alnum(*p) && *p != '-')
                return false;
        if (end < colon && end + 1 == colon)
            return false;
        s = end < colon ? end + 1 : end;
    }
    return true;
}

static bool tag_valid(const char *s)
{
    size_t n = strlen(s);
    if (n == 0 || n > MAX_TAG || *s == '.' || *s == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_alnum(s[i]) && !strchr("_.-", s[i]))
            return false;
    return true;
}

void sm_reference_free(struct sm_reference *ref)
{
    if (!ref)
        return;
    free(ref->path);
    free(ref->name);
    free(ref->host);
    free(ref->repository);
    free(ref->tag);
    free(ref->digest);
    free(ref->id_prefix);
    free(ref);
}

static int parse_local(const char *text, const char *rest, struct sm_reference *ref, sm_error *err)
{
    const char *colon = strchrnul(rest, ':');
    if (colon == rest)
        return sm_error_set(
            err, SM_EINVAL, "reference %.200s names no path after the transport", text);
    ref->path = strndup(rest, (size_t)(colon - rest));
    if (*colon) {
        if (colon[1] == '\0')
            return sm_error_set(
                err, SM_EINVAL, "reference %.200s ends with ':' without a name behind it", text);
        ref->name = strdup(colon + 1);
    }
    if (!ref->path || (*colon && !ref->name))
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    return 0;
}

/* Where the host ends: as other tools do, the part before the first '/' is a host only if it has a
 * '.' or ':', is "localhost" or has an upper-case letter (which no namespace has). */
static size_t host_length(const char *name)
{
    const char *slash = strchr(name, '/');
    if (!slash)
        return 0;
    size_t n = (size_t)(slash - name);
    if ((n == 9 && memcmp(name, "localhost", 9) == 0) || *name == '[')
        return n;
    for (size_t i = 0; i < n; i++)
        if (name[i] == '.' || name[i] == ':' || isupper((unsigned char)name[i]))
            return n;
    return 0;
}

static int split_name(const char *text, const char *name, struct sm_reference *ref, sm_error *err)
{
    size_t n = host_length(name);
    const char *path = n ? name + n + 1 : name;
    ref->short_name = n == 0;
    ref->host = n ? strndup(name, n) : strdup("docker.io");
    if (!ref->host)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    if (!host_valid(ref->host))
        return sm_error_set(err, SM_EINVAL, "reference %.200s: %.100s is not a valid registry host",
            text, ref->host);
    if (strcmp(ref->host, "index.docker.io") == 0)
        strcpy(ref->host, "docker.io");
    bool library = strcmp(ref->host, "docker.io") == 0 && !strchr(path, '/');
    if (asprintf(&ref->repository, "%s%s", library ? "library/" : "", path) < 0) {
        ref->repository = NULL;
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    if (!repository_valid(ref->repository)) {
        for (const char *p = path; *p; p++)
            if (isupper((unsigned char)*p))
                return sm_error_set(
                    err, SM_EINVAL, "reference %.200s: a repository name must be lower case", text);
        return sm_error_set(err, SM_EINVAL, "reference %.200s is not a valid image name", text);
    }
    if (strlen(ref->host) + 1 + strlen(ref->repository) > MAX_NAME)
        return sm_error_set(err, SM_EINVAL,
            "reference %.100s...: the name is longer than %d characters", text, MAX_NAME);
    return 0;
}

static int parse_registry(
    const char *text, const char *rest, struct sm_reference *ref, sm_error *err)
{
    auto_free char *name = strdup(rest);
    if (!name)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    char *at = strchr(name, '@');
    if (at) {
        *at = '\0';
        if (!sm_digest_valid(at + 1))
            return sm_error_set(err, SM_EINVAL,
                "reference %.200s: a digest is \"sha256:\" and 64 lower-case hex digits", text);
        ref->digest = strdup(at + 1);
        if (!ref->digest)
            return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    char *slash = strrchr(name, '/');
    char *colon = strchr(slash ? slash : name, ':');
    if (colon) {
        *colon = '\0';
        if (!tag_valid(colon + 1))
            return sm_error_set(err, SM_EINVAL, "reference %.200s: %.140s is not a valid tag", text,
                colon[1] ? colon + 1 : "the empty text");
        ref->tag = strdup(colon + 1);
    } else if (!ref->digest) {
        ref->tag = strdup("latest");
    }
    if (!ref->tag && (colon || !ref->digest))
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    size_t n = strlen(rest);
    if (n >= MIN_ID_PREFIX && n < SM_SHA256_HEX_LEN && is_hex(rest, n)) {
        ref->id_prefix = strdup(rest);
        if (!ref->id_prefix)
            return sm_error_set(err, SM_ENOMEM, "out of memory");
    }
    return split_name(text, name, ref, err);
}

/* "sha256:HEX" with at least MIN_ID_PREFIX digits, or 64 digits alone. */
static bool parse_digest(const char *text, struct sm_reference *ref)
{
    const char *hex = strncmp(text, "sha256:", 7) == 0 ? text + 7 : text;
    size_t n = strlen(hex);
    size_t least = hex == text ? SM_SHA256_HEX_LEN : MIN_ID_PREFIX;
    if (n < least || n > SM_SHA256_HEX_LEN || !is_hex(hex, n))
        return false;
    ref->kind = SM_REF_DIGEST;
    if (asprintf(&ref->digest, "sha256:%s", hex) < 0)
        ref->digest = NULL;
    return true;
}

int sm_reference_parse(const char *text, struct sm_reference **out, sm_error *err)
{
    if (!text || !*text)
        return sm_error_set(err, SM_EINVAL, "the image reference is empty");
    if (strlen(text) > MAX_REFERENCE)
        return sm_error_set(
            err, SM_EINVAL, "the image reference is longer than %d characters", MAX_REFERENCE);
    for (const char *p = text; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f)
            return sm_error_set(
                err, SM_EINVAL, "the image reference has a control character in it");
    auto_reference ref = calloc(1, sizeof(*ref));
    if (!ref)
        return sm_error_set(err, SM_ENOMEM, "out of memory");
    for (size_t i = 0; i < SM_ARRAY_LEN(transports); i++) {
        size_t n = strlen(transports[i].prefix);
        if (strncmp(text, transports[i].prefix, n) != 0)
            continue;
        ref->kind = transports[i].kind;
        int rc = parse_local(text, text + n, ref, err);
        if (rc == 0)
            *out = sm_steal_ptr(&ref);
        return rc;
    }
    if (parse_digest(text, ref)) {
        if (!ref->digest)
            return sm_error_set(err, SM_ENOMEM, "out of memory");
        *out = sm_steal_ptr(&ref);
        return 0;
    }
    ref->kind = SM_REF_REGISTRY;
    const char *rest = strncmp(text, "docker://", 9) == 0 ? text + 9 : text;
    const char *scheme = strstr(rest, "://");
    if (scheme)
        return sm_error_set(err, SM_EINVAL,
            "reference %.200s: leave out %.*s://, or use docker://, oci:, oci-archive: or docker-archive:",
            text, (int)SM_MIN(scheme - rest, 40), rest);
    int rc = parse_registry(text, rest, ref, err);
    if (rc == 0)
        *out = sm_steal_ptr(&ref);
    return rc;
}

bool sm_reference_is_stream(const struct sm_reference *ref)
{
    return (ref->kind == SM_REF_OCI_ARCHIVE || ref->kind == SM_REF_DOCKER_ARCHIVE) &&
           strcmp(ref->path, "-") == 0;
}

char *sm_reference_format(const struct sm_reference *ref)
{
    char *text = NULL;
    int n;
    if (ref->kind == SM_REF_DIGEST)
        n = asprintf(&text, "%s", ref->digest);
    else if (ref->kind == SM_REF_REGISTRY)
        n = asprintf(&text, "%s/%s%s%s%s%s", ref->host, ref->repository, ref->tag ? ":" : "",
            ref->tag ? ref->tag : "", ref->digest ? "@" : "", ref->digest ? ref->digest : "");
    else
        n = asprintf(&text, "%s%s%s%s", transports[ref->kind].prefix, ref->path,
            ref->name ? ":" : "", ref->name ? ref->name : "");
    return n < 0 ? NULL : text;
}

static bool platform_part(const char **p, char out[16])
{
    size_t n = strcspn(*p, "/");
    if (n == 0 || n > 15 || !is_lower_alnum(**p))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!is_lower_alnum((*p)[i]) && !strchr("._-", (*p)[i]))
            return false;
    memcpy(out, *p, n);
    out[n] = '\0';
    *p += n;
    if (**p == '/')
        (*p)++;
    return true;
}

int sm_platform_parse(const char *text, struct sm_platform *platform, sm_error *err)
{
    *platform = (struct sm_platform){"linux", "amd64", ""};
    if (!text) {
        struct utsname name;
        if (uname(&name) == 0 && strcmp(name.machine, "aarch64") == 0) {
            strcpy(platform->arch, "arm64");
            strcpy(platform->variant, "v8");
        }
        return 0;
    }
    const char *p = text;
    bool ok = platform_part(&p, platform->os) && platform_part(&p, platform->arch) &&
              (!*p || platform_part(&p, platform->variant)) && !*p;
    if (!ok || text[strlen(text) - 1] == '/')
        return sm_error_set(err, SM_EINVAL,
            "platform \"%.60s\" is not of the form os/arch[/variant], as in linux/amd64", text);
    return 0;
}

void sm_platform_format(const struct sm_platform *platform, char text[SM_PLATFORM_TEXT])
{
    snprintf(text, SM_PLATFORM_TEXT, "%s/%s%s%s", platform->os, platform->arch,
        *platform->variant ? "/" : "", platform->variant);
}
