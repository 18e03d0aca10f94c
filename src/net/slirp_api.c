/* Loads libslirp and glib with it, and turns off what they would write to standard error. See
 * slirp_api.h. The functions are those of version 4.7; what lacks one is refused by name. */
#include "net/slirp_api.h"

#include <dlfcn.h>
#include <limits.h>
#include <string.h>

#include "util/bytes.h"
#include "util/error.h"

#define LIBRARY "libslirp.so.0"

/* glib's g_log_set_handler: libslirp writes to stderr what it thinks of a guest's packets. */
typedef unsigned log_fn(const char *domain, unsigned levels,
    void (*handler)(const char *, unsigned, const char *, void *), void *arg);

static void ignore_log(const char *domain, unsigned level, const char *message, void *arg)
{
    (void)domain, (void)level, (void)message, (void)arg;
}

static void silence(void *handle)
{
    void *symbol = dlsym(handle, "g_log_set_handler");
    log_fn *set_handler;
    memcpy(&set_handler, &symbol, sizeof(symbol));
    if (set_handler)
        set_handler("Slirp", UINT_MAX, ignore_log, NULL);
}

int sm_slirp_load(struct sm_slirp_api *api, sm_error *err)
{
    void *handle = dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle)
        return sm_error_set(err, SM_ENOTFOUND,
            "cannot load %s for the guest's network (%s); install libslirp0 or use --network none",
            LIBRARY, dlerror());
    struct sm_slirp_api loaded = {.handle = handle};
    const struct {
        const char *name;
        void *slot;
    } symbols[] = {
        {"slirp_new", &loaded.create},
        {"slirp_cleanup", &loaded.cleanup},
        {"slirp_pollfds_fill", &loaded.pollfds_fill},
        {"slirp_pollfds_poll", &loaded.pollfds_poll},
        {"slirp_input", &loaded.input},
        {"slirp_add_unix", &loaded.add_unix},
    };
    for (size_t i = 0; i < SM_ARRAY_LEN(symbols); i++) {
        void *symbol = dlsym(handle, symbols[i].name);
        if (!symbol)
            return sm_error_set(err, SM_EUNSUPPORTED,
                "%s is too old: it has no %s; version 4.7 or later is needed", LIBRARY,
                symbols[i].name);
        memcpy(symbols[i].slot, &symbol,
            sizeof(symbol)); /* object to function pointer, as POSIX has it */
    }
    silence(handle);
    *api = loaded;
    return 0;
}
