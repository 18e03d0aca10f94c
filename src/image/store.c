/* The directory that is the store. See store.h. */
#include "image/store.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "image/store_files.h"
#include "util/cleanup.h"
#include "util/error.h"

char *sm_imgstore_default_dir(sm_error *err)
{
    const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
    char *path = NULL;
    int n = 0;
    if (data && *data == '/')
        n = asprintf(&path, "%s/supermachine", data);
    else if (home && *home == '/')
        n = asprintf(&path, "%s/.local/share/supermachine", home);
    else
        sm_error_set(err, SM_EINVAL,
            "neither XDG_DATA_HOME nor HOME is set, so there is no place for the image store: "
            "set one of them or name a store");
    if (n < 0) {
        sm_error_set(err, SM_ENOMEM, "no memory for a path");
        path = NULL;
    }
    return path;
}

int sm_imgstore_open(struct sm_imgstore **out, const char *dir, sm_error *err)
{
    sm_error why;
    auto_free char *path = dir ? strdup(dir) : sm_imgstore_default_dir(&why);
    auto_fd fd = -1;
    if (!path && dir)
        return sm_error_set(err, SM_ENOMEM, "no memory for a path");
    if (!path)
        return sm_error_set(err, why.code, "%s", why.message);
    int rc = sm_open_private_dir(path, "image store", &fd, err);
    if (rc)
        return rc;
    struct sm_imgstore *store = calloc(1, sizeof(*store));
    char *absolute = realpath(path, NULL);
    if (!store || !absolute) {
        rc = sm_error_errno(err, errno, "cannot open the image store %s", path);
        free(store);
        free(absolute);
        return rc;
    }
    store->path = absolute;
    store->fd = sm_steal_fd(&fd);
    *out = store;
    return 0;
}

void sm_imgstore_close(struct sm_imgstore *store)
{
    if (!store)
        return;
    sm_close(store->fd);
    free(store->path);
    free(store);
}

const char *sm_imgstore_path(const struct sm_imgstore *store)
{
    return store->path;
}
