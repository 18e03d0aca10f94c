/*
 * From a reference to an image of the store. The root filesystem is made under the name
 * NAME.partial, on which an exclusive lock is held from its creation to the rename; who finds it
 * locked waits and then takes what the other has made. A .partial that nobody has locked is what is
 * left of a builder that was killed: it is removed. The record is written last, when all it names
 * is there.
 */
#include "builder/make_image.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "builder/archive.h"
#include "builder/confine.h"
#include "builder/digest.h"
#include "builder/plan.h"
#include "builder/registry.h"
#include "builder/store_source.h"
#include "builder/stream.h"
#include "builder/unpack.h"
#include "image/find.h"
#include "image/json.h"
#include "image/leads.h"
#include "image/record.h"
#include "image/seal.h"
#include "image/store_files.h"
#include "image/tags.h"
#include "rootfs/rootfs.h"
#include "util/error.h"
#include "util/file.h"

enum {
    WAIT_STEP_MS = 500, /* after each it is told what is waited for */
};

/* Who we are to the registry: found once, since after that the program is confined and could
 * not. */
struct login {
    bool known;
    struct sm_credentials credentials;
};

struct build {
    struct sm_imgstore *store;
    const struct sm_make_options *options;
    struct sm_reference *ref;
    struct sm_platform platform;
    struct sm_source *source;
    struct sm_plan plan;
    struct login *login;
    bool again; /* the image is in the store, and made anew */
    char *path; /* local kinds: absolute */
    struct sm_file_stamp stamp;
    char rootfs[SM_STORE_NAME_MAX];
    uint64_t rootfs_size;
    sm_error *err;
};

static void tell(const struct build *b, const char *what, uint64_t done, uint64_t total)
{
    if (b->options->progress)
        b->options->progress(
            b->options->progress_arg, &(sm_progress){.what = what, .done = done, .total = total});
}

/* More of a blob is here; only layers are worth a word. */
static void tell_of_blob(void *arg, const struct sm_descriptor *d, uint64_t have)
{
    const struct build *b = arg;
    size_t i = 0, n = b->plan.layer_count;
    while (i < n && strcmp(b->plan.layers[i].blob.digest, d->digest) != 0)
        i++;
    if (i == n || !b->options->progress)
        return;
    char what[13];
    snprintf(what, sizeof(what), "%.12s", d->digest + strlen("sha256:"));
    b->options->progress(b->options->progress_arg, &(sm_progress){.what = what,
                                                       .done = have,
                                                       .total = d->size,
                                                       .layer = (unsigned)i + 1,
                                                       .layers = (unsigned)n});
}

static void unpack_progress(void *arg, size_t layer, size_t layers, uint64_t done, uint64_t total)
{
    struct build *b = arg;
    char what[64];
    snprintf(what, sizeof(what), "unpacking layer %zu of %zu", layer + 1, layers);
    tell(b, what, done, total);
    if (b->source->news)
        b->source->news(b->source, tell_of_blob, b);
}

/* ---- what the reference leads to ------------------------------------------------------------- */

static int plan_layout(struct build *b, json_t *index)
{
    struct sm_descriptor top;
    int rc = sm_layout_choose(index, b->ref->name, &b->platform, &top, b->err);
    if (rc == 0)
        rc = sm_plan_oci(b->source, &top, &b->platform, &b->plan, b->err);
    return rc;
}

static int plan_registry(struct build *b)
{
    const struct sm_fetch *fetch = &b->options->fetch;
    struct sm_descriptor top;
    tell(b, "asking the registry", 0, 0);
    int rc = b->login->known ? 0
                             : sm_credentials_find(b->ref->host, b->ref->repository,
                                   fetch->authfile, &b->login->credentials, b->err);
    b->login->known = true;
    if (rc == 0)
        rc = sm_builder_confine(b->options->parsers, b->store, NULL, fetch->tls_ca, b->err);
    if (rc == 0)
        rc = sm_registry_open(
            b->store, b->ref, &b->login->credentials, fetch, &b->source, &top, b->err);
    return rc ? rc : sm_plan_oci(b->source, &top, &b->platform, &b->plan, b->err);
}

