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

#define SM_RESOLV_MAX_FILE 65536 /* bytes of it that are looked at */

/* The file, apart from what it says: who reads it need not be who goes by it. */
struct sm_resolv_file {
    const char *path; /* the caller's */
    bool seen;        /* it was looked at: */
    /* What was read. An inode's number comes again, and a time is as coarse as a tick; all zero: it
     * was not there. */
    struct timespec mtime, ctime;
    ino_t inode;
    off_t size;
};

/* Its contents where they have changed since the last call, and with the first one; malloc'ed,
 * empty where it cannot be read. NULL: they have not, or no memory. */
char *sm_resolv_file_read(struct sm_resolv_file *file);

struct sm_resolv_conf {
    struct sm_resolv_file file;
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

/* Reads the text; all but what is known of the file is replaced. */
void sm_resolv_conf_parse(struct sm_resolv_conf *conf, char *text);

#endif
