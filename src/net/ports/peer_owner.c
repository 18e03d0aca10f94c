/* Asks sock_diag, or reads the kernel's lists, for the user at the other end. See peer_owner.h.
 * Every doubt ends as STRANGE, who gets less. */
#include "net/ports/peer_owner.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/clock.h"

#define TCP 6

/* Of the thread's time lists may cost a fifth, and so much at once. */
#define LIST_SHARE   5
#define LIST_MOST_NS 200000000u

struct end {
    uint32_t ip[4]; /* network order */
    uint16_t port;  /* network order */
};

enum answer {
    OURS,
    STRANGE,
    NONE,
    UNKNOWN
}; /* NONE: there is no such socket; UNKNOWN: nobody to ask */

static struct end end_of(const struct sockaddr_storage *addr)
{
    const struct sockaddr_in *v4 = (const void *)addr;
    const struct sockaddr_in6 *v6 = (const void *)addr;
    struct end end = {.port = v4->sin_port};
    if (addr->ss_family == AF_INET)
        end.ip[0] = v4->sin_addr.s_addr;
    else
        memcpy(end.ip, &v6->sin6_addr, sizeof(end.ip));
    return end;
}

static bool is_loopback(const struct sockaddr_storage *addr)
{
    if (addr->ss_family == AF_INET)
        return ntohl(end_of(addr).ip[0]) >> 24 == 127;
    const struct sockaddr_in6 *v6 = (const void *)addr;
    return addr->ss_family == AF_INET6 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

/* inode 0: nobody has it open any more. */
static enum answer judge(uint32_t uid, unsigned long inode)
{
    return inode != 0 && (uid == geteuid() || uid == 0) ? OURS : STRANGE;
}

/* ---- sock_diag ----------------------------------------------------------------------------- */

struct question {
    struct nlmsghdr header;
    struct inet_diag_req_v2 request;
};

/* TCP is looked up from the peer's side; UDP as what would receive a datagram of ours. */
static struct question make_question(
    uint8_t family, uint8_t protocol, const struct end *peer, const struct end *local)
{
    const struct end *src = protocol == TCP ? peer : local, *dst = protocol == TCP ? local : peer;
    struct question q = {
        .header = {.nlmsg_len = sizeof(q),
            .nlmsg_type = SOCK_DIAG_BY_FAMILY,
            .nlmsg_flags = NLM_F_REQUEST},
        .request = {.sdiag_family = family,
            .sdiag_protocol = protocol,
            .idiag_states = UINT32_MAX,
            .id = {.idiag_sport = src->port,
                .idiag_dport = dst->port,
                .idiag_cookie = {INET_DIAG_NOCOOKIE, INET_DIAG_NOCOOKIE}}},
    };
    memcpy(q.request.id.idiag_src, src->ip, sizeof(src->ip));
    memcpy(q.request.id.idiag_dst, dst->ip, sizeof(dst->ip));
    return q;
}

/* The kernel has answered when the question is sent. */
static enum answer ask(struct sm_peer_owner *o, uint8_t family, uint8_t protocol,
    const struct end *peer, const struct end *local)
{
    if (o->fd < 0)
        o->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    struct question q = make_question(family, protocol, peer, local);
    q.header.nlmsg_seq = ++o->seq;
    if (o->fd < 0 || send(o->fd, &q, sizeof(q), MSG_DONTWAIT) != sizeof(q))
        return UNKNOWN;
    union {
        struct nlmsghdr header;
        uint8_t bytes[1024];
    } answer;
    const struct inet_diag_msg *m = NLMSG_DATA(&answer.header);
    ssize_t n;
    do {
        n = recv(o->fd, &answer, sizeof(answer), MSG_DONTWAIT);
    } while (n >= (ssize_t)sizeof(answer.header) && answer.header.nlmsg_seq != q.header.nlmsg_seq);
    if (n < (ssize_t)sizeof(answer.header))
        return UNKNOWN;
    if (n < (ssize_t)NLMSG_LENGTH(sizeof(*m)) || answer.header.nlmsg_type != SOCK_DIAG_BY_FAMILY)
        return NONE;
    /* Where the connection is gone the answer may be a listener at its port. */
    if (m->id.idiag_sport != peer->port || (protocol == TCP && m->id.idiag_dport != local->port))
        return STRANGE;
    return judge(m->idiag_uid, m->idiag_inode);
}

/* A kernel that cannot tell of a protocol's sockets says that there is none. Ours is there for
 * certain. */
static bool can_tell(struct sm_peer_owner *o, uint8_t family, uint8_t protocol,
    const struct end *peer, const struct end *local)
{
    enum sm_peer_source *source = &o->source[protocol == TCP];
    if (*source == SM_PEER_UNTRIED)
        *source =
            ask(o, family, protocol, local, peer) == NONE ? SM_PEER_IS_LISTED : SM_PEER_IS_TOLD;
    return *source == SM_PEER_IS_TOLD;
}

/* ---- /proc/net ----------------------------------------------------------------------------- */

static void format_end(char *text, size_t room, uint8_t family, const struct end *end)
{
    size_t used = 0;
    for (int i = 0; i < (family == AF_INET ? 1 : 4); i++)
        used += (size_t)snprintf(text + used, room - used, "%08X", end->ip[i]);
    snprintf(text + used, room - used, ":%04X", ntohs(end->port));
}

/* What a socket of the list is recognised by. */
struct wanted {
    uint8_t protocol;
    char from[64], any[64], to[64];
};

/* What a line says; NONE: it is another socket's. */
static enum answer read_line(const struct wanted *w, const char *line)
{
    char from[64];
    char to[64];
    unsigned long inode;
    unsigned uid;
    if (sscanf(line, " %*[^:]: %63s %63s %*x %*s %*s %*s %u %*d %lu", from, to, &uid, &inode) != 4)
        return NONE;
    if (strcmp(from, w->from) != 0 && (w->protocol == TCP || strcmp(from, w->any) != 0))
        return NONE;
    if (w->protocol == TCP && strcmp(to, w->to) != 0)
        return NONE;
    return judge(uid, inode);
}

static uint64_t thread_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* All that can be the other end must be ours: several UDP sockets may share a port. */
static enum answer read_list(FILE *in, const struct wanted *w, uint64_t end_ns)
{
    const char *port = strrchr(w->from, ':');
    enum answer answer = NONE;
    char line[256];
    for (unsigned n = 1; fgets(line, sizeof(line), in); n++) {
        enum answer said = strstr(line, port) ? read_line(w, line) : NONE;
        if (said == STRANGE || (n % 256 == 0 && thread_ns() >= end_ns))
            return STRANGE;
        if (said == OURS)
            answer = OURS;
    }
    return answer;
}

static bool may_list(struct sm_peer_owner *o)
{
    uint64_t now = sm_now_ns();
    o->cost_ns -= SM_MIN(o->cost_ns, (now - o->paid_ns) / LIST_SHARE);
    o->paid_ns = now;
    return o->cost_ns < LIST_MOST_NS;
}

static enum answer search(struct sm_peer_owner *o, uint8_t family, uint8_t protocol,
    const struct end *peer, const struct end *local)
{
    uint64_t begin = thread_ns();
    if (!may_list(o))
        return STRANGE;
    char path[32];
    snprintf(path, sizeof(path), "/proc/thread-self/net/%s%s", protocol == TCP ? "tcp" : "udp",
        family == AF_INET ? "" : "6");
    auto_file in = fopen(path, "re");
    if (!in)
        return STRANGE;
    struct wanted w = {.protocol = protocol};
    format_end(w.from, sizeof(w.from), family, peer);
    const struct end any = {.port = peer->port};
    format_end(w.any, sizeof(w.any), family, &any);
    format_end(w.to, sizeof(w.to), family, local);
    enum answer answer = read_list(in, &w, begin + LIST_MOST_NS);
    o->cost_ns += thread_ns() - begin;
    return answer;
}

/* ---- interface ----------------------------------------------------------------------------- */

bool sm_peer_owner_is_us(struct sm_peer_owner *o, uint8_t protocol,
    const struct sockaddr_storage *peer, const struct sockaddr_storage *local)
{
    if (!is_loopback(peer) || local->ss_family != peer->ss_family)
        return false;
    struct end p = end_of(peer), l = end_of(local);
    uint8_t family = (uint8_t)peer->ss_family;
    enum answer answer = UNKNOWN;
    if (can_tell(o, family, protocol, &p, &l))
        answer = ask(o, family, protocol, &p, &l);
    if (answer == UNKNOWN)
        answer = search(o, family, protocol, &p, &l);
    return answer == OURS;
}

void sm_peer_owner_close(struct sm_peer_owner *o)
{
    sm_close(o->fd);
    o->fd = -1;
}