static int plan_archive(struct build *b, const char *path)
{
    auto_json *root = NULL;
    int rc;
    if (b->ref->kind == SM_REF_OCI_ARCHIVE) {
        rc = sm_oci_archive_open(b->store, b->options->parsers, path, &b->source, &root, b->err);
        return rc ? rc : plan_layout(b, root);
    }
    rc = sm_docker_archive_open(b->store, b->options->parsers, path, &b->source, &root, b->err);
    return rc ? rc : sm_plan_docker(b->source, root, b->ref->name, &b->platform, &b->plan, b->err);
}

/* The source has the file open; it needs no name. */
static int plan_stream(struct build *b)
{
    auto_partial file = SM_PARTIAL_NONE;
    auto_free char *path = NULL;
    int rc = sm_builder_confine(b->options->parsers, b->store, NULL, NULL, b->err);
    if (rc)
        return rc;
    if (b->again || !b->options->stream)
        return sm_error_set(b->err, SM_ENOTFOUND,
            "it came over the standard input, and is not kept: give the archive again");
    rc = sm_store_keep_stream(b->store, b->options->stream, &file, &path, b->err);
    return rc ? rc : plan_archive(b, path);
}

static int plan_local(struct build *b)
{
    auto_json *root = NULL;
    if (sm_reference_is_stream(b->ref))
        return plan_stream(b);
    b->path = realpath(b->ref->path, NULL);
    if (!b->path)
        return sm_error_errno(b->err, errno, "cannot open %s", b->ref->path);
    /* Blobs of a layout may be links to anywhere, as Bazel makes them. */
    bool is_dir = b->ref->kind == SM_REF_OCI_DIR;
    int rc =
        sm_builder_confine(b->options->parsers, b->store, is_dir ? "/" : b->path, NULL, b->err);
    if (rc)
        return rc;
    if (is_dir) {
        rc = sm_layout_open(b->path, &b->source, &root, b->err);
        return rc ? rc : plan_layout(b, root);
    }
    rc = sm_store_stamp(b->path, &b->stamp, b->err);
    return rc ? rc : plan_archive(b, b->path);
}

/* The reference becomes the one that the image came from; a registry is asked by the digest, since
 * the name may lead elsewhere by now. */
static int take_origin(struct build *b, const struct sm_image_info *info)
{
    struct sm_reference *origin = NULL;
    int rc = sm_reference_parse(info->source, &origin, b->err);
    if (rc)
        return rc;
    sm_reference_free(b->ref);
    b->ref = origin;
    if (origin->kind != SM_REF_REGISTRY)
        return 0;
    free(origin->tag);
    free(origin->digest);
    origin->tag = NULL;
    origin->digest = strdup(info->digest);
    return origin->digest ? 0 : sm_error_set(b->err, SM_ENOMEM, "out of memory");
}

/* An image that the store has a record of, once more: from where it came, or from blobs that were
 * loaded. */
static int plan_again(struct build *b)
{
    struct sm_image_info info;
    int rc = sm_store_resolve(b->store, b->ref, &b->platform, false, &info, b->err);
    if (rc)
        return rc;
    b->again = true;
    rc = sm_platform_parse(info.platform, &b->platform, b->err);
    if (rc == 0)
        rc = take_origin(b, &info);
    if (rc == 0 && b->ref->kind == SM_REF_REGISTRY) {
        rc = plan_registry(b);
    } else if (rc == 0) {
        rc = sm_stored_open(b->store, &info, &b->platform, &b->source, &b->plan, b->err);
        if (rc == -SM_ENOTFOUND) {
            sm_source_free(b->source);
            sm_plan_clear(&b->plan);
            b->source = NULL;
            rc = plan_local(b);
        }
    }
    if (rc == 0 && strcmp(b->plan.digest, info.digest) != 0)
        rc = sm_error_set(
            b->err, SM_ENOTFOUND, "what it was made from (%.200s) has changed since", info.source);
    sm_image_info_clear(&info);
    return rc;
}

static int make_plan(struct build *b)
{
    switch (b->ref->kind) {
    case SM_REF_DIGEST:
        return plan_again(b);
    case SM_REF_REGISTRY:
        return plan_registry(b);
    default:
        return plan_local(b);
    }
}

/* ---- the root filesystem --------------------------------------------------------------------- */

/* Whether the finished file is there, and whole; it is then locked (shared) by *fd, which stays -1
 * otherwise. */
