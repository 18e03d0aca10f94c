/* libslirp, loaded when it is needed (why: slirp.h). */
#ifndef SM_NET_SLIRP_API_H
#define SM_NET_SLIRP_API_H

#include <slirp/libslirp.h>

#include <supermachine.h>

struct sm_slirp_api {
    __typeof__(slirp_new) *create;
    __typeof__(slirp_cleanup) *cleanup;
    __typeof__(slirp_pollfds_fill) *pollfds_fill;
    __typeof__(slirp_pollfds_poll) *pollfds_poll;
    __typeof__(slirp_input) *input;
    __typeof__(slirp_add_unix)
        *add_unix; /* not called: it came with 4.7, as callbacks did that we have */
    void *handle;
};

/* Loads the library. It is never unloaded: glib does not allow that. */
int sm_slirp_load(struct sm_slirp_api *api, sm_error *err);

#endif
