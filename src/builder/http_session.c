/* Where requests may go. See http_session.h. */
#include "builder/http_session.h"

#include <strings.h>

#include "builder/http_url.h"

/* Plain HTTP is for this machine, and for who said that it will do. That a registry is here says
 * nothing about the places that it sends us to. */
bool sm_http_plain_allowed(const struct sm_http *h, const char *url)
{
    return h->insecure || sm_url_is_local(url);
}

const char *sm_http_place_refused(const struct sm_http *h, const char *url)
{
    bool tls = sm_url_is_tls(url);
    if (!tls && strncasecmp(url, "http:", 5) != 0)
        return "what is not HTTP";
    if (sm_url_is_local(url) && !sm_host_is_local(h->host))
        return "this machine";
    return tls || sm_http_plain_allowed(h, url) ? NULL : "a place without TLS";
}
