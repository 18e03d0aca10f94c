/*
 * The guest's name server: questions under way, each with a number and a deadline of its own and a
 * socket for each resolver that was asked. See dns_proxy.h. An answer is walked twice, first to
 * judge all of it, then to learn from it: nothing is learned of one that is refused. One timer
 * serves all deadlines.
 *
 * System calls: socket(AF_INET, AF_INET6), connect, sendto, recvfrom, getrandom.
 */
#include "net/dns_proxy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "net/resolv_conf.h"
#include "util/bytes.h"
#include "util/clock.h"
#include "util/error.h"

#define TICK_MS 250

/* A question as one resolver was asked it. */
struct attempt {
    struct pending *pending;
    struct sm_loop_watch *watch;
    int fd;          /* -1: it has answered, or cannot be reached */
    unsigned server; /* its place in resolv.conf */
    /* Over TCP: bytes of the question with its length, and of the answer with its length. */
    size_t sent, got;
    uint8_t length[2];
    uint8_t *msg; /* owned */
};

struct pending {
    struct sm_dns_proxy *proxy;
    struct pending *next, **link;
    struct sm_dns_client client;
    uint16_t id; /* of the question that we sent */
    struct attempt attempts[SM_DNS_TRIES];
    unsigned tries;    /* so many attempts were made */
    unsigned answered; /* a bit for each server that has answered, and could not help */
    uint64_t began_ms, deadline_ms;
    struct sm_dns_question question;
    size_t query_len;
    uint8_t prefixed[]; /* what goes over TCP: the length, and the question */
};

struct sm_dns_proxy {
    struct sm_loop *loop;
    struct sm_egress *egress;
    char *path;
    struct sm_resolv_conf conf;
    void (*asked)(void *arg); /* NULL: we read the file ourselves */
    void *asked_arg;
    unsigned preferred; /* who is asked first */
    uint64_t preferred_until_ms;
    sm_dns_answer_fn *answer;
    void *arg;
    struct sm_loop_timer *timer;
    struct pending *pending;
    unsigned n_pending;
    uint8_t buf[SM_DNS_MAX_UDP];
};

/* ---- policy -------------------------------------------------------------------------------- */

struct check {
    struct sm_dns_proxy *proxy;
    const struct sm_dns_client *client;
    const struct sm_dns_question *question;
    struct sm_name_set set;
    bool refused;
    uint64_t now_ms;
};

static void deny(struct sm_dns_proxy *proxy, const struct sm_dns_client *client,
    enum sm_verdict verdict, const char *name, const struct sm_ip *addr)
{
    struct sm_denial denial = {.verdict = verdict,
        .protocol = client->stream ? SM_IP_TCP : SM_IP_UDP,
        .port = SM_NO_PORT,
        .name = name};
    if (addr)
        denial.addr = *addr;
    sm_egress_deny(proxy->egress, &denial, (uint64_t)sm_now_ms());
}

static bool check_record(void *arg, const struct sm_dns_record *record)
{
    struct check *c = arg;
    struct sm_dns_proxy *proxy = c->proxy;
    enum sm_verdict v = SM_VERDICT_ALLOW;
    if (record->target)
        v = sm_policy_decide_alias(&proxy->egress->policy, record->target);
    else if (record->addr && sm_own_address_has(proxy->egress->own, record->addr, c->now_ms))
        v = sm_policy_decide_own(&proxy->egress->policy, record->addr, SM_ANY_PORT, NULL);
    else if (record->addr)
        v = sm_policy_decide_answer(&proxy->egress->policy, record->addr);
    if (v != SM_VERDICT_ALLOW) {
        deny(proxy, c->client, v, c->question->name, record->addr);
        c->refused = true;
        return false;
    }
    return true;
}

static bool learn_record(void *arg, const struct sm_dns_record *record)
{
    struct check *c = arg;
    if (record->addr)
        sm_names_learn(&c->proxy->egress->names, record->addr, &c->set, record->ttl, c->now_ms);
    return true;
}

