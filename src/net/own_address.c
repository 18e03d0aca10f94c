/*
 * Asks the kernel by netlink where a packet would go. See own_address.h. It answers within the call
 * that asks, so nothing waits; what it cannot answer counts as ours, which is the closed side.
 *
 * System calls: socket(AF_NETLINK), bind, sendto, recvfrom.
 */
#include "net/own_address.h"

#include <errno.h>
#include <linux/rtnetlink.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "util/bytes.h"
#include "util/cleanup.h"
#include "util/error.h"

#define SLOTS 64

struct sm_own_address {
    int fd;
    uint32_t seq;
    struct {
        struct sm_ip ip;
        bool own;
        uint64_t until_ms; /* 0: empty */
    } slots[SLOTS];
};

struct question {
    struct nlmsghdr header;
    struct rtmsg route;
    struct rtattr attr;
    uint8_t dst[16];
};

int sm_own_address_create(struct sm_own_address **out, sm_error *err)
{
    auto_free struct sm_own_address *own = calloc(1, sizeof(*own));
    if (!own)
        return sm_error_set(err, SM_ENOMEM, "out of memory for the addresses of this host");
    own->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (own->fd < 0)
        return sm_error_errno(err, errno, "cannot ask the kernel which addresses are this host's");
    *out = sm_steal_ptr(&own);
    return 0;
}

void sm_own_address_destroy(struct sm_own_address *own)
{
    if (own)
        sm_close(own->fd);
    free(own);
}

static bool send_question(struct sm_own_address *own, const struct sm_ip *ip)
{
    bool v4 = sm_ip_is_v4(ip);
    size_t len = v4 ? 4 : 16;
    struct question q = {
        .header = {.nlmsg_len = (uint32_t)(offsetof(struct question, dst) + len),
            .nlmsg_type = RTM_GETROUTE,
            .nlmsg_flags = NLM_F_REQUEST,
            .nlmsg_seq = ++own->seq},
        .route = {.rtm_family = v4 ? AF_INET : AF_INET6, .rtm_dst_len = (uint8_t)(8 * len)},
        .attr = {.rta_type = RTA_DST, .rta_len = (uint16_t)(sizeof(q.attr) + len)},
    };
    memcpy(q.dst, ip->b + 16 - len, len);
    return send(own->fd, &q, q.header.nlmsg_len, MSG_DONTWAIT) == (ssize_t)q.header.nlmsg_len;
}

/* The kernel has answered when the question is sent. No route: not ours. */
static bool is_local(struct sm_own_address *own, const struct sm_ip *ip)
{
    if (!send_question(own, ip))
        return true;
    union {
        struct nlmsghdr header;
        uint8_t bytes[4096];
    } answer;
    const struct rtmsg *route = NLMSG_DATA(&answer.header);
    const struct nlmsgerr *error = NLMSG_DATA(&answer.header);
    ssize_t n;
    do {
        n = recv(own->fd, &answer, sizeof(answer), MSG_DONTWAIT);
    } while (n >= (ssize_t)sizeof(answer.header) && answer.header.nlmsg_seq != own->seq);
    if (n >= (ssize_t)NLMSG_LENGTH(sizeof(*error)) && answer.header.nlmsg_type == NLMSG_ERROR)
        return error->error != -ENETUNREACH && error->error != -EHOSTUNREACH &&
               error->error != -EACCES && error->error != -EINVAL;
    return n < (ssize_t)NLMSG_LENGTH(sizeof(*route)) || route->rtm_type == RTN_LOCAL ||
           route->rtm_type == RTN_ANYCAST;
}

static bool look_up(struct sm_own_address *own, const struct sm_ip *ip, uint64_t now_ms)
{
    uint64_t h = (sm_load_le64(ip->b) ^ sm_load_le64(ip->b + 8)) * 0x9e3779b97f4a7c15ULL;
    size_t i = (size_t)(h >> 40) % SLOTS;
    if (own->slots[i].until_ms <= now_ms || !sm_ip_equal(&own->slots[i].ip, ip)) {
        own->slots[i].ip = *ip;
        own->slots[i].own = is_local(own, ip);
        own->slots[i].until_ms = now_ms + SM_OWN_ADDRESS_MS;
    }
    return own->slots[i].own;
}

bool sm_own_address_has(struct sm_own_address *own, const struct sm_ip *ip, uint64_t now_ms)
{
    if (!own)
        return false;
    struct sm_ip inner[2];
    size_t n = sm_ip_embedded(ip, inner);
    for (size_t i = 0; i < n; i++) {
        if (look_up(own, &inner[i], now_ms))
            return true;
    }
    return look_up(own, ip, now_ms);
}