static int find_rootfs(struct build *b, int *fd)
{
    auto_fd f = openat(b->store->fd, b->rootfs, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (f < 0 || sm_store_flock(f, LOCK_SH, 5000, NULL) != 0 || fstat(f, &st) != 0 ||
        st.st_nlink == 0)
        return 0;
    int rc = sm_seal_check(b->store, b->rootfs, f, SM_SEAL_WHOLE, b->err);
    if (rc == -SM_ECORRUPT) {
        tell(b, "the root filesystem is damaged: making it anew", 0, 0);
        return 0;
    }
    if (rc)
        return rc;
    b->rootfs_size = (uint64_t)st.st_size;
    *fd = sm_steal_fd(&f);
    return 0;
}

/* Opens NAME.partial, which makes us the only one who may put a file in its place. Another builder
 * of the image is waited for as long as it lives. */
static int begin_partial(struct build *b, struct sm_partial *file)
{
    const struct sm_partial_options options = {.wait_ms = WAIT_STEP_MS};
    int rc;
    while ((rc = sm_partial_open(file, b->store->fd, b->rootfs, &options, b->err)) == -SM_EBUSY)
        tell(b, "waiting for another process that makes the same image", 0, 0);
    return rc ? sm_error_prefix(b->err, rc, "the image store %s", b->store->path) : 0;
}

/* What layers may unpack to bounds what they may be, too: nothing else does where an endless blob
 * never unpacks to anything. */
static int check_sizes(const struct build *b)
{
    const uint64_t limit =
        b->options->fetch.max_bytes ? b->options->fetch.max_bytes : SM_ROOTFS_MAX_BYTES;
    uint64_t left = limit;
    for (size_t i = 0; i < b->plan.layer_count; i++) {
        uint64_t size = b->plan.layers[i].blob.size;
        if (size > left)
            return sm_error_set(b->err, SM_ELIMIT, "the image's layers are larger than %llu MiB",
                (unsigned long long)limit >> 20);
        left -= size;
    }
    return 0;
}

static int prefetch(struct build *b)
{
    size_t count = b->plan.layer_count;
    if (!b->source->prefetch || count == 0)
        return 0;
    auto_free const struct sm_descriptor **blobs =
        reallocarray(NULL, count, sizeof(struct sm_descriptor *));
    if (!blobs)
        return sm_error_set(b->err, SM_ENOMEM, "out of memory");
    for (size_t i = 0; i < count; i++)
        blobs[i] = &b->plan.layers[i].blob;
    return b->source->prefetch(b->source, blobs, count, b->err);
}

static int fill_partial(struct build *b, int fd)
{
    struct sm_parsers *parsers = b->options->parsers;
    const struct sm_rootfs_limits limits = {.bytes = b->options->fetch.max_bytes};
    unsigned char id[32];
    sm_digest_sum(b->plan.chain_id, id);
    int rc = prefetch(b);
    if (rc == 0)
        rc = sm_unpack(parsers, b->source, &b->plan, fd, &limits, unpack_progress, b, b->err);
    if (rc == 0)
        tell(b, "writing the file system", 0, 0);
    return rc ? rc : sm_parsers_finish(parsers, id, b->err);
}

/* Seals it, and gives it its name. Its lock becomes the one of a user before that. A file that it
 * takes the place of is damaged; who runs from that goes on with what he has. */
static int publish(struct build *b, struct sm_partial *file, int *fd)
{
    struct stat st;
    if (fchmod(file->fd, 0400) != 0 || fstat(file->fd, &st) != 0 ||
        flock(file->fd, LOCK_SH | LOCK_NB) != 0)
        return sm_error_errno(
            b->err, errno, "cannot put the root filesystem into the store %s", b->store->path);
    int rc = sm_seal_make(b->store, b->rootfs, file->fd, b->err);
    if (rc == 0)
        rc = sm_partial_commit(file, SM_PARTIAL_SYNC_ALL, b->err);
    if (rc)
        return rc;
    b->rootfs_size = (uint64_t)st.st_size;
    *fd = sm_steal_fd(&file->fd);
    return 0;
}

/* *fd holds the shared lock on the finished file. */
static int make_rootfs(struct build *b, int *fd)
{
    if (sm_make_dirs(b->store->fd, "rootfs") != 0)
        return sm_error_errno(b->err, errno, "cannot write into the store %s", b->store->path);
    int rc = find_rootfs(b, fd);
    if (rc || *fd >= 0)
        return rc;
    auto_partial file = SM_PARTIAL_NONE;
    rc = begin_partial(b, &file);
    if (rc == 0) /* whoever was waited for may have made it */
        rc = find_rootfs(b, fd);
    if (rc || *fd >= 0)
        return rc;
    rc = fill_partial(b, file.fd);
    return rc ? rc : publish(b, &file, fd);
}

/* ---- records --------------------------------------------------------------------------------- */

/* Whether the image can still be made from where it came from. */
static bool source_is_there(const char *source)
{
    auto_reference ref = NULL;
    return sm_reference_parse(source, &ref, NULL) == 0 &&
           (ref->kind == SM_REF_REGISTRY || access(ref->path, R_OK) == 0);
}

/* An image that the store has already stays what it is: where it came from, and when. */
static void keep_origin(struct build *b, struct sm_image_info *info, struct sm_image_info *old)
{
    if (sm_store_get_image(b->store, info->digest, NULL, false, old, NULL) != 0 ||
        (!b->again && !source_is_there(old->source)))
        return;
    info->source = old->source;
    info->created = old->created;
}

static int record(struct build *b)
{
    char platform[SM_PLATFORM_TEXT];
    sm_platform_format(&b->plan.platform, platform);
    struct sm_reference absolute = *b->ref;
    if (b->path)
        absolute.path = b->path;
    auto_free char *source = sm_reference_format(&absolute);
    if (!source)
        return sm_error_set(b->err, SM_ENOMEM, "out of memory");
    if (b->options->source) {
        free(source);
        source = strdup(b->options->source);
        if (!source)
            return sm_error_set(b->err, SM_ENOMEM, "out of memory");
    }
    struct sm_image_info old = {.rootfs_fd = -1}, info = {
                                                      .digest = b->plan.digest,
                                                      .platform = platform,
                                                      .config = b->plan.config,
                                                      .source = source,
                                                      .rootfs_path = b->rootfs,
                                                      .rootfs_size = b->rootfs_size,
                                                      .created = time(NULL),
                                                  };
    keep_origin(b, &info, &old);
    int rc = sm_store_put_image(b->store, &info, b->err);
    sm_image_info_clear(&old);
    if (rc == 0 && strcmp(b->plan.top, b->plan.digest) != 0)
        rc = sm_store_put_choice(b->store, b->plan.top, &b->platform, b->plan.digest, b->err);
    if (rc == 0 && b->ref->kind == SM_REF_REGISTRY && !b->ref->digest)
        rc = sm_store_put_tag(b->store, b->ref, b->plan.top, b->err);
    if (rc == 0 && b->path && !b->options->source && b->ref->kind != SM_REF_OCI_DIR)
        rc = sm_store_put_archive(
            b->store, b->ref, b->path, &b->platform, &b->stamp, b->plan.digest, b->err);
    return rc;
}

/* ---- all ------------------------------------------------------------------------------------- */

static int run(struct build *b, const char *reference)
{
    int rc = sm_reference_parse(reference, &b->ref, b->err);
    if (rc == 0)
        rc = sm_platform_parse(b->options->fetch.platform, &b->platform, b->err);
    if (rc == 0)
        rc = make_plan(b);
    if (rc == 0)
        rc = check_sizes(b);
    if (rc)
        return rc;
    sm_store_rootfs_name(b->plan.chain_id, b->rootfs);
    auto_fd held = -1;
    rc = make_rootfs(b, &held);
    return rc ? rc : record(b);
}

int sm_make_image(struct sm_imgstore *store, const char *reference,
    const struct sm_make_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    int rc = 0;
    bool again = true;
    struct login login = {.known = false};
    for (int attempt = 0; attempt < 2 && again; attempt++) {
        struct build b = {.store = store, .options = options, .login = &login, .err = err};
        rc = run(&b, reference);
        if (rc == 0)
            memcpy(digest, b.plan.digest, SM_DIGEST_LEN + 1);
        /* A blob of the store may have been damaged by a crash of the machine: once more without
         * it. */
        again = rc == -SM_ECORRUPT && b.source && b.source->discard && b.source->discard(b.source);
        sm_plan_clear(&b.plan);
        sm_source_free(b.source);
        sm_reference_free(b.ref);
        free(b.path);
    }
    sm_credentials_clear(&login.credentials);
    return rc ? sm_error_prefix(err, rc, "image %.200s", reference) : 0;
}