/* Nothing is learned of an answer that is refused. Returns the length of what the guest gets. */
static size_t enforce(const struct pending *p, uint8_t *msg, size_t len)
{
    struct sm_dns_proxy *proxy = p->proxy;
    const struct sm_dns_question *question = &p->question;
    if (proxy->egress->policy.n_layers == 0)
        return len;
    struct check c = {.proxy = proxy,
        .client = &p->client,
        .question = question,
        .now_ms = (uint64_t)sm_now_ms()};
    if (!sm_dns_walk(msg, len, check_record, &c))
        return sm_dns_make_error(
            msg, question, c.refused ? SM_DNS_RCODE_NXDOMAIN : SM_DNS_RCODE_SERVFAIL);
    if (sm_policy_match_names(&proxy->egress->policy, question->name, &c.set))
        (void)sm_dns_walk(msg, len, learn_record, &c);
    return len;
}

/* ---- questions under way ------------------------------------------------------------------- */

static void hang_up(struct attempt *a)
{
    sm_loop_remove(a->watch);
    a->watch = NULL;
    sm_close(a->fd);
    a->fd = -1;
}

static uint8_t *query_of(struct pending *p)
{
    return p->prefixed + SM_DNS_LENGTH;
}

/* Nobody is asked any more, and nobody finds it. */
static void unlist(struct pending *p)
{
    for (unsigned i = 0; i < p->tries; i++)
        hang_up(&p->attempts[i]);
    *p->link = p->next;
    if (p->next)
        p->next->link = p->link;
    p->proxy->n_pending--;
}

static void release(struct pending *p)
{
    for (unsigned i = 0; i < p->tries; i++)
        free(p->attempts[i].msg);
    free(p);
}

static void drop(struct pending *p)
{
    unlist(p);
    release(p);
}

/* Who gets the answer may ask again, or have all that he asked forgotten. */
static void hand_over(struct pending *p, const uint8_t *msg, size_t len)
{
    unlist(p);
    p->proxy->answer(p->proxy->arg, &p->client, msg, len);
    release(p);
}

/* The answer is in msg: with the guest's id, cut to what it takes. */
static void finish(struct pending *p, uint8_t *msg, size_t len)
{
    len = enforce(p, msg, len);
    if (!p->client.stream && len > p->question.udp_size)
        len = sm_dns_truncate(msg, &p->question);
    sm_store_be16(msg, p->question.id);
    hand_over(p, msg, len);
}

static void give_up(struct pending *p)
{
    size_t len = sm_dns_make_error(query_of(p), &p->question, SM_DNS_RCODE_SERVFAIL);
    sm_store_be16(query_of(p), p->question.id);
    hand_over(p, query_of(p), len);
}

/* Who did not say a word while another one helped is asked after that one, for a while. Who has
 * answered, and could not help, is the first still: others may not know what he knows. */
static void prefer(const struct pending *p, unsigned server)
{
    struct sm_dns_proxy *proxy = p->proxy;
    unsigned first = p->attempts[0].server;
    if (server == first || p->answered & 1u << first)
        return;
    proxy->preferred = server;
    proxy->preferred_until_ms = (uint64_t)sm_now_ms() + SM_DNS_PREFER_MS;
}

/* Whether an answer may come that helps. Who has answered one attempt says no more to another. */
static bool is_asked(const struct pending *p)
{
    for (unsigned i = 0; i < p->tries; i++)
        if (p->attempts[i].fd >= 0 && !(p->answered & 1u << p->attempts[i].server))
            return true;
    return false;
}

static bool ask_next_server(struct pending *p);

/* It refuses, cannot be reached, or talks nonsense. */
static void fail(struct attempt *a)
{
    struct pending *p = a->pending;
    hang_up(a);
    if (!ask_next_server(p) && !is_asked(p))
        give_up(p);
}

static void take_answer(struct attempt *a, uint8_t *msg, size_t len)
{
    struct pending *p = a->pending;
    if (!sm_dns_is_failure(msg)) {
        prefer(p, a->server);
    } else {
        hang_up(a);
        p->answered |= 1u << a->server;
        if (ask_next_server(p) || is_asked(p))
            return;
    }
    finish(p, msg, len);
}

static void on_datagram(void *arg, uint32_t events)
{
    (void)events;
    struct attempt *a = arg;
    struct pending *p = a->pending;
    struct sm_dns_proxy *proxy = p->proxy;
    ssize_t n = recv(a->fd, proxy->buf, sizeof(proxy->buf), MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n < 0)
        fail(a);
    else if (sm_dns_is_answer(proxy->buf, (size_t)n, p->id, &p->question))
        take_answer(a, proxy->buf, (size_t)n);
}

