/*
 * Limits of resources. Both the soft and the hard one, so that nobody raises them again.
 *
 * It runs before any list of system calls is in force.
 */
#include <errno.h>
#include <signal.h>
#include <sys/resource.h>

#include "sandbox/internal.h"
#include "util/error.h"

struct limit {
    __rlimit_resource_t resource;
    const char *name;
    uint64_t value;
    bool wanted;
};

static int lower(const struct limit *limit, sm_error *err)
{
    struct rlimit old;
    if (getrlimit(limit->resource, &old) < 0)
        return sm_error_errno(err, errno, "cannot read the limit %s", limit->name);
    rlim_t value = limit->value < old.rlim_max ? limit->value : old.rlim_max;
    if (setrlimit(limit->resource, &(struct rlimit){value, value}) < 0)
        return sm_error_errno(
            err, errno, "cannot set the limit %s to %ju", limit->name, (uintmax_t)value);
    return 0;
}

int sm_sandbox_limit(
    const struct sm_sandbox_spec *spec, struct sm_sandbox_layers *layers, sm_error *err)
{
    const struct limit limits[] = {
        {RLIMIT_CORE, "RLIMIT_CORE", 0, true},
        {RLIMIT_DATA, "RLIMIT_DATA", spec->data_limit, spec->data_limit != 0},
        {RLIMIT_FSIZE, "RLIMIT_FSIZE", spec->file_limit, spec->file_limit != 0},
        {RLIMIT_NOFILE, "RLIMIT_NOFILE", spec->descriptor_limit, spec->descriptor_limit != 0},
    };
    /* Who writes beyond the limit gets EFBIG and says so; the signal would end it wordlessly. */
    if (spec->file_limit && signal(SIGXFSZ, SIG_IGN) == SIG_ERR)
        return sm_error_errno(err, errno, "cannot ignore SIGXFSZ");
    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        int rc = limits[i].wanted ? lower(&limits[i], err) : 0;
        if (rc) {
            sm_layer_set(
                layers, SM_LAYER_LIMITS, SM_LAYER_MISSING, 0, "%s cannot be set", limits[i].name);
            return rc;
        }
    }
    sm_layer_set(layers, SM_LAYER_LIMITS, SM_LAYER_IN_FORCE, 0, NULL);
    return 0;
}
