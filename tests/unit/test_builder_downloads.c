/* Blobs that come from a registry: who reads them while they come, and what of them is kept. The
 * registry is this program: it sends a piece each time that it is let to, on whatever thread
 * asks. */
#include "snapshot_util.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "builder/blobs.h"
#include "builder/digest.h"
#include "builder/downloads.h"
#include "image/store_files.h"
#include "util/bytes.h"
#include "util/error.h"

enum { PIECE = 1000 };

static sm_error err;
static char *dir;
static struct sm_imgstore *store;
static int held = -1;

/* What the registry has, and what was asked of it. */
static struct {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    const char *data;
    size_t size;
    size_t allowed; /* bytes that it may send */
    size_t breaks;  /* where it breaks off; 0: nowhere */
    uint64_t asked_from;
    bool stopped;
} registry = {.lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER};

int __wrap_sm_http_get(struct sm_http *http, struct sm_http_get *get, sm_error *why);
void __wrap_sm_http_stop(struct sm_http *http);

int __wrap_sm_http_get(struct sm_http *http, struct sm_http_get *get, sm_error *why)
{
    int rc = 0;
    pthread_mutex_lock(&registry.lock);
    registry.asked_from = get->from;
    while (rc == 0 && get->from < registry.size) {
        while (get->from >= registry.allowed && !registry.stopped)
            pthread_cond_wait(&registry.changed, &registry.lock);
        if (registry.stopped || (registry.breaks && get->from >= registry.breaks)) {
            pthread_mutex_unlock(&registry.lock);
            return sm_error_set(why, SM_ENETWORK, "the connection broke");
        }
        size_t n = SM_MIN((size_t)PIECE, registry.allowed - (size_t)get->from);
        pthread_mutex_unlock(&registry.lock);
        rc = get->sink(get->arg, registry.data + get->from, n, why);
        get->from += n;
        pthread_mutex_lock(&registry.lock);
    }
    pthread_mutex_unlock(&registry.lock);
    return rc;
}

void __wrap_sm_http_stop(struct sm_http *http)
{
    pthread_mutex_lock(&registry.lock);
    registry.stopped = true;
    pthread_cond_broadcast(&registry.changed);
    pthread_mutex_unlock(&registry.lock);
}

static void allow(size_t bytes)
{
    pthread_mutex_lock(&registry.lock);
    registry.allowed = bytes;
    pthread_cond_broadcast(&registry.changed);
    pthread_mutex_unlock(&registry.lock);
}

static struct sm_downloads *start(const char *data, size_t size, size_t allowed)
{
    registry.data = data;
    registry.size = size;
    registry.breaks = 0;
    registry.stopped = false;
    allow(allowed);
    struct sm_downloads *downloads = sm_downloads_new(store, NULL, "example.com/x");
    assert_non_null(downloads);
    return downloads;
}

static char data[10 * PIECE];

static int open_store(void **state)
{
    dir = make_dir();
    for (size_t i = 0; i < sizeof(data); i++)
        data[i] = (char)(i * 7 + i / 256);
    return sm_imgstore_open(&store, dir, &err) || sm_store_hold_blobs(store, &held, &err);
}

static int close_store(void **state)
{
    close(held);
    sm_imgstore_close(store);
    remove_dir(dir);
    return 0;
}

static struct sm_descriptor blob_of(const char *bytes, size_t size)
{
    struct sm_descriptor d = {.size = size};
    assert_int_equal(sm_digest_of(bytes, size, d.digest, &err), 0);
    return d;
}

/* Reads from `pos` to the end, or to what ends it; its length. */
static size_t read_on(struct sm_blob *blob, size_t pos, int *rc)
{
    static char buf[3 * PIECE];
    ssize_t n;
    size_t begin = pos;
    while ((n = sm_blob_read(blob, pos, buf, sizeof(buf), &err)) > 0) {
        assert_memory_equal(buf, data + pos, (size_t)n);
        pos += (size_t)n;
    }
    *rc = (int)n;
    return pos - begin;
}