/* False: the connection is of no use any more. */
static bool send_query(struct attempt *a)
{
    const struct pending *p = a->pending;
    size_t len = SM_DNS_LENGTH + p->query_len;
    ssize_t n = send(a->fd, p->prefixed + a->sent, len - a->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0)
        return errno == EAGAIN || errno == EINTR;
    a->sent += (size_t)n;
    if (a->sent == len)
        sm_loop_modify(a->watch, SM_LOOP_IN);
    return true;
}

/* Reads what is missing of the length, or then of the answer. False as above. */
static bool read_answer(struct attempt *a)
{
    size_t len = SM_DNS_LENGTH, have = a->got;
    uint8_t *to = a->length;
    if (a->got >= SM_DNS_LENGTH) {
        len = sm_load_be16(a->length);
        have = a->got - SM_DNS_LENGTH;
        if (len < SM_DNS_HEADER || (!a->msg && !(a->msg = malloc(len))))
            return false;
        to = a->msg;
    }
    ssize_t n = recv(a->fd, to + have, len - have, MSG_DONTWAIT);
    if (n <= 0)
        return n < 0 && (errno == EAGAIN || errno == EINTR);
    a->got += (size_t)n;
    return true;
}

static void on_stream(void *arg, uint32_t events)
{
    (void)events;
    struct attempt *a = arg;
    const struct pending *p = a->pending;
    bool asking = a->sent < SM_DNS_LENGTH + p->query_len;
    if (!(asking ? send_query(a) : read_answer(a))) {
        fail(a);
        return;
    }
    size_t len = a->got > SM_DNS_LENGTH ? sm_load_be16(a->length) : 0;
    if (len == 0 || a->got < SM_DNS_LENGTH + len)
        return;
    if (sm_dns_is_answer(a->msg, len, p->id, &p->question))
        take_answer(a, a->msg, len);
    else
        fail(a);
}

