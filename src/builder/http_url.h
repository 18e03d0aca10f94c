/* What a URL or a registry's name says about the way there: whose origin it is, whether it may be
 * plain HTTP, which proxy. */
#ifndef SM_BUILDER_HTTP_URL_H
#define SM_BUILDER_HTTP_URL_H

#include <curl/curl.h>
#include <stdbool.h>
#include <sys/socket.h>

#include "util/cleanup.h"

/* Whether a host, with or without a port, is this machine: localhost, 127.0.0.0/8, [::1]. */
bool sm_host_is_local(const char *host);
bool sm_url_is_local(const char *url);
bool sm_url_is_tls(const char *url);

/* How near an address is to us: 0 anywhere, 1 in a private network, 2 this machine or its link
 * (where clouds have their metadata). */
#define SM_NEAREST 2
int sm_address_nearness(const struct sockaddr *address);
int sm_ip_nearness(const char *ip); /* the same of its text; what is none is anywhere */

/* Scheme, host and port as libcurl understands them, as one text; NULL for what is no URL.
 * malloc'ed. */
char *sm_url_origin(const char *url);

/* The proxies of the environment, as other container tools read it: http_proxy, https_proxy and
 * no_proxy in lower or upper case (libcurl by itself knows no HTTP_PROXY), and never for this
 * machine. */
void sm_url_set_proxy(CURL *curl, const char *url);

#endif
