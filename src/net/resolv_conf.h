/* A resolv.conf(5): its name servers, search domains and options, read again when the file has
 * changed. */
#ifndef SM_NET_RESOLV_CONF_H
#define SM_NET_RESOLV_CONF_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/socket.h>
#include <time.h>

#define SM_RESOLV_MAX 3
#define SM_RESOLV_WORDS                                                                            \
    255 /* characters of the search domains, and of the options: what musl reads */

struct sm_resolv_conf {
    const char *path; /* the caller's */
    /* What it was read of. An inode's number comes again, and a time is as coarse as a tick. */
    struct timespec mtime, ctime;
    ino_t inode;
    off_t size;
    size_t n;
    struct sockaddr_storage servers[SM_RESOLV_MAX];
    /* Words with a space between them; domains and options that do not fit are left out. */
    char search[SM_RESOLV_WORDS + 1], options[SM_RESOLV_WORDS + 1];
};

/* Brings it up to date. Without file or name server it is 127.0.0.1, as resolvers do. True: it was
 * read. */
bool sm_resolv_conf_refresh(struct sm_resolv_conf *conf);

/* Appends a word to search domains or options; false: it is none, or does not fit. */
bool sm_resolv_conf_add(char words[SM_RESOLV_WORDS + 1], const char *word);

/* Reads the text; all but the file's name and times is replaced. */
void sm_resolv_conf_parse(struct sm_resolv_conf *conf, char *text);

#endif