static bool start(struct attempt *a, const struct sockaddr_storage *server)
{
    struct pending *p = a->pending;
    bool stream = p->client.stream != 0;
    int type = (stream ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | SOCK_NONBLOCK;
    socklen_t len =
        server->ss_family == AF_INET6 ? sizeof(struct sockaddr_in6) : sizeof(struct sockaddr_in);
    a->fd = socket(server->ss_family, type, 0);
    if (a->fd < 0 ||
        (connect(a->fd, (const struct sockaddr *)server, len) != 0 && errno != EINPROGRESS))
        return false;
    if (!stream && send(a->fd, query_of(p), p->query_len, MSG_NOSIGNAL) < 0)
        return false;
    return sm_loop_add(p->proxy->loop, a->fd, stream ? SM_LOOP_OUT : SM_LOOP_IN,
               stream ? on_stream : on_datagram, a, &a->watch, NULL) == 0;
}

/* The next one in turn that has not answered yet; those that were asked may answer still. False:
 * there is none to ask. */
static bool ask_next_server(struct pending *p)
{
    const struct sm_resolv_conf *conf = &p->proxy->conf;
    unsigned first = p->tries ? p->attempts[0].server : p->proxy->preferred;
    while (p->tries < SM_DNS_TRIES && conf->n > 0) {
        struct attempt *a = &p->attempts[p->tries];
        *a = (struct attempt){
            .pending = p, .fd = -1, .server = (first + p->tries) % (unsigned)conf->n};
        p->tries++;
        p->deadline_ms = (uint64_t)sm_now_ms() + SM_DNS_TRY_MS;
        if (!(p->answered & 1u << a->server) && start(a, &conf->servers[a->server]))
            return true;
        hang_up(a);
    }
    return false;
}

/* The time of the last attempt is over, or that of all. */
static void on_deadline(struct pending *p, uint64_t now)
{
    if (ask_next_server(p))
        return;
    p->deadline_ms = p->began_ms + SM_DNS_GIVE_UP_MS;
    if (p->deadline_ms <= now || !is_asked(p))
        give_up(p);
}

static void on_tick(void *arg)
{
    struct sm_dns_proxy *proxy = arg;
    uint64_t now = (uint64_t)sm_now_ms();
    struct pending *next;
    for (struct pending *p = proxy->pending; p; p = next) {
        next = p->next;
        if (p->deadline_ms <= now)
            on_deadline(p, now);
    }
    if (proxy->pending)
        sm_loop_timer_arm(proxy->timer, TICK_MS);
}

/* ---- interface ----------------------------------------------------------------------------- */

static void answer_error(struct sm_dns_proxy *proxy, const struct sm_dns_client *client,
    const void *msg, const struct sm_dns_question *question, unsigned rcode)
{
    uint8_t copy[SM_DNS_HEADER + 256 + 4];
    if (question->end > sizeof(copy))
        return;
    memcpy(copy, msg, question->end);
    proxy->answer(proxy->arg, client, copy, sm_dns_make_error(copy, question, rcode));
}

static void enlist(struct sm_dns_proxy *proxy, struct pending *p)
{
    p->next = proxy->pending;
    p->link = &proxy->pending;
    if (p->next)
        p->next->link = &p->next;
    else
        sm_loop_timer_arm(proxy->timer, TICK_MS);
    proxy->pending = p;
    proxy->n_pending++;
}

bool sm_dns_proxy_ask(
    struct sm_dns_proxy *proxy, const struct sm_dns_client *client, const void *msg, size_t len)
{
    struct sm_dns_question question;
    if (len > SM_DNS_MAX_UDP || !sm_dns_parse_query(msg, len, &question))
        return false;
    enum sm_verdict v = sm_policy_decide_name(&proxy->egress->policy, question.name);
    if (v != SM_VERDICT_ALLOW) {
        deny(proxy, client, v, question.name, NULL);
        answer_error(proxy, client, msg, &question, SM_DNS_RCODE_NXDOMAIN);
        return true;
    }
    struct pending *p = NULL;
    if (proxy->n_pending < SM_DNS_MAX_PENDING)
        p = calloc(1, sizeof(*p) + SM_DNS_LENGTH + len);
    if (!p || getrandom(&p->id, sizeof(p->id), 0) != (ssize_t)sizeof(p->id)) {
        free(p);
        answer_error(proxy, client, msg, &question, SM_DNS_RCODE_SERVFAIL);
        return true;
    }
    p->proxy = proxy;
    p->client = *client;
    p->question = question;
    p->began_ms = (uint64_t)sm_now_ms();
    p->query_len = len;
    sm_store_be16(p->prefixed, len);
    memcpy(query_of(p), msg, len);
    sm_store_be16(query_of(p), p->id);
    enlist(proxy, p);
    if (proxy->asked)
        proxy->asked(proxy->asked_arg);
    else if (sm_resolv_conf_refresh(&proxy->conf))
        proxy->preferred = 0;
    if (p->began_ms >= proxy->preferred_until_ms)
        proxy->preferred = 0;
    if (!ask_next_server(p))
        give_up(p);
    return true;
}

void sm_dns_proxy_forget(struct sm_dns_proxy *proxy, uint32_t stream)
{
    struct pending *next;
    for (struct pending *p = proxy->pending; p; p = next) {
        next = p->next;
        if (p->client.stream == stream)
            drop(p);
    }
}

void sm_dns_proxy_reset(struct sm_dns_proxy *proxy)
{
    while (proxy->pending)
        drop(proxy->pending);
}

int sm_dns_proxy_create(struct sm_loop *loop, struct sm_egress *egress, const char *resolv_conf,
    sm_dns_answer_fn *answer, void *arg, struct sm_dns_proxy **out, sm_error *err)
{
    auto_free char *path = strdup(resolv_conf ? resolv_conf : "/etc/resolv.conf");
    auto_free struct sm_dns_proxy *proxy = calloc(1, sizeof(*proxy));
    if (!proxy || !path)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the name server of the guest");
    int rc = sm_loop_timer_create(loop, on_tick, proxy, &proxy->timer, err);
    if (rc)
        return rc;
    proxy->loop = loop;
    proxy->egress = egress;
    proxy->answer = answer;
    proxy->arg = arg;
    proxy->conf.file.path = proxy->path = sm_steal_ptr(&path);
    *out = sm_steal_ptr(&proxy);
    return 0;
}

void sm_dns_proxy_have_told(struct sm_dns_proxy *proxy, void (*asked)(void *arg), void *arg)
{
    proxy->asked = asked;
    proxy->asked_arg = arg;
}

void sm_dns_proxy_tell(struct sm_dns_proxy *proxy, char *text)
{
    sm_resolv_conf_parse(&proxy->conf, text);
    proxy->preferred = 0;
}

void sm_dns_proxy_destroy(struct sm_dns_proxy *proxy)
{
    if (!proxy)
        return;
    sm_dns_proxy_reset(proxy);
    sm_loop_timer_destroy(proxy->timer);
    free(proxy->path);
    free(proxy);
}
