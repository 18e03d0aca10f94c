/*
 * From a reference to an image of the store. The root filesystem is made under the name
 * NAME.partial, on which an exclusive lock is held from its creation to the rename; who finds it
 * locked waits and then takes what the other has made. A .partial that nobody has locked is what is
 * left of a builder that was killed: it is removed. The record is written last, when all it names is
 * there.
 */
#include "oci/build.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "oci/archive.h"
#include "oci/digest.h"
#include "oci/json.h"
#include "oci/plan.h"
#include "oci/registry.h"
#include "oci/store_internal.h"
#include "oci/unpack.h"
#include "util/error.h"
#include "util/file.h"

enum {
    WAIT_STEP_MS = 500,
    WAIT_STEPS = 2 * 60 * 60, /* an hour for another builder of the same image */
};

struct build {
    struct sm_imgstore *store;
    const struct sm_build_options *options;
    struct sm_reference *ref;
    struct sm_platform platform;
    struct sm_source *source;
    struct sm_plan plan;
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

/* ---- what the reference leads to ---------------------------------------------------------------- */

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
    const struct sm_registry_options options = {
        .tls_ca = b->options->tls_ca,
        .authfile = b->options->authfile,
        .insecure = b->options->insecure_registry,
        .stall_s = b->options->stall_s,
    };
    struct sm_descriptor top;
    tell(b, "asking the registry", 0, 0);
    int rc = sm_registry_open(b->store, b->ref, &options, &b->source, &top, b->err);
    return rc ? rc : sm_plan_oci(b->source, &top, &b->platform, &b->plan, b->err);
}

static int make_plan(struct build *b)
{
    auto_json *root = NULL;
    int rc;
    if (b->ref->kind == SM_REF_DIGEST)
        return sm_error_set(b->err, SM_ENOTFOUND, "the store has no image %s", b->ref->digest);
    if (b->ref->kind == SM_REF_REGISTRY)
        return plan_registry(b);
    b->path = realpath(b->ref->path, NULL);
    if (!b->path)
        return sm_error_errno(b->err, errno, "cannot open %s", b->ref->path);
    if (b->ref->kind == SM_REF_OCI_DIR) {
        rc = sm_layout_open(b->path, &b->source, &root, b->err);
        if (rc == 0)
            rc = plan_layout(b, root);
        return rc;
    }
    rc = sm_store_stamp(b->path, &b->stamp, b->err);
    if (rc)
        return rc;
    if (b->ref->kind == SM_REF_OCI_ARCHIVE) {
        rc = sm_oci_archive_open(b->store, b->path, &b->source, &root, b->err);
        return rc ? rc : plan_layout(b, root);
    }
    rc = sm_docker_archive_open(b->store, b->path, &b->source, &root, b->err);
    return rc ? rc : sm_plan_docker(b->source, root, b->ref->name, &b->platform, &b->plan, b->err);
}

/* ---- the root filesystem ------------------------------------------------------------------------ */

/* Whether the finished file is there; it is then locked (shared) by *fd. */
static bool rootfs_is_there(struct build *b, int *fd)
{
    auto_fd f = openat(b->store->fd, b->rootfs, O_RDONLY | O_CLOEXEC);
    struct stat st;
    if (f < 0 || sm_store_flock(f, LOCK_SH, 5000, NULL) != 0 || fstat(f, &st) != 0 ||
        st.st_nlink == 0)
        return false;
    b->rootfs_size = (uint64_t)st.st_size;
    *fd = sm_steal_fd(&f);
    return true;
}

/* Opens NAME.partial; *file stays closed when somebody else has finished meanwhile. */
static int begin_partial(struct build *b, struct sm_partial *file)
{
    int rc = -SM_EBUSY;
    for (int step = 0; rc == -SM_EBUSY && step < WAIT_STEPS; step++) {
        if (step > 0)
            tell(b, "waiting for another process that makes the same image", 0, 0);
        rc = sm_partial_open(file, b->store->fd, b->rootfs,
            &(struct sm_partial_options){.wait_ms = WAIT_STEP_MS}, b->err);
    }
    if (rc == -SM_EBUSY)
        return sm_error_set(
            b->err, SM_ETIMEOUT, "another process has been making the same image for an hour");
    if (rc)
        return sm_error_prefix(b->err, rc, "the image store %s", b->store->path);
    if (faccessat(b->store->fd, b->rootfs, F_OK, 0) == 0)
        sm_partial_close(file);
    return 0;
}

/* What layers may unpack to bounds what they may be, too: nothing else does where an endless blob never unpacks to
 * anything. */
