/*
 * Reads resolv.conf(5) as glibc does: three name servers, a zone behind % and, for tests,
 * [ADDRESS]:PORT; of `search` and `domain` the last line counts, of `options` each one. See
 * resolv_conf.h.
 *
 * System calls: socket(AF_INET), ioctl(SIOCGIFINDEX).
 * System calls elsewhere: open, stat, read.
 */
#include "net/resolv_conf.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "util/bytes.h"
#include "util/cleanup.h"

#define BLANK " \t\r"

/* As if_nametoindex, whose socket is one that a process without files should not have. 0: there is
 * none. */
static unsigned index_of(const char *interface)
{
    struct ifreq req = {0};
    strncpy(req.ifr_name, interface, sizeof(req.ifr_name) - 1);
    auto_fd fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    return fd >= 0 && ioctl(fd, SIOCGIFINDEX, &req) == 0 ? (unsigned)req.ifr_ifindex : 0;
}

static bool parse_server(char *text, struct sockaddr_storage *out)
{
    memset(out, 0, sizeof(*out));
    unsigned long port = 53;
    if (text[0] == '[') {
        char *end = strchr(++text, ']');
        if (!end || end[1] != ':')
            return false;
        *end = '\0';
        port = strtoul(end + 2, NULL, 10);
        if (port == 0 || port > 65535)
            return false;
    }
    char *zone = strchr(text, '%');
    if (zone)
        *zone++ = '\0';
    struct sockaddr_in *v4 = (struct sockaddr_in *)(void *)out;
    if (inet_pton(AF_INET, text, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htobe16((uint16_t)port);
        return true;
    }
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)(void *)out;
    if (inet_pton(AF_INET6, text, &v6->sin6_addr) != 1)
        return false;
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htobe16((uint16_t)port);
    v6->sin6_scope_id = zone ? index_of(zone) : 0;
    return true;
}

static bool is_word(const char *word)
{
    for (; *word; word++)
        if (*word <= ' ' || *word > '~')
            return false;
    return true;
}

bool sm_resolv_conf_add(char words[SM_RESOLV_WORDS + 1], const char *word)
{
    size_t len = strlen(words), n = strlen(word);
    if (!*word || !is_word(word) || len + (len > 0) + n > SM_RESOLV_WORDS)
        return false;
    if (len > 0)
        words[len++] = ' ';
    memcpy(words + len, word, n + 1);
    return true;
}

/* Appends the words that fit. */
static void add_words(char words[SM_RESOLV_WORDS + 1], const char *value, char **rest)
{
    for (; value; value = strtok_r(NULL, BLANK, rest))
        if (strcmp(value, ".") != 0) /* the root: what systemd writes for none */
            (void)sm_resolv_conf_add(words, value);
}

static void parse_line(struct sm_resolv_conf *conf, char *line)
{
    char *rest = NULL;
    const char *key = strtok_r(line, BLANK, &rest);
    char *value = strtok_r(NULL, BLANK, &rest);
    if (!key || !value)
        return;
    if (strcmp(key, "nameserver") == 0) {
        if (conf->n < SM_RESOLV_MAX && parse_server(value, &conf->servers[conf->n]))
            conf->n++;
    } else if (strcmp(key, "search") == 0) {
        conf->search[0] = '\0';
        add_words(conf->search, value, &rest);
    } else if (strcmp(key, "domain") == 0) {
        char none[] = "", *end = none; /* one domain */
        conf->search[0] = '\0';
        add_words(conf->search, value, &end);
    } else if (strcmp(key, "options") == 0) {
        add_words(conf->options, value, &rest);
    }
}

void sm_resolv_conf_parse(struct sm_resolv_conf *conf, char *text)
{
    conf->n = 0;
    conf->search[0] = conf->options[0] = '\0';
    char *save = NULL;
    for (char *line = strtok_r(text, "\n", &save); line; line = strtok_r(NULL, "\n", &save))
        parse_line(conf, line);
    if (conf->n == 0) {
        static const char loopback[] = "127.0.0.1";
        char copy[sizeof(loopback)];
        memcpy(copy, loopback, sizeof(copy));
        conf->n = parse_server(copy, &conf->servers[0]) ? 1 : 0;
    }
}

static bool same_time(const struct timespec *a, const struct timespec *b)
{
    return a->tv_sec == b->tv_sec && a->tv_nsec == b->tv_nsec;
}

/* Takes in what is there now. False: it is the same. */
static bool has_changed(struct sm_resolv_file *file)
{
    struct stat st;
    if (stat(file->path, &st) != 0)
        st = (struct stat){0};
    if (file->seen && st.st_ino == file->inode && st.st_size == file->size &&
        same_time(&st.st_mtim, &file->mtime) && same_time(&st.st_ctim, &file->ctime))
        return false;
    file->seen = true;
    file->mtime = st.st_mtim;
    file->ctime = st.st_ctim;
    file->inode = st.st_ino;
    file->size = st.st_size;
    return true;
}

char *sm_resolv_file_read(struct sm_resolv_file *file)
{
    char *text = has_changed(file) ? calloc(1, SM_RESOLV_MAX_FILE + 1) : NULL;
    if (!text)
        return NULL;
    auto_fd fd = open(file->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd >= 0 ? read(fd, text, SM_RESOLV_MAX_FILE) : 0;
    text[n > 0 ? n : 0] = '\0';
    return text;
}

bool sm_resolv_conf_refresh(struct sm_resolv_conf *conf)
{
    auto_free char *text = sm_resolv_file_read(&conf->file);
    if (text)
        sm_resolv_conf_parse(conf, text);
    return text != NULL;
}