static void it_is_read_while_it_comes(void **state)
{
    const struct sm_descriptor d = blob_of(data, sizeof(data));
    struct sm_downloads *downloads = start(data, sizeof(data), PIECE);
    auto_blob blob = {.fd = -1};
    char buf[2 * PIECE];
    int rc;
    assert_int_equal(sm_downloads_add(downloads, &d, &err), 0);
    assert_int_equal(sm_downloads_open(downloads, &d, &blob, &err), 0);
    assert_int_equal(sm_blob_read(&blob, 0, buf, sizeof(buf), &err), PIECE);
    assert_int_equal(sm_store_open_blob(store, &d), -1); /* that nobody has whole yet */
    allow(sizeof(data));
    assert_int_equal(read_on(&blob, PIECE, &rc), sizeof(data) - PIECE);
    assert_int_equal(rc, 0);
    auto_fd fd = sm_store_open_blob(store, &d);
    assert_true(fd >= 0);
    sm_downloads_free(downloads);
}

static void nobody_has_one_whole_that_is_damaged(void **state)
{
    struct sm_descriptor d = blob_of(data, sizeof(data) - 1);
    d.size++;
    struct sm_downloads *downloads = start(data, sizeof(data), sizeof(data));
    auto_blob blob = {.fd = -1};
    int rc;
    assert_int_equal(sm_downloads_open(downloads, &d, &blob, &err), 0);
    assert_true(read_on(&blob, 0, &rc) < sizeof(data));
    assert_int_equal(rc, -SM_ECORRUPT);
    assert_non_null(strstr(err.message, "example.com/x: the blob sha256:"));
    sm_downloads_free(downloads);
    assert_int_equal(sm_store_open_blob(store, &d), -1);
}

static void what_broke_off_goes_on(void **state)
{
    const struct sm_descriptor d = blob_of(data, sizeof(data));
    auto_blob first = {.fd = -1};
    auto_blob second = {.fd = -1};
    int rc;
    struct sm_downloads *downloads = start(data, sizeof(data), sizeof(data));
    registry.breaks = 3 * PIECE;
    assert_int_equal(sm_downloads_open(downloads, &d, &first, &err), 0);
    assert_int_equal(read_on(&first, 0, &rc), 3 * PIECE);
    assert_int_equal(rc, -SM_ENETWORK);
    sm_downloads_free(downloads);
    downloads = start(data, sizeof(data), sizeof(data));
    assert_int_equal(sm_downloads_open(downloads, &d, &second, &err), 0);
    assert_int_equal(read_on(&second, 0, &rc), sizeof(data));
    assert_int_equal(rc, 0);
    assert_int_equal(registry.asked_from, 3 * PIECE);
    sm_downloads_free(downloads);
}

static void one_that_is_there_is_not_asked_for(void **state)
{
    const struct sm_descriptor d = blob_of(data, PIECE);
    char name[SM_STORE_NAME_MAX];
    sm_store_blob_name(d.digest, name);
    assert_int_equal(sm_store_write(store, name, data, PIECE, &err), 0);
    struct sm_downloads *downloads = start(data, PIECE, 0);
    auto_blob blob = {.fd = -1};
    int rc;
    assert_int_equal(sm_downloads_open(downloads, &d, &blob, &err), 0);
    assert_int_equal(read_on(&blob, 0, &rc), PIECE);
    struct sm_descriptor other = d;
    other.size++;
    assert_int_equal(sm_downloads_add(downloads, &other, &err), -SM_ECORRUPT);
    sm_downloads_free(downloads);
}

static void what_is_under_way_ends_with_the_queue(void **state)
{
    struct sm_downloads *downloads = start(data, sizeof(data), PIECE);
    auto_blob blob = {.fd = -1};
    char buf[PIECE];
    for (unsigned i = 0; i < 8; i++) {
        const struct sm_descriptor d = blob_of(data + i, sizeof(data) - i);
        assert_int_equal(sm_downloads_add(downloads, &d, &err), 0);
    }
    const struct sm_descriptor d = blob_of(data, sizeof(data));
    assert_int_equal(sm_downloads_open(downloads, &d, &blob, &err), 0);
    assert_int_equal(sm_blob_read(&blob, 0, buf, sizeof(buf), &err), PIECE);
    sm_downloads_free(downloads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(it_is_read_while_it_comes, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            nobody_has_one_whole_that_is_damaged, open_store, close_store),
        cmocka_unit_test_setup_teardown(what_broke_off_goes_on, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            one_that_is_there_is_not_asked_for, open_store, close_store),
        cmocka_unit_test_setup_teardown(
            what_is_under_way_ends_with_the_queue, open_store, close_store),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
