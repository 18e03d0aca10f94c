#include "net/peer_owner.h"

#include <errno.h>
#include <linux/inet_diag.h>
#include <linux/netlink.h>
#include <linux/sock_diag.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "util/cleanup.h"

#define TCP 6

struct end {
    uint32_t ip[4]; /* network order */
    uint16_t port;  /* network order */
};

enum answer { OURS, STRANGE, UNKNOWN };

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
    const struct sockaddr_in6 *v6 = (const void *)addr;

    if (addr->ss_family == AF_INET)
        return ntohl(end_of(addr).ip[0]) >> 24 == 127;
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
    struct question q = make_question(family, protocol, peer, local);
    union {
        struct nlmsghdr header;
        uint8_t bytes[1024];
    } answer;
    const struct inet_diag_msg *m = NLMSG_DATA(&answer.header);
    ssize_t n;

    if (o->fd == 0)
        o->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_SOCK_DIAG);
    q.header.nlmsg_seq = ++o->seq;
    if (o->fd < 0 || send(o->fd, &q, sizeof(q), MSG_DONTWAIT) != sizeof(q))
        return UNKNOWN;
    do {
        n = recv(o->fd, &answer, sizeof(answer), MSG_DONTWAIT);
    } while (n >= (ssize_t)sizeof(answer.header) && answer.header.nlmsg_seq != q.header.nlmsg_seq);
    if (n < (ssize_t)NLMSG_LENGTH(sizeof(*m)) || answer.header.nlmsg_type != SOCK_DIAG_BY_FAMILY)
        return UNKNOWN;
    o->works = true;
    /* Where the connection is gone the answer may be a listener at its port. */
    if (m->id.idiag_sport != peer->port || (protocol == TCP && m->id.idiag_dport != local->port))
        return STRANGE;
    return judge(m->idiag_uid, m->idiag_inode);
}

/* ---- /proc/net ----------------------------------------------------------------------------- */

static void format_end(char *text, size_t room, uint8_t family, const struct end *end)
{
    size_t used = 0;

    for (int i = 0; i < (family == AF_INET ? 1 : 4); i++)
        used += (size_t)snprintf(text + used, room - used, "%08X", end->ip[i]);
    snprintf(text + used, room - used, ":%04X", ntohs(end->port));
}

/* All that can be the other end must be ours: several UDP sockets may share a port. */
static enum answer search(
    uint8_t family, uint8_t protocol, const struct end *peer, const struct end *local)
{
    char path[32], line[256], from[64], to[64], want_from[64], want_any[64], want_to[64];
    const struct end any = {.port = peer->port};
    enum answer answer = STRANGE;
    unsigned long inode;
    unsigned uid;

    snprintf(path, sizeof(path), "/proc/thread-self/net/%s%s", protocol == TCP ? "tcp" : "udp",
        family == AF_INET ? "" : "6");
    auto_file in = fopen(path, "re");
    if (!in)
        return STRANGE;
    format_end(want_from, sizeof(want_from), family, peer);
    format_end(want_any, sizeof(want_any), family, &any);
    format_end(want_to, sizeof(want_to), family, local);
    while (fgets(line, sizeof(line), in)) {
        if (sscanf(line, " %*[^:]: %63s %63s %*x %*s %*s %*s %u %*d %lu", from, to, &uid, &inode) !=
            4)
            continue;
        if (strcmp(from, want_from) != 0 && (protocol == TCP || strcmp(from, want_any) != 0))
            continue;
        if (protocol == TCP && strcmp(to, want_to) != 0)
            continue;
        answer = judge(uid, inode);
        if (answer == STRANGE)
            return STRANGE;
    }
    return answer;
}

/* ---- interface ----------------------------------------------------------------------------- */

bool sm_peer_owner_is_us(struct sm_peer_owner *o, uint8_t protocol,
    const struct sockaddr_storage *peer, const struct sockaddr_storage *local)
{
    struct end p = end_of(peer), l = end_of(local);
    uint8_t family = (uint8_t)peer->ss_family;
    enum answer answer = UNKNOWN;

    if (!is_loopback(peer) || local->ss_family != peer->ss_family)
        return false;
    if (!o->lists)
        answer = ask(o, family, protocol, &p, &l);
    /* Not found; or there is nobody to ask, and then all are looked through. */
    if (answer == UNKNOWN && !o->works)
        answer = search(family, protocol, &p, &l);
    return answer == OURS;
}

void sm_peer_owner_close(struct sm_peer_owner *o)
{
    if (o->fd > 0)
        close(o->fd);
    o->fd = 0;
}
