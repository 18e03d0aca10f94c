/*
 * The network process of a VM: a loop with one thread, on which the far end of the card's socket is
 * a card to libslirp with policy and name server, or to a tap interface.
 *
 * It holds sockets and nothing else: no file, no memory of the guest's. What it is to be comes as
 * one message on descriptor 3, from a client whom it believes as far as that is well-formed; what
 * the guest sends comes on descriptor 4 and is hostile. It ends when the other end of either is
 * closed or its client has ended.
 *
 * libslirp is loaded before the process is confined: afterwards there is no file to load it from.
 *
 * System calls: recvfrom, sendto.
 * System calls before a list: getrlimit, setrlimit.
 */
#include "monitor/network.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "net/dns_proxy.h"
#include "net/process_message.h"
#include "net/slirp_api.h"
#include "net/socket_card.h"
#include "net/tap.h"
#include "net/user_net.h"
#include "sandbox/calls.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"
#include "util/loop.h"

/* The sockets of the user-mode network, three for each question to a name server, and ours. */
#define DESCRIPTORS (SM_USER_NET_SOCKETS + 3 * SM_DNS_MAX_PENDING + 64)
/* What the bounds of docs/network.md add up to (281 MB were seen), and half of it for the heap's
 * holes. */
#define MEMORY         (512ull << 20)
#define ASKED_A_SECOND 4 /* looks at resolv.conf that the client is asked for */

struct network {
    struct sm_loop *loop;
    struct sm_loop_watch *control, *client;
    struct sm_net_backend *backend; /* the card's, once that is there */
    struct sm_socket_card *card;
    bool user;
    bool over;
    struct sm_rate asked;
    uint8_t order[SM_NETWORK_MAX_ORDER + 1];
};

/* ---- to the client --------------------------------------------------------------------------- */