static int check_sizes(const struct build *b)
{
    uint64_t limit = b->options->limits.bytes ? b->options->limits.bytes : SM_ROOTFS_MAX_BYTES,
             left = limit;
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

static int fill_partial(struct build *b, int fd, const char *partial)
{
    auto_free char *path = NULL;
    if (asprintf(&path, "%s/%s", b->store->path, partial) < 0) {
        path = NULL;
        return sm_error_set(b->err, SM_ENOMEM, "out of memory");
    }
    auto_rootfs rootfs = NULL;
    unsigned char id[32];
    sm_digest_sum(b->plan.chain_id, id);
    int rc = sm_rootfs_new(fd, path, &b->options->limits, &rootfs, b->err);
    if (rc == 0)
        rc = prefetch(b);
    if (rc == 0)
        rc = sm_unpack(b->source, &b->plan, rootfs, unpack_progress, b, b->err);
    if (rc == 0)
        tell(b, "writing the file system", 0, 0);
    return rc ? rc : sm_rootfs_finish(rootfs, id, b->err);
}

/* From here on the file is whole; its lock becomes the one of a user before it has its name. */
static int publish(struct build *b, struct sm_partial *file)
{
    if (fchmod(file->fd, 0400) != 0 || flock(file->fd, LOCK_SH | LOCK_NB) != 0)
        return sm_error_errno(
            b->err, errno, "cannot put the root filesystem into the store %s", b->store->path);
    return sm_partial_commit(file, SM_PARTIAL_SYNC_ALL, b->err);
}

/* *fd holds the shared lock on the finished file. */
static int make_rootfs(struct build *b, int *fd)
{
    if (mkdirat(b->store->fd, "rootfs", 0700) != 0 && errno != EEXIST)
        return sm_error_errno(b->err, errno, "cannot write into the store %s", b->store->path);
    for (int attempt = 0; attempt < 3; attempt++) {
        if (rootfs_is_there(b, fd))
            return 0;
        auto_partial file = SM_PARTIAL_NONE;
        int rc = begin_partial(b, &file);
        if (rc == 0 && file.fd < 0)
            continue;
        if (rc == 0)
            rc = fill_partial(b, file.fd, file.partial);
        if (rc == 0)
            rc = publish(b, &file);
        if (rc)
            return rc;
    }
    return rootfs_is_there(b, fd) ? 0
                                  : sm_error_set(b->err, SM_EBUSY,
                                        "the image is removed again and again "
                                        "by somebody else");
}

/* ---- records ------------------------------------------------------------------------------------ */

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
    const struct sm_image_info info = {
        .digest = b->plan.digest,
        .platform = platform,
        .config = b->plan.config,
        .source = source,
        .rootfs_path = b->rootfs,
        .rootfs_size = b->rootfs_size,
        .created = time(NULL),
    };
    int rc = sm_store_put_image(b->store, &info, b->err);
    if (rc == 0 && strcmp(b->plan.top, b->plan.digest) != 0)
        rc = sm_store_put_choice(b->store, b->plan.top, &b->platform, b->plan.digest, b->err);
    if (rc == 0 && b->ref->kind == SM_REF_REGISTRY && !b->ref->digest)
        rc = sm_store_put_tag(b->store, b->ref, b->plan.top, b->err);
    if (rc == 0 && (b->ref->kind == SM_REF_OCI_ARCHIVE || b->ref->kind == SM_REF_DOCKER_ARCHIVE))
        rc = sm_store_put_archive(
            b->store, b->ref, b->path, &b->platform, &b->stamp, b->plan.digest, b->err);
    return rc;
}

/* ---- all ---------------------------------------------------------------------------------------- */

static int run(struct build *b, const char *reference)
{
    int rc = sm_reference_parse(reference, &b->ref, b->err);
    if (rc == 0)
        rc = sm_platform_parse(b->options->platform, &b->platform, b->err);
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

int sm_build(struct sm_imgstore *store, const char *reference,
    const struct sm_build_options *options, char digest[SM_DIGEST_LEN + 1], sm_error *err)
{
    int rc = 0;
    bool again = true;
    for (int attempt = 0; attempt < 2 && again; attempt++) {
        struct build b = {.store = store, .options = options, .err = err};
        rc = run(&b, reference);
        if (rc == 0)
            memcpy(digest, b.plan.digest, SM_DIGEST_LEN + 1);
        /* A blob of the store may have been damaged by a crash of the machine: once more without it. */
        again = rc == -SM_ECORRUPT && b.source && b.source->discard && b.source->discard(b.source);
        sm_plan_clear(&b.plan);
        sm_source_free(b.source);
        sm_reference_free(b.ref);
        free(b.path);
    }
    return rc ? sm_error_prefix(err, rc, "image %.200s", reference) : 0;
}
