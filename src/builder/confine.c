/*
 * Which paths the program keeps. See confine.h.
 *
 * Single files and directories, not all of /etc: root could read its passwords and keys there.
 */
#include "builder/confine.h"

#include <libgen.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "sandbox/sandbox.h"
#include "util/bytes.h"
#include "util/cleanup.h"

/* What is not there is left out. */
static const char *const of_names[] = {
    "/etc/resolv.conf",
    "/etc/hosts",
    "/etc/nsswitch.conf",
    "/etc/host.conf",
    "/etc/gai.conf",
    "/etc/services",
    "/etc/protocols",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/machine-id",
    "/run/systemd/resolve",
    "/run/NetworkManager",
    "/run/resolvconf",
    /* modules that libc loads for names and texts */
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/nix/store",
};
static const char *const of_certificates[] = {
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/ssl/cert.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/openssl.cnf",
    "/etc/pki/ca-trust",
    "/etc/ca-certificates",
    "/etc/crypto-policies",
    "/usr/share/ca-certificates",
    "/usr/share/pki",
    "/usr/share/crypto-policies",
    "/usr/local/share/ca-certificates",
    "/var/lib/ca-certificates",
};
/* What OpenSSL is told by its user. */
static const char *const of_environment[] = {
    "SSL_CERT_FILE", "SSL_CERT_DIR", "OPENSSL_CONF", "OPENSSL_MODULES"};

#define OTHERS 8 /* paths beside those of the tables, and the end */

struct paths {
    const char *list[SM_ARRAY_LEN(of_names) + SM_ARRAY_LEN(of_certificates) +
                     SM_ARRAY_LEN(of_environment) + OTHERS];
    size_t n;
};

static void add(struct paths *paths, const char *path)
{
    if (path && *path && paths->n + 1 < SM_ARRAY_LEN(paths->list))
        paths->list[paths->n++] = path;
}

static void add_all(struct paths *paths, const char *const *some, size_t n)
{
    for (size_t i = 0; i < n; i++)
        add(paths, some[i]);
}

int sm_builder_confine(struct sm_parsers *parsers, const struct sm_imgstore *store,
    const char *path, const char *ca, sm_error *err)
{
    struct paths read = {.n = 0};
    struct sm_sandbox_layers layers;
    if (parsers->program_is_confined)
        return 0;
    add_all(&read, of_names, SM_ARRAY_LEN(of_names));
    add_all(&read, of_certificates, SM_ARRAY_LEN(of_certificates));
    for (size_t i = 0; i < SM_ARRAY_LEN(of_environment); i++)
        add(&read, getenv(of_environment[i]));
    /* A link's target, which is in a directory that is written anew. */
    auto_free char *resolv_conf = realpath("/etc/resolv.conf", NULL);
    add(&read, resolv_conf && strcmp(dirname(resolv_conf), "/etc") != 0 ? resolv_conf : NULL);
    add(&read, path);
    add(&read, ca);
    const char *const write[] = {sm_imgstore_path(store), "/dev/null", NULL};
    const struct sm_sandbox_spec spec = {
        .who = "supermachine-image",
        .has_network = true,
        .keeps_root = true,
        .ends_others = true,
        .keeps_file_rights = true,
        .read_paths = read.list,
        .write_paths = write,
        .trap_fd = -1,
    };
    parsers->program_is_confined = true;
    return sm_sandbox_enter(&spec, &layers, err);
}