/* What the client has no room for is lost. */
static bool report(const struct sm_network_report *what)
{
    uint8_t record[SM_NETWORK_MAX_REPORT];
    size_t len = sm_network_report_encode(what, record);
    return send(SM_NETWORK_FD_CONTROL, record, len, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0;
}

static void say(enum sm_network_report_kind kind, const char *text)
{
    struct sm_network_report what = {.kind = kind};
    snprintf(what.text, sizeof(what.text), "%s", text);
    report(&what);
}

static void on_denied(void *arg, const struct sm_denial *denial)
{
    (void)arg;
    report(&(struct sm_network_report){.kind = SM_NETWORK_DENIED, .denial = *denial});
}

static void on_trouble(void *arg, const char *message)
{
    (void)arg;
    say(SM_NETWORK_TROUBLE, message);
}

static void on_asked(void *arg)
{
    struct network *n = arg;
    uint64_t suppressed;
    if (sm_rate_take(&n->asked, (uint64_t)sm_now_ms(), &suppressed))
        say(SM_NETWORK_ASKED, "");
}

/* ---- from the client ------------------------------------------------------------------------- */

/* Positive: there is one; 0: none now; negative: nor will there ever be. */
static int next_order(struct network *n, struct sm_network_order *order, sm_error *err)
{
    ssize_t len = recv(SM_NETWORK_FD_CONTROL, n->order, sizeof(n->order), MSG_DONTWAIT);
    if (len < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (len <= 0)
        return sm_error_set(err, SM_ECANCELLED, "the client has closed its end");
    int rc = sm_network_order_decode(n->order, (size_t)len, order, err);
    return rc ? rc : 1;
}

static void tell_resolv_conf(struct network *n, const struct sm_network_order *order)
{
    char *text = strndup(order->resolv_conf, order->resolv_conf_len);
    if (text && n->user)
        sm_user_net_tell(n->backend, text);
    free(text);
}

static void on_control(void *arg, uint32_t events)
{
    (void)events;
    struct network *n = arg;
    struct sm_network_order order;
    int rc = next_order(n, &order, NULL);
    if (rc < 0)
        n->over = true;
    else if (rc > 0 && order.kind == SM_NETWORK_RESOLV)
        tell_resolv_conf(n, &order);
}

static void on_client(void *arg, uint32_t events)
{
    (void)events;
    ((struct network *)arg)->over = true;
}

static void on_gone(void *arg)
{
    say(SM_NETWORK_DONE, "");
    ((struct network *)arg)->over = true;
}

/* ---- setting up ------------------------------------------------------------------------------ */

/* As many as the bounds of the network speak of, where that is allowed. */
static void raise_descriptors(void)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= DESCRIPTORS)
        return;
    limit.rlim_cur = SM_MIN(limit.rlim_max, (rlim_t)DESCRIPTORS);
    (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int confine(sm_error *err)
{
    const struct sm_sandbox_spec spec = {
        .who = "the network's process",
        .data_limit = MEMORY,
        .file_limit = 1,
        .descriptor_limit = DESCRIPTORS,
        .has_network = true,
        .calls = &sm_calls_network,
        .trap_fd = SM_NETWORK_FD_CONTROL,
    };
    struct sm_sandbox_layers layers;
    return sm_sandbox_enter(&spec, &layers, err);
}

static int make_backend(struct network *n, const struct sm_network_order *order, sm_error *err)
{
    auto_policy policy = {0};
    bool judged = order->policy_len > 0;
    int rc = judged ? sm_policy_parse(order->policy, order->policy_len, &policy, err) : 0;
    if (rc)
        return rc;
    if (order->tap) {
        const struct sm_tap_config config = {.fd = SM_NETWORK_FD_TAP,
            .policy = judged ? &policy : NULL,
            .denied = order->reports ? on_denied : NULL,
            .link = order->link,
            .link_prefix = order->link_prefix};
        return sm_tap_create(n->loop, &config, &n->backend, err);
    }
    const struct sm_user_net_config config = {.policy = &policy,
        .denied = order->reports ? on_denied : NULL,
        .asked = on_asked,
        .asked_arg = n,
        .trouble = on_trouble};
    rc = sm_user_net_create(n->loop, &config, &n->backend, err);
    n->user = !rc;
    return rc;
}

static int plug(struct network *n, sm_error *err)
{
    const struct sm_socket_card_config config = {
        .fd = SM_NETWORK_FD_FRAMES, .backend = n->backend, .gone = on_gone, .arg = n};
    int rc = sm_socket_card_create(n->loop, &config, &n->card, err);
    if (!rc)
        rc = sm_loop_add(
            n->loop, SM_NETWORK_FD_CONTROL, SM_LOOP_IN, on_control, n, &n->control, err);
    if (!rc)
        rc = sm_loop_add(n->loop, SM_NETWORK_FD_CLIENT, SM_LOOP_IN, on_client, n, &n->client, err);
    return rc;
}

static int set_up(struct network *n, sm_error *err)
{
    struct sm_network_order order = {.kind = SM_NETWORK_SETUP};
    int rc = next_order(n, &order, err);
    if (rc == 0 || (rc > 0 && order.kind != SM_NETWORK_SETUP))
        rc = sm_error_set(err, SM_EPROTOCOL, "the network process was not told what to be");
    if (rc < 0)
        return rc;
    struct sm_slirp_api loaded;
    if (!order.tap && sm_slirp_load(&loaded, NULL))
        (void)0; /* said with the guest's first frame that needs it */
    raise_descriptors();
    if ((rc = confine(err)) || (rc = sm_loop_create(&n->loop, err)) ||
        (rc = make_backend(n, &order, err)))
        return rc;
    tell_resolv_conf(n, &order);
    return plug(n, err);
}

static void tear_down(struct network *n)
{
    if (n->card)
        sm_socket_card_destroy(n->card);
    else if (n->backend)
        n->backend->ops->destroy(n->backend);
    sm_loop_destroy(n->loop);
    free(n);
}

int sm_network_role(void)
{
    struct network *n = calloc(1, sizeof(*n));
    if (!n)
        return EXIT_FAILURE;
    n->asked = sm_rate_make(ASKED_A_SECOND, ASKED_A_SECOND);
    sm_error err = {0};
    int rc = set_up(n, &err);
    if (rc)
        say(SM_NETWORK_TROUBLE, err.message);
    while (!rc && !n->over)
        sm_loop_round(n->loop);
    tear_down(n);
    return rc ? EXIT_FAILURE : EXIT_SUCCESS;
}
