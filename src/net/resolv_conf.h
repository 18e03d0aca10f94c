/* The name servers of a resolv.conf(5), read again when the file has changed. */
#ifndef SM_NET_RESOLV_CONF_H
#define SM_NET_RESOLV_CONF_H

#include <netinet/in.h>
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>

#define SM_RESOLV_MAX 3

struct sm_resolv_conf {
    char *path;
    struct timespec mtime;
    ino_t inode;
    size_t n;
    struct sockaddr_storage servers[SM_RESOLV_MAX];
};

/* Brings servers up to date. Without file or name server it is 127.0.0.1, as resolvers do. */
void sm_resolv_conf_refresh(struct sm_resolv_conf *conf);

/* Reads the text; conf->n and conf->servers are replaced. */
void sm_resolv_conf_parse(struct sm_resolv_conf *conf, char *text);

#endif
